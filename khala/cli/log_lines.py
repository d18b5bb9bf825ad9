"""From a line of a child's log to a line that a person reads: ``node-1 | 12:00:01 warning topic_crashed ...``.

Children log JSON. What is not JSON (a last word of the interpreter) is kept as it is, as an error.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import attrs
from rich.text import Text

from khala.cli.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LogLine", "last_line", "parse_log_line", "parse_postgres_line", "render_log_line"]

# A line per request or connection is no news; the file has them all.
UNSEEN_EVENTS: Final = frozenset({"request", "connection", "connection_closed"})
_STYLES: Final = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}
# Of every line, or said by the prefix.
_PLAIN_KEYS: Final = frozenset({"ts", "level", "event", "service", "source", "node"})
_COLOURS: Final = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta")
_VALUE_MAX: Final = 300
# Around the traces of exception groups.
_TRACE_FRAME: Final = " \t|+-"
_POSTGRES_LINE: Final = re.compile(
    r"[\d-]+ (?P<time>[\d:]+)[\d.]* \w+ \[\d+\] (?P<level>[A-Z]+): +(?P<said>.*)"
)
_POSTGRES_LEVELS: Final = {"WARNING": "warning", "ERROR": "error", "FATAL": "error", "PANIC": "critical"}
# They follow a line that says what happened, and are in the file.
_POSTGRES_ADDITIONS: Final = frozenset({"DETAIL", "HINT", "CONTEXT", "STATEMENT", "LOCATION", "QUERY"})
# Each connection says so of itself.
_POSTGRES_CHATTER: Final = (
    "terminating connection due to", "the database system is", "starting PostgreSQL", "listening on",
    "background worker", "shutting down", "could not receive data from client", "unexpected EOF on client",
    "redo ", "checkpoint ", "invalid record length", "received fast shutdown", "aborting any active",
)  # fmt: skip


@attrs.frozen
class LogLine:
    """One line of a child's log.

    Attributes:
        level: debug, info, warning, error, critical.
        event: Stable lower-case name; the text itself of a line that is no JSON.
        time: Of the day, UTC, to the second; empty if unknown.
        fields: What else is said.
        is_plain: Whether the line was no JSON object.
        is_chatter: Whether it says what everybody sees anyway.
    """

    level: str
    event: str
    time: str = ""
    fields: Mapping[str, object] = attrs.field(factory=dict)
    is_plain: bool = False
    is_chatter: bool = False

    @property
    def is_news(self) -> bool:
        """Whether a person who watches the system wants to see it."""
        if self.is_chatter:
            return False
        return self.event not in UNSEEN_EVENTS or self.level not in ("debug", "info")


def parse_log_line(text: str) -> LogLine:
    """Return what a line says; never raises."""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("event"), str):
        return LogLine("error", text, is_plain=True)
    time = str(said.get("ts", ""))
    return LogLine(
        level=str(said.get("level", "info")),
        event=said["event"],
        time=time[11:19] if len(time) >= 19 else "",
        fields={key: value for key, value in said.items() if key not in _PLAIN_KEYS},
    )


def parse_postgres_line(text: str) -> LogLine:
    """Return what a line of PostgreSQL's own log says; never raises."""
    found = _POSTGRES_LINE.fullmatch(text)
    if found is None:
        return LogLine("info", text, is_plain=True)
    said = found["said"].strip()
    if said.startswith(_POSTGRES_CHATTER) or found["level"] in _POSTGRES_ADDITIONS:
        return LogLine("debug", said, time=found["time"], is_chatter=True)
    return LogLine(_POSTGRES_LEVELS.get(found["level"], "info"), said, time=found["time"])


def render_log_line(name: str, line: LogLine, *, width: int, colour: int) -> Text:
    """Return the line with the child's name before it.

    Args:
        name: Of the child.
        line: What it said.
        width: Of the longest name, so that the lines stand below each other.
        colour: Number of the child; neighbours differ.
    """
    text = Text.assemble((f"{name:<{width}} │ ", _COLOURS[colour % len(_COLOURS)]))
    if line.time:
        text.append(f"{line.time} ", style="dim")
    text.append(printable(line.event).replace("\n", " "), style=_STYLES.get(line.level, ""))
    for key, value in line.fields.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # A stack trace has its place in the file.
        last = last_line(shown)
        text.append(f" {key}=", style="dim")
        text.append(last if len(last) <= _VALUE_MAX else f"{last[:_VALUE_MAX]}…")
    return text


def last_line(text: str) -> str:
    """Return the last line that says something: of a stack trace, what it was."""
    lines = [line.strip(_TRACE_FRAME) for line in text.splitlines()]
    return printable(next((line for line in reversed(lines) if line), ""))
