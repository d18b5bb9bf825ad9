"""Unit tests of khala.cli.publish."""

from __future__ import annotations

import io
import json

import pytest

from khala.cli.failures import CommandFailed
from khala.cli.publish import LINE_MAX_CHARS, read_lines


def test_each_line_is_an_event_and_empty_lines_are_none() -> None:
    """Data may be left out."""
    lines = io.StringIO('{"kind": "thought", "data": {"text": "a"}}\n\n  \n{"kind": "custom"}\n')
    assert list(read_lines(lines)) == [("thought", {"text": "a"}), ("custom", {})]


@pytest.mark.parametrize(
    "line", ["not json", "[]", "{}", '{"kind": 1}', '{"kind": "a", "data": []}', "[" * 100_000, "null"]
)
def test_a_line_that_is_no_event_is_named(line: str) -> None:
    """Lines are counted as in the input, empty ones too."""
    lines = read_lines(io.StringIO(f'{{"kind": "custom"}}\n\n{line}\n'))
    assert next(lines) == ("custom", {})
    with pytest.raises(CommandFailed, match="line 3"):
        next(lines)


def test_a_line_longer_than_any_event_is_not_even_parsed() -> None:
    """At the limit it is read, beyond it refused."""
    frame = len(json.dumps({"kind": "custom", "data": {"name": ""}}))
    at_limit = json.dumps({"kind": "custom", "data": {"name": "x" * (LINE_MAX_CHARS - frame)}})
    assert len(at_limit) == LINE_MAX_CHARS
    assert len(list(read_lines(io.StringIO(at_limit)))) == 1
    with pytest.raises(CommandFailed):
        list(read_lines(io.StringIO(at_limit + " ")))
