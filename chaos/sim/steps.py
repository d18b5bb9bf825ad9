"""The vocabulary of plans: what a world may do (actions) and what may happen to it (faults). Pure tables.

publisher.py carries out ``append.*`` and ``run.*``, client_process.py and world.py the other actions,
faults.py the faults. The coverage table of a report counts actions x faults x phases by these names.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["ACTIONS", "FAULTS", "Kind", "Step"]


@attrs.frozen
class Kind:
    """One kind of step: what it is aimed at (a key of plan.py's targets), how often it is drawn."""

    kind: str
    target: str
    weight: int = 1


@attrs.frozen
class Step:
    """One thing at one time.

    Attributes:
        number: Name of the step within its plan.
        at_s: Virtual time.
        kind: One of `ACTIONS` or `FAULTS`.
        who: A place, a client or a topic by its name in the plan; "" if it concerns all.
        amount: 0..1, how much of it: a count, a probability, a duration.
        lasts_s: How long a fault stays; 0 for actions.
        seed: From which chance inside the step is drawn.
    """

    number: int
    at_s: float
    kind: str
    who: str
    amount: float
    lasts_s: float
    seed: int

    def __str__(self) -> str:
        """Return one line for people."""
        until = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"#{self.number} at {self.at_s:.3f} s: {self.kind} {self.who}{until} ({self.amount:.2f})"


ACTIONS: Final = (
    Kind("append.batch", "topic", 6),
    Kind("append.single", "topic", 4),
    Kind("append.stream", "run", 2),
    Kind("append.burst", "topic", 3),
    Kind("append.expected", "topic", 2),
    Kind("append.repeat", "topic", 2),
    Kind("append.conflict", "topic", 1),
    Kind("append.many", "topic", 1),
    Kind("run.finish", "run", 1),
    Kind("run.pause", "run", 1),
    Kind("client.leave", "client", 2),
    Kind("client.again", "client", 2),
    Kind("client.crash", "client", 3),
    Kind("client.wipe", "client", 1),
    Kind("client.slow", "client", 2),
    Kind("client.stop", "client", 2),
    Kind("session.revoke", "client", 1),
    Kind("member.leave", "client", 1),
    Kind("node.drain", "node", 2),
    Kind("runtime.leave", "runtime", 1),
    Kind("floor.move", "topic", 3),
)

FAULTS: Final = (
    Kind("runtime.kill", "runtime"),
    Kind("runtime.takeover", ""),
    Kind("node.kill", "node"),
    Kind("node.dies_silently", "node"),
    Kind("database.down", ""),
    Kind("database.restart", ""),
    Kind("database.slow", ""),
    Kind("database.lost_before", ""),
    Kind("database.lost_after", ""),
    Kind("database.lost_statement", ""),
    Kind("database.trouble", ""),
    Kind("database.cut", "place"),
    Kind("broker.down", ""),
    Kind("broker.loss", ""),
    Kind("broker.duplicate", ""),
    Kind("broker.reorder", ""),
    Kind("broker.delay", ""),
    Kind("broker.forge", ""),
    Kind("broker.corrupt", ""),
    Kind("broker.cut_to", "node"),
    Kind("broker.cut_from", "runtime"),
    Kind("control.down", ""),
    Kind("control.slow", ""),
    Kind("control.lost_reply", ""),
    Kind("control.push_loss", ""),
    Kind("network.reset", "client"),
    Kind("network.cut", "client"),
    Kind("network.cut_up", "client"),
    Kind("network.cut_down", "client"),
    Kind("network.delay", ""),
    Kind("network.short_writes", ""),
    Kind("network.stale_balancer", ""),
    Kind("front.lost_request", ""),
    Kind("front.lost_answer", ""),
    Kind("clock.skew", "place"),
    Kind("clock.step", "place"),
)
