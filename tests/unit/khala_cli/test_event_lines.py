"""Unit tests of khala.cli.event_lines."""

from __future__ import annotations

from khala.cli.event_lines import BODY_LINES_MAX, format_event, style_event
from khala.cli.event_view import EventView


def test_a_plain_event_is_whole() -> None:
    """A file gets every line, without symbol and colour."""
    body = "\n".join(f"line {number}" for number in range(40))
    lines = format_event(12, "observation", EventView("←", "red", "2 s", body)).split("\n")
    assert lines[0] == "    12  observation    2 s"
    assert lines[1:] == [f"          line {number}" for number in range(40)]


def test_a_plain_event_without_words_has_no_trailing_blanks() -> None:
    """Nothing follows the kind if there is nothing to say."""
    assert format_event(1, "run.started", EventView("▶", "green")) == "     1  run.started"


def test_a_terminal_shows_a_long_text_shortened_and_says_so() -> None:
    """Exactly the maximum is shown whole; one line more is counted instead."""
    at_limit = "\n".join(["x"] * BODY_LINES_MAX)
    assert "more line" not in style_event(1, "output", EventView("│", "red", "", at_limit), width=80).plain
    beyond = style_event(1, "output", EventView("│", "red", "", at_limit + "\nx"), width=80).plain
    assert beyond.endswith("… 1 more line (--full shows them)")
    assert len(beyond.split("\n")) == BODY_LINES_MAX + 2


def test_full_shows_all() -> None:
    """None means no limit."""
    body = "\n".join(["x"] * 100)
    text = style_event(1, "output", EventView("│", "red", "", body), width=80, body_lines_max=None)
    assert text.plain.count("\n") == 100


def test_escape_sequences_of_an_agent_are_shown_and_not_obeyed() -> None:
    """Neither headline nor body nor kind can steer the terminal."""
    view = EventView("│", "red", "\x1b[2J", "\x1b[31m")
    assert "\x1b" not in style_event(1, "k\x1b", view, width=80).plain
    assert "\x1b" not in format_event(1, "k", view)


def test_a_long_headline_goes_below_its_kind_and_is_broken_at_words() -> None:
    """No line is wider than the terminal, and no word is lost."""
    words = [f"word{number}" for number in range(40)]
    text = style_event(1, "thought", EventView("~", "italic", " ".join(words)), width=60).plain
    first, *rest = text.split("\n")
    assert first == "     1  ~ thought"
    assert all(len(line) <= 60 for line in rest)
    assert " ".join(line.strip() for line in rest).split() == words


def test_a_headline_that_just_fits_stays() -> None:
    """At the width it stays beside the kind, one column more moves it."""
    fits = "x" * (60 - 10 - 14 - 1)
    assert "\n" not in style_event(1, "thought", EventView("~", "red", fits), width=60).plain
    assert "\n" in style_event(1, "thought", EventView("~", "red", fits + "x"), width=60).plain


def test_code_keeps_its_indentation_and_blank_lines() -> None:
    """A body is shown as it was written, tabs as four columns."""
    text = style_event(1, "output", EventView("│", "red", "", "def f():\n\n\treturn 1"), width=60)
    assert text.plain.split("\n")[1:] == ["          def f():", "          ", "              return 1"]
