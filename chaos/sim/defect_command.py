"""What ``khala sim --defects`` does: choose, hunt, print, write the report. commands.py has the options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import click

from chaos.sim.defect_hunt import hunt, markdown_of, median_seeds
from chaos.sim.defect_patches import DefectRefused, all_defects, defects_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from pathlib import Path

    from chaos.sim.defect_hunt import Hunt, Hunted
    from chaos.sim.defect_patches import Defect

__all__ = ["run_defects"]


def run_defects(
    *,
    today: date,
    only: Sequence[str] = (),
    is_drawn: bool = False,
    max_seeds: int,
    jobs: int = 1,
    report_dir: Path | None = None,
) -> int:
    """Look for defects; return 0 if each was found, 1 if one was not.

    Args:
        today: The day of the report, and of the draw.
        only: Names; none: all of them.
        is_drawn: The three of the day instead.
        max_seeds: The search gives up after so many.
        jobs: Defects at a time.
        report_dir: Gets ``defects.json`` and ``defects.md``.

    Raises:
        click.UsageError: There is no such defect.
        click.ClickException: A patch does not apply any more, or there is no source to patch.
    """
    try:
        defects = _chosen(only, today if is_drawn else None)
        result = hunt(defects, max_seeds=max_seeds, jobs=jobs, tell=_tell)
    except DefectRefused as error:
        raise click.ClickException(str(error)) from error
    if report_dir is not None:
        report_dir.mkdir(parents=True, exist_ok=True)
        (report_dir / "defects.json").write_text(json.dumps(document_of(result, today), indent=1) + "\n")
        (report_dir / "defects.md").write_text(markdown_of(result))
    median = median_seeds(result.hunted)
    found = len(result.hunted) - len(result.missed)
    click.echo(
        f"{found} of {len(result.hunted)} found within {max_seeds} seeds"
        + ("" if median is None else f", median {median:g}")
    )
    return 1 if result.missed else 0


def document_of(result: Hunt, today: date) -> dict[str, object]:
    """Return everything that the hunt found, as JSON values."""
    return {
        "date": today.isoformat(),
        "first_seed": result.first_seed,
        "max_seeds": result.max_seeds,
        "found": len(result.hunted) - len(result.missed),
        "missed": list(result.missed),
        "median_seeds": median_seeds(result.hunted),
        "defects": [attrs.asdict(one) for one in result.hunted],
    }


def _chosen(only: Sequence[str], day: date | None) -> list[Defect]:
    if day is not None:
        return defects_of(day)
    known = {defect.name: defect for defect in all_defects()}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise click.UsageError(f"no such defect: {', '.join(unknown)}")
    return [known[name] for name in only] if only else list(known.values())


def _tell(one: Hunted) -> None:
    if one.seed is None:
        click.echo(f"{one.name}: not found by {one.seeds_run} seeds: {one.defect}")
        return
    first = one.findings[0][:100] if one.findings else ""
    click.echo(f"{one.name}: seed {one.seed} after {one.seeds_run}, {one.cpu_s:.1f} s of CPU: {first}")
