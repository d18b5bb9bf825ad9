"""One event as lines: coloured and short for a terminal, whole and plain for a file. Pure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from rich.text import Text

from khala.cli.wording import count_text, printable

if TYPE_CHECKING:
    from khala.cli.event_view import EventView

__all__ = ["BODY_LINES_MAX", "format_event", "style_event"]

# What fits beside other events on one screen; --full shows all.
BODY_LINES_MAX: Final = 12
_SEQ_WIDTH: Final = 6
_KIND_WIDTH: Final = 14
_INDENT: Final = " " * (_SEQ_WIDTH + 4)
# Of a terminal narrower than anybody's, the terminal itself breaks the lines.
_WRAP_MIN_WIDTH: Final = 20


def format_event(seq: int, kind: str, view: EventView) -> str:
    """Return an event without colour, whole: one line, and one for each line of its body."""
    first = f"{seq:>{_SEQ_WIDTH}}  {kind:<{_KIND_WIDTH}} {printable(view.headline)}".rstrip()
    return "\n".join([first, *(f"{_INDENT}{line}" for line in _lines(view.body))])


def style_event(
    seq: int, kind: str, view: EventView, *, width: int, body_lines_max: int | None = BODY_LINES_MAX
) -> Text:
    """Return an event for a terminal of ``width`` columns.

    A headline that does not fit beside the kind goes below it. Of what stands there, the first
    ``body_lines_max`` lines are shown, as the terminal breaks them; None shows all.
    """
    kind, headline, below = printable(kind), printable(view.headline), _lines(view.body)
    if len(_INDENT) + max(len(kind), _KIND_WIDTH) + 1 + len(headline) > width:
        headline, below = "", [headline, *below]
    text = Text.assemble(
        (f"{seq:>{_SEQ_WIDTH}}", "dim"),
        "  ",
        (view.symbol, view.style),
        " ",
        (f"{kind:<{_KIND_WIDTH}} " if headline else kind, view.style),
        headline,
    )
    lines = [part for line in below for part in _wrap(line, width - len(_INDENT))]
    shown = lines if body_lines_max is None else lines[:body_lines_max]
    for line in shown:
        text.append(f"\n{_INDENT}{line}")
    if len(shown) < len(lines):
        text.append(
            f"\n{_INDENT}… {count_text(len(lines) - len(shown), 'more line')} (--full shows them)", "dim"
        )
    return text


def _wrap(line: str, width: int) -> list[str]:
    line = line.expandtabs(4)
    if len(line) <= width:
        return [line]
    return textwrap.wrap(line, max(width, _WRAP_MIN_WIDTH), replace_whitespace=False) or [""]


def _lines(body: str) -> list[str]:
    return printable(body).strip("\n").split("\n") if body.strip("\n") else []
