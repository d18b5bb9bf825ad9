"""What a drill is: a function from options to an outcome, and the words in which outcomes are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from chaos.drills.verdict import Verdict, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Claim", "DrillOptions", "Outcome", "RunDrill", "claims_of", "delivery_facts"]


@attrs.frozen(kw_only=True)
class DrillOptions:
    """How a drill is run.

    Attributes:
        folder: An empty folder for everything that it writes.
        is_quick: The short form: the same faults, fewer of them.
        kills: Roughly how many processes are killed; None: what the drill thinks right.
        seed: Of the order and the instants of faults.
        has_faults: False shows that the drill notices when nothing happens.
        progress: Takes lines for whoever watches.
    """

    folder: Path
    is_quick: bool = False
    kills: int | None = None
    seed: int = 1
    has_faults: bool = True
    progress: Callable[[str], None] = print


@attrs.frozen
class Claim:
    """One promise, what was measured, and whether that keeps it."""

    promise: str
    measured: str
    is_met: bool


@attrs.frozen
class Outcome:
    """What a drill found; it passes iff every claim is met.

    Attributes:
        tables: Further figures by title: rows with equal members.
    """

    claims: list[Claim]
    tables: Mapping[str, list[Mapping[str, Any]]]
    violations: list[str]

    @property
    def is_passed(self) -> bool:
        """Whether every claim is met."""
        return all(claim.is_met for claim in self.claims)


class RunDrill(Protocol):
    """Does the harm, and judges."""

    def __call__(self, options: DrillOptions) -> Outcome:
        """Run the drill to its end.

        Raises:
            DrillFailed, SystemFailedError, BrokenTranscriptError: It could not be judged.
        """


# A publisher that offers much less than it should has not loaded the system.
_LOAD_SHARE = 0.9


def claims_of(verdict: Verdict, *, offered_per_s: float) -> list[Claim]:
    """Return the claims that every drill makes of its clients."""
    applied = sum(client["applied"] for client in verdict.clients)
    load = verdict.load
    return [
        Claim(
            "Every client's applied history is the journal, event by event, to the head",
            f"{len(verdict.clients)} clients, {applied:,} applied events, {load['passes_judged']} replays: "
            f"{len(verdict.broken_histories)} differences",
            not verdict.broken_histories and all(client["applied"] for client in verdict.clients),
        ),
        Claim(
            "Every acknowledged append is there, once; no retried key was applied twice",
            f"{load['keys']:,} keys, {load['keys_sent_again']:,} of them sent again: "
            f"{len(verdict.broken_appends)} violations",
            not verdict.broken_appends and load["keys_sent_again"] > 0,
        ),
        Claim(
            "No gap and no repeat reached a wire",
            f"{verdict.gaps_on_the_wire} gaps, {sum(client['repeats'] for client in verdict.clients)} repeats",
            verdict.gaps_on_the_wire == 0 and all(not client["repeats"] for client in verdict.clients),
        ),
        Claim(
            f"The load was {offered_per_s:g} events/s",
            f"{load['events_per_s']:g} acknowledged per second over {load['seconds']:g} s",
            load["events_per_s"] >= offered_per_s * _LOAD_SHARE,
        ),
    ]


def delivery_facts(title: str, latencies_s: list[float]) -> Mapping[str, Any]:
    """Return a row of times from commit to client, in milliseconds."""
    return {
        "commit to client": title,
        "deliveries": len(latencies_s),
        "median ms": round(percentile(latencies_s, 0.5) * 1000, 1),
        "p99 ms": round(percentile(latencies_s, 0.99) * 1000, 1),
        "max ms": round(max(latencies_s, default=0.0) * 1000, 1),
    }
