"""Files that one process writes while a drill reads them, and what a drill's clients are told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import pytest

from chaos.drills.client_setup import FollowerSetup, PublisherSetup, setup_of
from chaos.drills.follower import timed_line
from chaos.drills.json_lines import JsonLineReader, JsonLineWriter
from chaos.transcripts import read_lines
from khala_client.events import Event
from khala_contracts.chain import chain_start
from tests.unit.chaos.histories import TOPIC

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """Each look returns the lines that were completed since the one before."""
    path = tmp_path / "lines.jsonl"
    reader = JsonLineReader(path)
    assert reader.read_new() == []
    with JsonLineWriter(path) as writer:
        writer.write({"n": 1})
        assert reader.read_new() == [{"n": 1}]
        writer.write({"n": 2})
        writer.write({"n": 3})
        assert reader.read_new() == [{"n": 2}, {"n": 3}]
    assert reader.read_new() == []


def test_an_unfinished_line_is_left_for_the_next_look(tmp_path: Path) -> None:
    """Its writer may have been killed in the middle of it, or be about to finish it."""
    path = tmp_path / "lines.jsonl"
    reader = JsonLineReader(path)
    path.write_text('{"n": 1}\n{"n":')
    assert reader.read_new() == [{"n": 1}]
    assert reader.read_new() == []
    path.write_text('{"n": 1}\n{"n": 2}\n')
    assert reader.read_new() == [{"n": 2}]


def test_a_timed_line_is_a_line_for_the_checker(tmp_path: Path) -> None:
    """The checker reads it as it reads any history; the time is beside it."""
    event = Event(TOPIC, 1, "thought", b"payload", 1, chain_start(TOPIC))
    path = tmp_path / "history.jsonl"
    path.write_text(timed_line(event, 12.5) + "\n")
    (line,) = read_lines(path)
    assert (line.topic, line.seq, line.kind) == (TOPIC, 1, "thought")
    assert json.loads(path.read_text())["at_s"] == pytest.approx(12.5)


def test_a_client_is_told_everything_in_one_argument(tmp_path: Path) -> None:
    """What a drill says is what its client process reads; files are named after the client."""
    told = PublisherSetup(
        name="publisher", folder=str(tmp_path), profile="/p", topics=(TOPIC,), events_per_s=200.0
    )
    assert setup_of(PublisherSetup, [json.dumps(attrs.asdict(told))]) == told
    following = FollowerSetup(
        name="one", folder=str(tmp_path), profile="/p", topics=(TOPIC,), sync_url="ws://n"
    )
    assert setup_of(FollowerSetup, [json.dumps(attrs.asdict(following))]) == following
    assert following.file("history.jsonl") == tmp_path / "one.history.jsonl"
