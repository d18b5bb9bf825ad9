"""``khala sim``: registered in the entry-point group ``khala.commands``."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chaos.load.statistics_of_pairs import describe_environment
from chaos.sim.campaign import run_campaign, write_campaign
from chaos.sim.defect_command import run_defects
from chaos.sim.kernel import fix_hashes
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from chaos.sim.campaign import Result
    from chaos.sim.verdict import Verdict

__all__ = ["sim"]

EXIT_FOUND: Final = 1
# What a limited time must still bring.
AT_LEAST_SEEDS: Final = 200
_RANGE: Final = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
_FINDINGS_SHOWN: Final = 20


def _read_range(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    found = _RANGE.fullmatch(value)
    if found is None or int(found[1]) > int(found[2]):
        message = f"{value}: expected two seeds, for example 1..200"
        raise click.BadParameter(message)
    return int(found[1]), int(found[2])


@click.command()
@click.option("--seed", type=click.IntRange(0), help="Run one world and say what was found.")
@click.option("--seeds", metavar="A..B", callback=_read_range, help="Run a range of worlds.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    help="With --seeds: stop after so long, but run 200 of them at least.",
)
@click.option("--trace", is_flag=True, help="With --seed: print everything that happened.")
@click.option(
    "--shrink", "is_shrunk", is_flag=True, help="With --seed: leave out what is not needed to fail."
)
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for the page and its figures."
)
@click.option("--defects", is_flag=True, help="Look for the known defects, each by seeds of its own.")
@click.option("--drawn", is_flag=True, help="With --defects: the three of the day.")
@click.option("--only", multiple=True, help="With --defects: this one; may be repeated.")
@click.option(
    "--max-seeds", type=click.IntRange(1), default=500, show_default=True, help="With --defects: for each."
)
def sim(
    seed: int | None,
    seeds: tuple[int, int] | None,
    jobs: int,
    *,
    minutes: float | None,
    trace: bool,
    is_shrunk: bool,
    report: Path | None,
    defects: bool,
    drawn: bool,
    only: tuple[str, ...],
    max_seeds: int,
) -> int:
    """Run whole systems in virtual time, decided by seeds; exit 1 if one broke a promise."""
    if sum((seed is not None, seeds is not None, defects)) != 1:
        raise click.UsageError("say one of --seed, --seeds and --defects")
    if minutes is not None and seeds is None:
        raise click.UsageError("--minutes is about --seeds")
    if (trace or is_shrunk) and seed is None:
        raise click.UsageError("--trace and --shrink are about one --seed")
    fix_hashes(sys.orig_argv[1:])
    if defects:
        return run_defects(
            today=datetime.fromtimestamp(SystemClock().now(), UTC).date(),
            only=only,
            is_drawn=drawn,
            max_seeds=max_seeds,
            jobs=jobs,
            report_dir=report,
        )
    if seeds is not None:
        return _run_range(*seeds, jobs=jobs, minutes=minutes, report=report)
    assert seed is not None
    return _run_shrunk(seed) if is_shrunk else _run_one(seed, keeps_lines=trace)


def _run_one(seed: int, *, keeps_lines: bool) -> int:
    from chaos.sim.verdict import run_seed

    verdict = run_seed(seed, keeps_lines=keeps_lines)
    for line in verdict.lines:
        click.echo(line)
    return _say(verdict)


def _run_shrunk(seed: int) -> int:
    from chaos.sim.plan import make_plan
    from chaos.sim.shrink import shrink

    plan, verdict = shrink(make_plan(seed), tell=lambda line: click.echo(line, err=True))
    if not verdict.is_good:
        click.echo(f"nodes: {plan.nodes}, clients: {len(plan.clients)}, runs: {len(plan.runs)}")
        for client in plan.clients:
            click.echo(f"{client.name} (user {client.user}) follows {dict(client.follows)}")
        for step in plan.steps:
            click.echo(str(step))
    return _say(verdict)


def _say(verdict: Verdict) -> int:
    for finding in verdict.findings[:_FINDINGS_SHOWN]:
        click.echo(f"seed {verdict.seed}: {finding}")
    for detail in verdict.details[:2]:
        click.echo(detail, err=True)
    click.echo(
        f"seed {verdict.seed}: {len(verdict.findings)} findings; {verdict.events} events, "
        f"{verdict.virtual_s:.1f} virtual s, trace {verdict.digest} of {verdict.notes} lines"
    )
    if verdict.is_good:
        return 0
    click.echo(_advice(verdict.seed), err=True)
    return EXIT_FOUND


def _advice(seed: int) -> str:
    return (
        f"again: khala sim --seed {seed} --trace; smaller: khala sim --seed {seed} --shrink; once it is fixed, "
        f"add ({seed}, what it was) to FOUND in tests/sim/test_found_seeds.py"
    )


def _run_range(first: int, last: int, *, jobs: int, minutes: float | None, report: Path | None) -> int:
    def tell(result: Result) -> None:
        for finding in result.findings[:3]:
            click.echo(f"seed {result.seed}: {finding}")
        if result.findings:
            click.echo(_advice(result.seed), err=True)

    environment = describe_environment()
    within_s = None if minutes is None else 60 * minutes
    campaign = run_campaign(first, last, jobs=jobs, tell=tell, within_s=within_s, at_least=AT_LEAST_SEEDS)
    click.echo(
        f"{len(campaign.failed)} of {campaign.seeds} seeds showed something; {campaign.events} events, "
        f"{campaign.virtual_s / 3600:.2f} virtual hours, {campaign.cpu_s / max(1, campaign.seeds):.3f} s of a "
        f"processor a seed, {campaign.wall_s:.0f} s in all"
    )
    if report is not None:
        command = f"khala sim --seeds {first}..{last} --jobs {jobs}"
        command += "" if minutes is None else f" --minutes {minutes:g}"
        click.echo(f"wrote {write_campaign(campaign, report, command=command, environment=environment)}")
    return EXIT_FOUND if campaign.failed else 0
