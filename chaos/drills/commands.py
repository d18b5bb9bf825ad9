"""``khala drill``: registered in the entry-point group ``khala.commands``."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chaos.drills.catalog import DRILLS
from chaos.drills.drill import DrillOptions
from chaos.drills.fault_menu import FAULTS
from chaos.drills.one_fault import drill_of
from chaos.drills.reports import write_report
from chaos.drills.running import Done, run_drills
from chaos.load.statistics_of_pairs import describe_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

EXIT_FAILED: Final = 1


@click.group()
def drill() -> None:
    """Do harm to a real system under load, and judge what its clients got."""


@drill.command("list")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
def list_command(*, is_json: bool) -> None:
    """List the drills."""
    for one in DRILLS.values():
        if is_json:
            click.echo(json.dumps({"name": one.name, "text": one.text, "quick_s": one.quick_s}))
        else:
            click.echo(f"{one.name:<16} {one.text} (quick form: about {one.quick_s} s)")


@drill.command("run")
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(DRILLS)))
@click.option("--quick", "is_quick", is_flag=True, help="The short form: the same faults, fewer of them.")
@click.option("--kills", type=click.IntRange(4, 10_000), default=None, help="About so many kills.")
@click.option("--seed", default=1, show_default=True, help="Order and instants of the faults.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page, with JSON and plots beside it; of one drill. Needs the extra `load`.",
)
@click.option(
    "--report-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write <date>-<drill>.md there, of each drill.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="An empty folder that is kept.  [default: a temporary one, kept if a drill fails]",
)
@click.option("--no-faults", is_flag=True, help="Do no harm: shows that the drill notices.")
@click.option("--json", "is_json", is_flag=True, help="Print the whole document, one line a drill.")
def run_command(
    names: tuple[str, ...],
    *,
    is_quick: bool,
    kills: int | None,
    seed: int,
    report: Path | None,
    report_dir: Path | None,
    data_dir: Path | None,
    no_faults: bool,
    is_json: bool,
) -> int:
    """Run drills; exit 0 if every promise was kept, else 1.

    Of several, those that stand on the same system share one.
    """
    if report is not None and len(names) > 1:
        raise click.UsageError("--report is of one drill; --report-dir is of several")
    if (report or report_dir) is not None and find_spec("matplotlib") is None:
        raise click.UsageError("a report draws plots: pip install 'khala[load]'")
    folder = data_dir or Path(tempfile.mkdtemp(prefix=f"khala-drill-{names[0]}-"))
    folder.mkdir(parents=True, exist_ok=True)
    options = DrillOptions(
        folder=folder,
        is_quick=is_quick,
        kills=kills,
        seed=seed,
        has_faults=not no_faults,
        progress=lambda line: click.echo(line, err=True),
    )
    words = [*(["--quick"] if is_quick else []), *([f"--kills {kills}"] if kills is not None else [])]
    words += [f"--seed {seed}"]
    has_failed = False
    chosen = [DRILLS[name] for name in dict.fromkeys(names)]
    for done in run_drills(chosen, options, words=words, environment=describe_environment()):
        has_failed |= not done.is_passed
        _print(done, is_json=is_json)
        if done.document is None:
            continue
        if report_dir is not None:
            write_report(done.document, report_dir / f"{done.document['date']}-{done.name}.md", done.plots)
        if report is not None:
            write_report(done.document, report, done.plots)
    return _end(folder, has_failed=has_failed, is_kept=data_dir is not None)


@drill.command("fault")
@click.argument("names", nargs=-1, type=click.Choice(list(FAULTS)))
@click.option("--no-faults", is_flag=True, help="Do no harm: shows that a missing fault is noticed.")
@click.option("--json", "is_json", is_flag=True, help="Print the whole document, one line a fault.")
def fault_command(names: tuple[str, ...], *, no_faults: bool, is_json: bool) -> int:
    """Do single faults to a small system and prove each; without a name, list them.

    Exit 0 if every fault happened and no client got anything wrong, else 1.
    """
    if not names:
        for fault in FAULTS.values():
            click.echo(
                json.dumps({"name": fault.name, "text": fault.text})
                if is_json
                else f"{fault.name:<26} {fault.text}"
            )
        return 0
    folder = Path(tempfile.mkdtemp(prefix="khala-drill-fault-"))
    options = DrillOptions(
        folder=folder, has_faults=not no_faults, progress=lambda line: click.echo(line, err=True)
    )
    has_failed = False
    drills = [drill_of(name) for name in dict.fromkeys(names)]
    for done in run_drills(drills, options, words=(), environment=describe_environment()):
        has_failed |= not done.is_passed
        _print(done, is_json=is_json)
    return _end(folder, has_failed=has_failed, is_kept=False)


def _end(folder: Path, *, has_failed: bool, is_kept: bool) -> int:
    if has_failed:
        click.echo(f"files: {folder}", err=True)
        return EXIT_FAILED
    if not is_kept:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _print(done: Done, *, is_json: bool) -> None:
    if done.document is None:
        click.echo(f"Error: {done.problem}", err=True)
        return
    document: Mapping[str, Any] = done.document
    if is_json:
        click.echo(json.dumps(document))
        return
    for claim in document["claims"]:
        click.echo(f"{'kept  ' if claim['is_met'] else 'BROKEN'} {claim['promise']}: {claim['measured']}")
    for violation in document["violations"]:
        click.echo(violation)
    click.echo(f"{document['drill']}: {'passed' if document['is_passed'] else 'FAILED'}")
