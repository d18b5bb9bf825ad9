"""Unit tests of khala.cli.terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from khala.cli.terminal import json_line, open_terminal

if TYPE_CHECKING:
    import pytest


def test_json_is_one_line_of_ascii() -> None:
    """Whatever is in it cannot break the line or steer a terminal."""
    line = json_line({"text": "a\nb\x1b[2J\u2028é"})
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    assert json.loads(line)["text"] == "a\nb\x1b[2J\u2028é"


def test_data_is_for_scripts_and_words_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json nothing but JSON is on standard output, without it no JSON."""
    script, person = open_terminal(is_json=True), open_terminal(is_json=False)
    script.show("words")
    person.data({"a": 1})
    assert capsys.readouterr().out == ""
    script.data({"a": 1})
    person.show("words")
    assert capsys.readouterr().out == '{"a":1}\nwords\n'


def test_remarks_go_to_standard_error_and_steer_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor escape sequences in a name are obeyed."""
    terminal = open_terminal(is_json=True)
    assert not terminal.is_decorated
    terminal.remark("[red]x[/red] :smile: \x1b[2J")
    assert capsys.readouterr().err == "[red]x[/red] :smile: \\x1b[2J\n"
