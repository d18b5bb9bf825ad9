"""Many seeds over several processes, and the page that says what they have shown.

Each worker imports the product once and runs seed after seed; what a seed does depends on nothing that ran
before it in its process (tests/sim/test_determinism.py), so how seeds are dealt out changes no verdict.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs

from chaos.sim.steps import ACTIONS, FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import FrameType

__all__ = ["Campaign", "Result", "run_campaign", "write_campaign"]

# Seeds that a worker takes at once, and takes in all before another replaces it. More: a world that leaks
# fills the memory. Fewer: the imports, two seconds of a processor, are paid more often.
_SEEDS_AT_ONCE: Final = 10
_TURNS_OF_A_WORKER: Final = 100
# Processor time that a seed may take; they take a fraction of a second.
SPIN_S: Final = 60.0


class SeedSpins(Exception):
    """A world does not end: something in it runs without waiting for time."""


@attrs.frozen
class Result:
    """What one seed has shown; small, for it crosses processes."""

    seed: int
    digest: str
    findings: tuple[str, ...]
    coverage: Mapping[tuple[str, str, str], int]
    events: int
    virtual_s: float
    cpu_s: float


@attrs.define
class Campaign:
    """The sum of many seeds.

    Attributes:
        failed: The seeds with findings.
    """

    first: int
    last: int
    seeds: int = 0
    events: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    slowest_cpu_s: float = 0.0
    slowest_seed: int = 0
    coverage: Counter[tuple[str, str, str]] = attrs.field(factory=Counter)
    failed: list[Result] = attrs.field(factory=list)

    def add(self, result: Result) -> None:
        """Count one seed."""
        self.seeds += 1
        self.events += result.events
        self.virtual_s += result.virtual_s
        self.cpu_s += result.cpu_s
        if result.cpu_s > self.slowest_cpu_s:
            self.slowest_cpu_s, self.slowest_seed = result.cpu_s, result.seed
        self.coverage.update(result.coverage)
        if result.findings:
            self.failed.append(result)


def run_one(seed: int) -> Result:
    """Run one seed in this process, for so long and no longer."""
    from chaos.sim.verdict import run_seed

    started = time.process_time()
    signal.signal(signal.SIGPROF, _note_spin)
    signal.setitimer(signal.ITIMER_PROF, SPIN_S)
    try:
        verdict = run_seed(seed)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    return Result(
        seed,
        verdict.digest,
        verdict.findings,
        dict(verdict.coverage),
        verdict.events,
        verdict.virtual_s,
        time.process_time() - started,
    )


def run_campaign(
    first: int,
    last: int,
    *,
    jobs: int,
    tell: Callable[[Result], None],
    within_s: float | None = None,
    at_least: int = 0,
) -> Campaign:
    """Run the seeds ``first .. last`` over ``jobs`` processes; ``tell`` hears of each.

    Args:
        first: The first seed.
        last: The last one.
        jobs: Processes.
        tell: Hears of each seed as it ends, in no particular order.
        within_s: Stop after this time, though not before ``at_least`` seeds; None: run all of them.
        at_least: So many.
    """
    campaign, started = Campaign(first, last), time.monotonic()
    for result in _run_all(range(first, last + 1), jobs):
        campaign.add(result)
        tell(result)
        is_late = within_s is not None and time.monotonic() - started >= within_s
        if is_late and campaign.seeds >= at_least:
            break
    campaign.wall_s = time.monotonic() - started
    campaign.failed.sort(key=lambda result: result.seed)
    return campaign


def _run_all(seeds: range, jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(run_one, seeds)
        return
    # Not fork: a worker must not inherit what this process has done.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=_TURNS_OF_A_WORKER) as pool:
        turns = [seeds[at : at + _SEEDS_AT_ONCE] for at in range(0, len(seeds), _SEEDS_AT_ONCE)]
        for results in pool.imap_unordered(_run_turn, turns):
            yield from results


def _run_turn(seeds: Iterable[int]) -> list[Result]:
    return [run_one(seed) for seed in seeds]


def _note_spin(_signal: int, _frame: FrameType | None) -> None:
    message = f"the world runs for {SPIN_S:g} s of a processor"
    raise SeedSpins(message)


def write_campaign(
    campaign: Campaign, folder: Path, *, command: str, environment: Mapping[str, object]
) -> Path:
    """Write ``simulation.md`` and ``simulation.json`` into a folder; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "command": command,
        "environment": dict(environment),
        "first": campaign.first,
        "last": campaign.last,
        "seeds": campaign.seeds,
        "failed": [
            {"seed": result.seed, "digest": result.digest, "findings": list(result.findings)}
            for result in campaign.failed
        ],
        "events": campaign.events,
        "virtual_s": round(campaign.virtual_s, 1),
        "cpu_s": round(campaign.cpu_s, 1),
        "wall_s": round(campaign.wall_s, 1),
        "slowest": {"seed": campaign.slowest_seed, "cpu_s": round(campaign.slowest_cpu_s, 2)},
        "coverage": [[*names, count] for names, count in sorted(campaign.coverage.items())],
    }
    (folder / "simulation.json").write_text(json.dumps(document, indent=1) + "\n")
    page = folder / "simulation.md"
    page.write_text(_page(campaign, command=command, environment=environment))
    return page


