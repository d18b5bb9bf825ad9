"""proto/fixtures/<version>/histories: what a release followed and stored, every later version continues.

Made from a real system of that version by ``python -m chaos.release_histories``.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from chaos.checker import Journal, check_history, check_journal, read_lines
from chaos.journal_reader import line_of
from khala_client.core.cursor import Cursor, start_of
from khala_client.events import Event
from khala_client.history import format_history_lines
from khala_client.store import SqliteStore
from khala_contracts import codec, kinds
from khala_contracts.chain import chain_after, chain_next, chain_start
from khala_contracts.fanout_records import RecordVerifier
from khala_contracts.topics import Lineage, Seq, TopicName
from tests.contract.fixture_files import FIXTURES_DIR, Row, load, rows

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.checker import Line
    from khala_contracts.frames import Frame

RELEASES: Final = sorted(path.parent for path in FIXTURES_DIR.glob("*/cursors.json"))


@attrs.frozen
class Kept:
    """One history of one release."""

    release: Path
    row: Row

    @property
    def topic(self) -> TopicName:
        """Its topic."""
        return TopicName(self.row["topic"])

    @property
    def cursor(self) -> Cursor:
        """Where the follower of that release stood."""
        row = self.row
        return Cursor(
            self.topic, Seq(int(row["seq"])), Lineage(row["lineage"]), bytes.fromhex(row["chain_hex"])
        )

    def file(self, suffix: str) -> Path:
        """Return the path of one of its files."""
        return self.release / "histories" / f"{self.row['history']}{suffix}"

    def lines(self) -> list[Line]:
        """Return the history that was written."""
        return list(read_lines(self.file(".jsonl")))

    def frames(self) -> list[Frame]:
        """Return the frames of the range, as the node of that release sent it."""
        return codec.decode_entries(self.file(".frames.bin").read_bytes())


KEPT: Final = [
    Kept(release, row) for release in RELEASES for row in rows(load("cursors.json", release), "cursors")
]
each_kept = pytest.mark.parametrize(
    "kept", KEPT, ids=lambda kept: f"{kept.release.name}-{kept.row['history']}"
)


def test_the_first_release_is_kept() -> None:
    """Histories of 0.1 are there, with a cursor each."""
    assert "0.1" in {release.name for release in RELEASES}
    for release in RELEASES:
        named = {kept.row["history"] for kept in KEPT if kept.release == release}
        assert {path.stem for path in (release / "histories").glob("*.jsonl")} == named


@each_kept
def test_the_history_is_whole_and_its_chain_follows(kept: Kept) -> None:
    """Recomputed from the lines alone, from the topic's name to the cursor."""
    lines = kept.lines()
    assert check_journal(Journal.of(lines)) == []
    assert (lines[-1].seq, lines[-1].chain) == (kept.cursor.seq, kept.cursor.chain)


@each_kept
def test_the_frames_give_the_same_history(kept: Kept) -> None:
    """They decode, mean something, follow the chain, and encode to the same bytes."""
    chain = chain_start(kept.topic)
    journal = []
    for frame in kept.frames():
        chain = chain_after(chain, frame)
        journal.append(line_of(frame, chain))
        assert "payload_base64" not in kinds.decode_payload(frame.kind, frame.payload)
    verdict = check_history(
        kept.lines(), Journal.of(journal), source="kept", is_complete=True, after_seq=0, topics=[kept.topic]
    )
    assert verdict == []
    encoded = b"".join(codec.encode_entry(frame) for frame in kept.frames())
    assert encoded == kept.file(".frames.bin").read_bytes()


@each_kept
def test_the_sealed_record_opens_and_continues_the_topic(kept: Kept) -> None:
    """A node of this version can be sent records by a runtime of that one."""
    document = load("cursors.json", kept.release)
    verifier = RecordVerifier(
        {str(document["fanout_key_id"]): bytes.fromhex(str(document["fanout_key_hex"]))}
    )
    record = verifier.open_untrusted(kept.file(".fanout.bin").read_bytes())
    cursor = kept.cursor
    assert (record.topic, record.lineage) == (cursor.topic, cursor.lineage)
    assert (record.first_seq, record.last_seq) == (1, cursor.seq)
    assert (record.chain_before, record.chain_after) == (chain_start(kept.topic), cursor.chain)
    assert b"".join(record.entries) == kept.file(".frames.bin").read_bytes()


@each_kept
def test_the_cursor_can_be_asked_to_continue(kept: Kept) -> None:
    """It makes a subscribe message that says position, lineage and chain."""
    subscribe = codec.Subscribe((codec.TopicStart(kept.topic, start_of(kept.cursor)),))
    assert codec.decode_client_message_untrusted(codec.encode_client_message(subscribe)) == subscribe
    (start,) = (topic.start for topic in subscribe.topics)
    assert isinstance(start, codec.CursorStart)
    assert start.chain == kept.cursor.chain


@each_kept
def test_the_store_opens_where_it_stood_and_goes_on(kept: Kept, tmp_path: Path) -> None:
    """Cursor and history are those that were written, and the next event is taken."""
    path = tmp_path / "store.sqlite3"
    shutil.copyfile(kept.release / "store.sqlite3", path)
    namespace = str(load("cursors.json", kept.release)["namespace"])
    with closing(SqliteStore.open(path, namespace=namespace)) as store:
        cursor = store.load_cursor(kept.topic)
        assert cursor == kept.cursor
        assert "\n".join(format_history_lines(store.read_history(kept.topic))) + "\n" == (
            kept.file(".jsonl").read_text(encoding="ascii")
        )
        assert cursor is not None
        assert cursor.chain is not None
        seq = cursor.seq + 1
        chain = chain_next(cursor.chain, seq, 1, "output", b"")
        store.commit([Event(kept.topic, seq, "output", b"", 1, chain)])
        assert store.load_cursor(kept.topic) == Cursor(kept.topic, Seq(seq), cursor.lineage, chain)
