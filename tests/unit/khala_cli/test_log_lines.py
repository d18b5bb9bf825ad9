"""Unit tests of khala.cli.log_lines."""

from __future__ import annotations

import json

import pytest

from khala.cli.log_lines import LogLine, last_line, parse_log_line, parse_postgres_line, render_log_line


def render(text: str, name: str = "node-1") -> str:
    """Return what is shown of a line of JSON."""
    return render_log_line(name, parse_log_line(text), width=8, colour=0).plain


def test_a_line_is_readable_and_says_who_and_when() -> None:
    """Facts follow the event; what every line has is not repeated."""
    line = json.dumps(
        {
            "ts": "2026-11-21T12:15:02.513079Z", "level": "info", "event": "runtime_started", "service": "runtime",
            "source": "runtime", "node": "vm", "generation": 3, "lineage": "lin_1", "parent": None,
        }
    )  # fmt: skip
    assert (
        render(line, "runtime")
        == "runtime  │ 12:15:02 runtime_started generation=3 lineage=lin_1 parent=null"
    )


def test_of_a_stack_trace_only_the_end_is_shown() -> None:
    """The file has all of it; frames of exception groups are taken off."""
    trace = "Traceback\n  | File x\n  | ValueError: broken\n  +-----------\n"
    assert render(json.dumps({"event": "crashed", "exception": trace})) == (
        "node-1   │ crashed exception=ValueError: broken"
    )
    assert last_line(trace) == "ValueError: broken"
    assert last_line(" | \n+--\n") == ""


def test_what_could_steer_a_terminal_is_made_visible() -> None:
    """Logs quote what clients sent."""
    shown = render(json.dumps({"event": "a\x1b[2J\nb", "topic": "\x1b]0;x\x07"}))
    assert shown.isprintable()
    assert "\\x1b[2J b" in shown
    long = render(json.dumps({"event": "a", "x": "y" * 1_000}))
    assert len(long) < 400


@pytest.mark.parametrize("text", ["no json", "{", "[]", "3", '{"event": 3}', "{}"])
def test_what_is_no_log_line_is_an_error_as_it_is(text: str) -> None:
    """A last word of the interpreter, or of a library that prints."""
    line = parse_log_line(text)
    assert (line.level, line.event, line.is_plain, line.is_news) == ("error", text, True, True)


@pytest.mark.parametrize(
    ("event", "level", "is_news"),
    [("request", "info", False), ("request", "error", True), ("started", "info", True), ("x", "debug", True)],
)
def test_a_line_per_request_is_no_news(event: str, level: str, is_news: bool) -> None:
    """Unless it went wrong."""
    assert LogLine(level, event).is_news is is_news


def test_lines_of_postgresql_lose_their_prefix_and_their_chatter() -> None:
    """What happened is shown; that each connection was cut is not."""
    prefix = "2026-11-21 12:11:21.123 UTC [42] "
    line = parse_postgres_line(f"{prefix}LOG:  database system is ready to accept connections")
    assert (line.level, line.time, line.event) == (
        "info", "12:11:21", "database system is ready to accept connections",
    )  # fmt: skip
    assert line.is_news
    grave = parse_postgres_line(f"{prefix}PANIC:  could not write to file")
    assert (grave.level, grave.is_news) == ("critical", True)
    assert not parse_postgres_line(f"{prefix}FATAL:  the database system is starting up").is_news
    assert not parse_postgres_line(f"{prefix}DETAIL:  Consistent recovery state has not been").is_news
    assert parse_postgres_line("\tline 2 of a statement").event == "\tline 2 of a statement"
