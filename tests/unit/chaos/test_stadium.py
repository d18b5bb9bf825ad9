"""The rounds of the stadium: who sends what, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from chaos.load.committed_records import CommittedRecord
from chaos.load.stadium import Stadium
from chaos.load.stadium_setup import StadiumSetup
from chaos.load.stadium_sides import Programs, Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.load.committed_records import TopicWriter
    from chaos.load.rig import Rig


@attrs.define
class FakeWriter:
    """Commits to nothing; its topic is told by the bytes of its messages."""

    topic: bytes
    head_seq: int = 1

    def commit(self, records: int, *, frames_per_record: int, payload_bytes: int) -> list[CommittedRecord]:
        """Return records that follow those before."""
        assert payload_bytes == 200
        made = []
        for _ in range(records):
            first, self.head_seq = self.head_seq + 1, self.head_seq + frames_per_record
            made.append(CommittedRecord(first, self.head_seq, b"", self.topic, b""))
        return made


@attrs.define
class FakeSide:
    """Sends nothing; every frame must follow the one before, of one topic."""

    name: str
    said: list[str]
    topic: bytes
    head_seq: int = 1

    def run(self, records: Sequence[CommittedRecord]) -> Run:
        """Check the records."""
        for record in records:
            assert (record.first_seq, record.message) == (self.head_seq + 1, self.topic)
            self.head_seq = record.last_seq
        self.said.append(self.name)
        return Run(len(records), 1.0, 0.5, 0.5)


def test_each_round_begins_with_another_side_and_each_sends_the_same(tmp_path: Path) -> None:
    """A second node has a topic of its own; servers send what the first node does."""
    setup = StadiumSetup(rounds=4, deliveries=50)
    said: list[str] = []
    names = {"websockets": b"first", "trio_websocket": b"second", "send_loop": b"first"}
    sides = [FakeSide(name, said, topic) for name, topic in names.items()]
    writers = {name: FakeWriter(names[name]) for name in ("websockets", "trio_websocket")}
    stadium = Stadium(
        setup, cast("Rig", None), {}, Programs(tmp_path, tmp_path, tmp_path, tmp_path), lambda _: None
    )
    for frames in (1, 4):
        said.clear()
        row = stadium.measure_row(5, frames, sides, cast("dict[str, TopicWriter]", writers))
        assert {name: len(runs) for name, runs in row.runs.items()} == dict.fromkeys(names, 4)
        assert row.writes == 40
        rounds = [said[at : at + 3] for at in range(0, 12, 3)]
        assert [started for started, *_ in rounds] == [*names, "websockets"]
        assert all(sorted(one) == sorted(names) for one in rounds)
    assert {side.head_seq for side in sides} == {1 + 4 * 40 * 5}
