"""What a drill is: a function from options to an outcome, and the words in which outcomes are told.

    def run_example_drill(options: DrillOptions) -> Outcome:
        with options.open_stage(StageSetup(events_per_s=300), EXAMPLE_SYSTEM) as stage:
            ...                                   # what it was like before
            if options.has_faults:
                ...                               # the harm
            options.prove("NATS was killed", lambda: ...)
            ...                                   # what it is like after
            verdict = stage.finish()
        return Outcome([...])

A drill that did no harm proves nothing, so it ends at ``prove``, long before its verdict.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from chaos.drills.stage import StageSetup, running_stage
from chaos.drills.verdict import Verdict, percentile
from chaos.drills.waiting import FaultMissing, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from chaos.drills.split_system import SplitSystem
    from chaos.drills.stage import Stage
    from chaos.drills.system_setup import SystemSetup
    from chaos.load.svg_plots import Lines

__all__ = ["Claim", "DrillOptions", "Outcome", "RunDrill", "claims_of", "delivery_facts"]

# A fault that was done shows at once; one that was not done is not waited for.
PROOF_TIMEOUT_S: Final = 10.0
NO_PROOF_TIMEOUT_S: Final = 0.3


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
        system: A running system of the drill's own setup, shared with other drills; None: it starts one.
    """

    folder: Path
    is_quick: bool = False
    kills: int | None = None
    seed: int = 1
    has_faults: bool = True
    progress: Callable[[str], None] = print
    system: SplitSystem | None = None

    @contextmanager
    def open_stage(self, setup: StageSetup, system: SystemSetup) -> Iterator[Stage]:
        """Start clients and their load for a block, on the shared system or on one of this setup.

        Raises:
            SystemFailedError, DrillFailed: It did not come up.
        """
        with running_stage(self.folder, setup, system, shared=self.system) as stage:
            yield stage

    def prove(self, fault: str, is_proven: Callable[[], bool]) -> None:
        """Return once there is proof that a fault happened.

        Raises:
            FaultMissing: There is none; at once if the faults are disabled.
        """
        timeout_s = PROOF_TIMEOUT_S if self.has_faults else NO_PROOF_TIMEOUT_S
        wait_until(is_proven, timeout_s=timeout_s, what=f"proof of the fault: {fault}", error=FaultMissing)


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
        plots: Drawn below each other in the report.
    """

    claims: list[Claim]
    tables: Mapping[str, list[Mapping[str, Any]]]
    violations: list[str]
    plots: tuple[Lines, ...] = ()

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


def claims_of(verdict: Verdict, *, offered_per_s: float, has_retries: bool = True) -> list[Claim]:
    """Return the claims that every drill makes of its clients.

    ``has_retries`` is False of a load too short for the publisher to repeat anything.
    """
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
            not verdict.broken_appends and (load["keys_sent_again"] > 0 or not has_retries),
        ),
        Claim(
            "No gap and no repeat reached a wire",
            f"{verdict.gaps_on_the_wire} gaps, {sum(client['repeats'] for client in verdict.clients)} repeats",
            verdict.gaps_on_the_wire == 0 and all(not client["repeats"] for client in verdict.clients),
        ),
        Claim(
            "Nobody got what is not theirs, closes have reasons, memory keeps its bounds",
            f"{load['closes']} closes, {load['samples']} samples of memory: "
            f"{len(verdict.broken_rules)} violations",
            not verdict.broken_rules,
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