def _page(campaign: Campaign, *, command: str, environment: Mapping[str, object]) -> str:
    actions = [each.kind for each in ACTIONS]
    faults = [each.kind for each in FAULTS]
    met = {(kind, other) for kind, other, _ in campaign.coverage}
    lines = [
        f"# Simulation of seeds {campaign.first} to {campaign.last}",
        "",
        f"`{command}`; " + ", ".join(f"{name} {value}" for name, value in environment.items()) + ".",
        "",
        f"**{len(campaign.failed)} of {campaign.seeds} seeds showed a violation.** "
        f"{campaign.events:,} events were committed in {campaign.virtual_s / 3600:,.1f} virtual hours; "
        f"{campaign.cpu_s:,.0f} s of processor time ({campaign.cpu_s / max(1, campaign.seeds):.3f} s a seed), "
        f"{campaign.wall_s:,.0f} s in all. The slowest seed, {campaign.slowest_seed}, took {campaign.slowest_cpu_s:.2f} s.",
        "",
        f"{len({kind for kind, _ in met if kind in actions})} of {len(actions)} actions and "
        f"{len({kind for kind, _ in met if kind in faults})} of {len(faults)} faults were carried out; "
        f"{sum((action, fault) in met for action in actions for fault in faults)} of "
        f"{len(actions) * len(faults)} pairs (action while a fault was on) and "
        f"{sum((one, other) in met for one in faults for other in faults)} of {len(faults) ** 2} pairs of faults "
        "(begun while another was on).",
        "",
    ]
    if campaign.failed:
        lines += ["| seed | first finding |", "|---:|---|"]
        lines += [f"| {result.seed} | {result.findings[0][:200]} |" for result in campaign.failed[:50]]
        lines.append("")
    lines += ["## Steps by what else was on", ""]
    lines += [
        "| step | in quiet | nothing else on | with another fault on | kinds of faults met |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind in (*actions, *faults):
        rows = {names: count for names, count in campaign.coverage.items() if names[0] == kind}
        quiet = sum(count for (_, _, phase), count in rows.items() if phase == "quiet")
        alone = sum(
            count for (_, other, phase), count in rows.items() if other == "none" and phase == "faults"
        )
        others = sum(
            count for (_, other, phase), count in rows.items() if other != "none" and phase == "faults"
        )
        kinds = len({other for _, other, _ in rows if other != "none"})
        lines.append(f"| `{kind}` | {quiet:,} | {alone:,} | {others:,} | {kinds} |")
    return "\n".join(lines) + "\n"
