"""A line is exactly of its form, or refused with its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from chaos.transcripts import BrokenTranscriptError, read_acks, read_lines
from tests.unit.chaos.histories import acks_of, history, write_acks, write_lines

if TYPE_CHECKING:
    from pathlib import Path

LINE = {
    "topic": "run:run_00000000000000000000000001:events",
    "seq": "1",
    "kind": "output",
    "schema_version": 1,
    "payload_sha256": "ab" * 32,
    "chain": "cd" * 32,
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Both kinds of files, in their order."""
    lines = history()
    assert list(read_lines(write_lines(tmp_path / "history", lines))) == lines
    assert list(read_acks(write_acks(tmp_path / "acks", acks_of(lines)))) == acks_of(lines)


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    """A client that applied nothing wrote nothing."""
    assert list(read_lines(write_lines(tmp_path / "history", []))) == []


def test_further_members_are_ignored_and_numbers_may_be_numbers(tmp_path: Path) -> None:
    """The output of ``khala tail --json`` can be judged as it is."""
    path = tmp_path / "history"
    path.write_text(json.dumps({**LINE, "seq": 9, "type": "event", "data": {"seq": 1}}))
    (line,) = read_lines(path)
    assert (line.seq, line.schema_version) == (9, 1)


WRONG: dict[str, list[object]] = {
    "seq": ["0", "-1", "01", "1.0", " 1", "1_0", "", 1.5, True, None, [], 2**63, str(2**63), "\u0663"],
    "schema_version": [0, 2**32, "x"],
    "topic": ["", 7, None, "\ud800"],
    "kind": ["", False],
    "chain": ["", "ab" * 31, "ab" * 33, "zz" * 32, " " + "a" * 63, 5],
    "payload_sha256": ["ab" * 16],
}


@pytest.mark.parametrize(
    ("member", "value"), [(member, value) for member, values in WRONG.items() for value in values]
)
def test_a_member_of_another_form_is_refused(tmp_path: Path, member: str, value: object) -> None:
    """The place and the member are named."""
    path = tmp_path / "history"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, member: value}))
    with pytest.raises(BrokenTranscriptError, match=r"history:2: "):
        list(read_lines(path))


@pytest.mark.parametrize("member", ["key", "event_id", "topic", "seq", "chain"])
def test_an_acknowledgement_without_a_member_is_refused(tmp_path: Path, member: str) -> None:
    """Every member is needed."""
    path = write_acks(tmp_path / "acks", acks_of(history(events=1)))
    record = json.loads(path.read_text())
    del record[member]
    path.write_text(json.dumps(record))
    with pytest.raises(BrokenTranscriptError, match=f"acks:1: {member} "):
        list(read_acks(path))


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(LINE).encode() + b" 1",
        json.dumps(LINE).replace("}", ', "seq": "2"}').encode(),
    ],
    ids=["blank", "array", "text", "cut", "not UTF-8", "deep", "trailing", "member twice"],
)
def test_a_line_that_is_not_one_object_is_refused(tmp_path: Path, data: bytes) -> None:
    """Never a crash: the verdict would otherwise be that of the exit status."""
    path = tmp_path / "history"
    path.write_bytes(data)
    with pytest.raises(BrokenTranscriptError, match=r"history:1: "):
        list(read_lines(path))
