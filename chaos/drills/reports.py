"""The document of a run, and the page that people read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.drills.client_setup import BACKOFF_SHARE
from chaos.drills.split_system import RESTART_MAX_S
from chaos.load.svg_plots import render_plots
from khala_client.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from chaos.drills.drill import Outcome
    from chaos.load.svg_plots import Lines

__all__ = ["document_of", "render", "write_report"]

DEVIATIONS: Final = (
    f"a dead process waits at most {RESTART_MAX_S:g} s for its restart (`up.restart_max_s`)",
    f"clients draw their backoff from the lowest {BACKOFF_SHARE:.0%} of its range",
    "the data directory is temporary and ports are free ones",
)
# A broken promise is found from its first violations; thousands of them say no more.
VIOLATIONS_MAX: Final = 50


def document_of(
    outcome: Outcome,
    *,
    drill: str,
    command: str,
    date: str,
    seconds: float,
    environment: Mapping[str, str | int | float],
) -> dict[str, Any]:
    """Return everything that a run found, as JSON values."""
    return {
        "drill": drill,
        "version": VERSION,
        "date": date,
        "command": command,
        "is_passed": outcome.is_passed,
        "seconds": round(seconds, 1),
        "environment": dict(environment),
        "claims": [attrs.asdict(claim) for claim in outcome.claims],
        "tables": {title: list(rows) for title, rows in outcome.tables.items()},
        "deviations": list(DEVIATIONS),
        "violations": outcome.violations[:VIOLATIONS_MAX],
        "violations_total": len(outcome.violations),
    }


def write_report(document: Mapping[str, Any], path: Path, plots: Sequence[Lines] = ()) -> None:
    """Write the page to ``path``, and beside it the document as ``.json`` and plots as ``.svg``.

    Raises:
        ImportError: There are plots, and matplotlib is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figures, drawing = path.with_suffix(".json"), path.with_suffix(".svg")
    if plots:
        drawing.write_text(render_plots(plots), encoding="utf-8")
    figures.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    page = render(document, figures.name, drawing=drawing.name if plots else "")
    path.write_text(page, encoding="utf-8")


def render(document: Mapping[str, Any], figures: str, *, drawing: str = "") -> str:
    """Return the page of a document; ``figures`` and ``drawing`` are names of its files."""
    return "\n".join(_lines(document, figures, drawing)) + "\n"


def _lines(document: Mapping[str, Any], figures: str, drawing: str) -> Iterator[str]:
    environment = document["environment"]
    verdict = "passed" if document["is_passed"] else "FAILED"
    yield f"# Drill {document['drill']}, {document['date']}, version {document['version']}: {verdict}"
    yield ""
    yield "```"
    yield document["command"]
    yield "```"
    yield ""
    yield (
        f"Python {environment['python']}, {environment['system']}, {environment['cpus']} cores; load average "
        f"before: {environment['load_1m_before']}. It took {document['seconds']:,.0f} s. "
        f"All figures: [{figures}]({figures})."
    )
    yield ""
    yield from _table(
        [
            {
                "promise": claim["promise"],
                "measured": claim["measured"],
                "kept": "yes" if claim["is_met"] else "NO",
            }
            for claim in document["claims"]
        ]
    )
    if drawing:
        yield ""
        yield f"![Times from commit to client over the drill]({drawing})"
    for title, rows in document["tables"].items():
        yield ""
        yield f"## {title}"
        yield ""
        yield from _table(rows)
    yield ""
    yield f"Differs from the defaults: {'; '.join(document['deviations'])}."
    if document["violations"]:
        yield ""
        yield f"## Violations ({document['violations_total']})"
        yield ""
        for violation in document["violations"]:
            yield f"- `{violation}`"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        yield "None."
        return
    yield _row(rows[0])
    yield _row(["---"] * len(rows[0]))
    for row in rows:
        yield _row(row.values())


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
