"""``khala drill``: registered in the entry-point group ``khala.commands``."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chaos.drills.catalog import DRILLS
from chaos.drills.drill import DrillOptions
from chaos.drills.reports import document_of, write_report
from chaos.drills.waiting import DrillFailed
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.system_under_test import SystemFailedError
from chaos.transcripts import BrokenTranscriptError

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
            click.echo(f"{one.name:<12} {one.text} (quick form: about {one.quick_s} s)")


@drill.command("run")
@click.argument("name", type=click.Choice(list(DRILLS)))
@click.option("--quick", "is_quick", is_flag=True, help="The short form: the same faults, fewer of them.")
@click.option("--kills", type=click.IntRange(4, 10_000), default=None, help="About so many kills.")
@click.option("--seed", default=1, show_default=True, help="Order and instants of the faults.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page, and JSON beside it."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="An empty folder that is kept.  [default: a temporary one, kept if the drill fails]",
)
@click.option("--no-faults", is_flag=True, help="Do no harm: shows that the drill notices.")
@click.option("--json", "is_json", is_flag=True, help="Print the whole document.")
def run_command(
    name: str,
    *,
    is_quick: bool,
    kills: int | None,
    seed: int,
    report: Path | None,
    data_dir: Path | None,
    no_faults: bool,
    is_json: bool,
) -> int:
    """Run one drill; exit 0 if every promise was kept, else 1."""
    folder = data_dir or Path(tempfile.mkdtemp(prefix=f"khala-drill-{name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    options = DrillOptions(
        folder=folder,
        is_quick=is_quick,
        kills=kills,
        seed=seed,
        has_faults=not no_faults,
        progress=lambda line: click.echo(line, err=True),
    )
    words = ["khala drill run", name, *(["--quick"] if is_quick else [])]
    words += [f"--kills {kills}"] if kills is not None else []
    words += [f"--seed {seed}"]
    environment = describe_environment()
    began = time.monotonic()
    try:
        outcome = DRILLS[name].run(options)
    except (DrillFailed, SystemFailedError, BrokenTranscriptError) as exc:
        raise click.ClickException(f"{name}: {exc} (files: {folder})") from exc
    document = document_of(
        outcome,
        drill=name,
        command=" ".join(words),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        seconds=time.monotonic() - began,
        environment=environment,
    )
    if report is not None:
        write_report(document, report)
    _print(document, is_json=is_json)
    if not outcome.is_passed:
        click.echo(f"files: {folder}", err=True)
        return EXIT_FAILED
    if data_dir is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _print(document: Mapping[str, Any], *, is_json: bool) -> None:
    if is_json:
        click.echo(json.dumps(document))
        return
    for claim in document["claims"]:
        click.echo(f"{'kept  ' if claim['is_met'] else 'BROKEN'} {claim['promise']}: {claim['measured']}")
    for violation in document["violations"]:
        click.echo(violation)
    click.echo(f"{document['drill']}: {'passed' if document['is_passed'] else 'FAILED'}")
