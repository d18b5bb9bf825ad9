"""What a rollout is judged by, from the runtime's fan-out metrics. Pure; thresholds and what to do: runbooks/gate.md.

A rise counts only if it is both large for its size and more than chance: ``after > RISE_RATIO * before`` and
``after - before >= RISE_MIN``, where the two are the older and the newer half of the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from khala_contracts import http_messages as m

__all__ = ["FAIRNESS_MIN", "RISE_MIN", "RISE_RATIO", "GateCheck", "judge_fanout"]

FAIRNESS_MIN: Final = 0.8
RISE_RATIO: Final = 1.5
RISE_MIN: Final = 10
# By field of FanoutChanges.
_RISING: Final = {
    "release": "topics released from slow consumers",
    "disconnect": "slow consumers disconnected",
    "evictions": "connections and topics evicted",
}


@attrs.frozen
class GateCheck:
    """One thing that was judged.

    Attributes:
        name: Stable, for scripts.
        passed: Whether it lets the rollout go on.
        text: What was found, for people.
    """

    name: str
    passed: bool
    text: str


def judge_fanout(metrics: m.FanoutMetricsResponse) -> list[GateCheck]:
    """Return every check on an answer of the runtime, in the order of the runbook."""
    totals, trend = metrics.totals, metrics.trend
    silent = [node.node_id for node in metrics.nodes if node.silent]
    return [
        GateCheck(
            "nodes",
            totals.nodes_ready > 0 and not silent,
            f"{totals.nodes_ready} of {totals.nodes} nodes ready, {totals.nodes_draining} draining"
            + (f"; silent: {', '.join(silent)}" if silent else ""),
        ),
        GateCheck(
            "fairness",
            trend.fairness_min >= FAIRNESS_MIN,
            f"{trend.fairness_min:.3f} in the worst minute, {trend.fairness:.3f} in all; at least {FAIRNESS_MIN}",
        ),
        *(
            _judge_rise(field, text, getattr(trend.before, field), getattr(trend.after, field))
            for field, text in _RISING.items()
        ),
    ]


def _judge_rise(name: str, text: str, before: int, after: int) -> GateCheck:
    rises = after > RISE_RATIO * before and after - before >= RISE_MIN
    return GateCheck(
        name, not rises, f"{text}: {before} in the older half of the window, {after} in the newer"
    )
