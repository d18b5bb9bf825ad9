from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from khala_client.core.cursor import Cursor
from khala_client.errors import StoreConflict, StoreFailed, StoreRefused
from khala_client.events import Event
from khala_client.store import STORE_VERSION, Fold, MemoryStore, SqliteStore, Store
from khala_contracts.chain import chain_start
from khala_contracts.topics import Lineage, Seq, TopicName
from tests.unit.khala_client.node_model import LINEAGE, LogModel, topic_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOPIC, OTHER = topic_number(1), topic_number(2)
START = Cursor(TOPIC, Seq(0), Lineage(LINEAGE), chain_start(TOPIC))


def events_of(count: int, *, topic: TopicName = TOPIC) -> list[Event]:
    """Return the first events of a topic."""
    log = LogModel(topic)
    log.append(count)
    return [Event.from_frame(frame, chain=log.chains[frame.seq]) for frame in log.frames]


def cursor_at(event: Event) -> Cursor:
    """Return the cursor after an event."""
    return Cursor(TopicName(event.topic), Seq(event.seq), Lineage(LINEAGE), event.chain)


class Opener:
    """Opens stores in one file; the fixture closes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[SqliteStore] = []

    def __call__(
        self, namespace: str = "usr_1/dev_1", *, keep_frames: bool = True, fold: Fold | None = None
    ) -> SqliteStore:
        """Open one more."""
        store = SqliteStore.open(self.path, namespace=namespace, keep_frames=keep_frames, fold=fold)
        self.opened.append(store)
        return store


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Opener]:
    """Stores of one file."""
    opener = Opener(tmp_path / "store.sqlite3")
    yield opener
    for store in opener.opened:
        store.close()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, open_store: Opener) -> Store:
    """Both kinds: they pass the same tests."""
    return MemoryStore(keep_frames=True) if request.param == "memory" else open_store()


def test_events_and_cursor_are_one(store: Store) -> None:
    """INV-S1: the kept frames end at the cursor."""
    events = events_of(5)
    assert store.load_cursor(TOPIC) is None
    store.begin(START)
    assert store.load_cursor(TOPIC) == START
    store.commit(events[:2])
    store.commit(events[2:])
    assert store.load_cursor(TOPIC) == cursor_at(events[-1])
    assert list(store.read_history(TOPIC)) == events
    assert list(store.read_history(OTHER)) == []


@pytest.mark.parametrize("seqs", [(3,), (1, 3), (2,), (1, 1)])
def test_what_does_not_follow_is_refused_whole(store: Store, seqs: tuple[int, ...]) -> None:
    """INV-S2: holes and repeats change nothing; also if they come inside one commit."""
    events = events_of(3)
    store.begin(START)
    with pytest.raises(StoreConflict):
        store.commit([events[seq - 1] for seq in seqs])
    assert store.load_cursor(TOPIC) == START
    assert list(store.read_history(TOPIC)) == []


def test_a_repeat_after_the_cursor_is_refused(store: Store) -> None:
    """Each (topic, seq) once."""
    events = events_of(2)
    store.begin(START)
    store.commit(events)
    with pytest.raises(StoreConflict, match="seq 2 does not follow seq 2"):
        store.commit(events[1:])


def test_nothing_is_committed_to_a_topic_that_was_not_begun(store: Store) -> None:
    """Without a start there is no lineage."""
    with pytest.raises(StoreConflict, match="does not follow nothing"):
        store.commit(events_of(1))
    store.commit([])


def test_one_commit_is_one_topic(store: Store) -> None:
    """A mixture is the caller's mistake."""
    store.begin(START)
    with pytest.raises(StoreConflict):
        store.commit([events_of(1)[0], events_of(2, topic=OTHER)[1]])


def test_beginning_again_drops_the_history(store: Store) -> None:
    """Another start is another history."""
    events = events_of(3)
    store.begin(START)
    store.commit(events[:1])
    store.begin(cursor_at(events[1]))
    store.commit(events[2:])
    assert list(store.read_history(TOPIC)) == events[2:]


def test_one_follower_at_a_time(store: Store) -> None:
    """A second one is told so before it follows, and not after it has printed half of it."""
    busy = pytest.raises(StoreConflict, match="store of its own")
    with store.claim(TOPIC), store.claim(OTHER), busy, store.claim(TOPIC):
        pytest.fail("claimed twice")
    with store.claim(TOPIC):
        pass


def test_two_devices_of_one_file_do_not_share(open_store: Opener) -> None:
    """KH-25: two devices of one user at different cursors: each resumes at its own."""
    events = events_of(4)
    phone, laptop = open_store("usr_1/dev_phone"), open_store("usr_1/dev_laptop")
    for device, count in ((phone, 1), (laptop, 4)):
        device.begin(START)
        device.commit(events[:count])
    assert phone.load_cursor(TOPIC) == cursor_at(events[0])
    assert laptop.load_cursor(TOPIC) == cursor_at(events[3])
    assert [cursor.seq for cursor in phone.list_cursors()] == [1]
    assert list(phone.read_history(TOPIC)) == events[:1]
    with phone.claim(TOPIC), laptop.claim(TOPIC):
        pass


def test_another_process_cannot_move_the_cursor_unseen(open_store: Opener) -> None:
    """The check is inside the transaction that moves it."""
    events = events_of(3)
    first, second = open_store(), open_store()
    first.begin(START)
    first.commit(events[:1])
    second.commit(events[1:2])
    with pytest.raises(StoreConflict):
        first.commit(events[1:2])
    first.commit(events[2:])
    assert second.load_cursor(TOPIC) == cursor_at(events[2])


def count_kinds(connection: sqlite3.Connection, event: Event) -> None:
    """Count events: the simplest state that must not be counted twice."""
    connection.execute("CREATE TABLE IF NOT EXISTS totals (topic TEXT PRIMARY KEY, events INTEGER)")
    connection.execute(
        "INSERT INTO totals VALUES (?, 1) ON CONFLICT DO UPDATE SET events = events + 1", (event.topic,)
    )
    if event.payload == b"\x0a\x01!":
        message = "this event cannot be folded"
        raise ArithmeticError(message)


def test_a_fold_commits_with_the_cursor_or_not_at_all(open_store: Opener) -> None:
    """INV-S3: a fold that fails takes cursor and frames of its commit with it."""
    store = open_store(fold=count_kinds)
    log = LogModel(TOPIC)
    log.append(2)
    log.append(1, payload=b"\x0a\x01!")
    events = [Event.from_frame(frame, chain=log.chains[frame.seq]) for frame in log.frames]
    store.begin(START)
    store.commit(events[:1])
    with pytest.raises(ArithmeticError):
        store.commit(events[1:])
    assert store.load_cursor(TOPIC) == cursor_at(events[0])
    assert list(store.read_history(TOPIC)) == events[:1]
    store.commit(events[1:2])
    with sqlite3.connect(open_store.path) as reader:
        assert reader.execute("SELECT events FROM totals").fetchone() == (2,)
    reader.close()


def test_only_the_cursor_may_be_kept(open_store: Opener) -> None:
    """Bounded by choice: no frames, the same cursor."""
    events = events_of(3)
    store = open_store(keep_frames=False)
    store.begin(START)
    store.commit(events)
    assert store.load_cursor(TOPIC) == cursor_at(events[2])
    assert list(store.read_history(TOPIC)) == []
    memory = MemoryStore()
    memory.begin(START)
    memory.commit(events)
    assert list(memory.read_history(TOPIC)) == []


def test_a_long_history_is_read_in_pages(open_store: Opener) -> None:
    """All of it, in order, however long."""
    events = events_of(1_200)
    store = open_store()
    store.begin(START)
    store.commit(events)
    assert [event.seq for event in store.read_history(TOPIC)] == list(range(1, 1_201))


def test_what_was_stored_is_found_again(open_store: Opener) -> None:
    """Across processes; the file is private."""
    store = open_store()
    store.begin(START)
    store.commit(events_of(2))
    store.close()
    assert open_store.path.stat().st_mode & 0o777 == 0o600
    assert open_store().load_cursor(TOPIC) == cursor_at(events_of(2)[1])


def test_a_cursor_without_a_chain_is_kept_as_it_is(open_store: Opener) -> None:
    """A bare seq stays one."""
    bare = Cursor(TOPIC, Seq(7), Lineage(LINEAGE))
    store = open_store()
    store.begin(bare)
    assert store.load_cursor(TOPIC) == bare


def test_a_store_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    """Refused, with every byte as it was."""
    path = tmp_path / "store.sqlite3"
    SqliteStore.open(path, namespace="n").close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {STORE_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match=f"version {STORE_VERSION + 1}"):
        SqliteStore.open(path, namespace="n")
    assert path.read_bytes() == before


def test_another_applications_database_is_not_touched(tmp_path: Path) -> None:
    """Also not switched to WAL."""
    path = tmp_path / "store.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match="another application"):
        SqliteStore.open(path, namespace="n")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Refused as what it is."""
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreRefused, match="not a store"):
        SqliteStore.open(path, namespace="n")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """The folder is the caller's to make."""
    with pytest.raises(StoreFailed, match="cannot open"):
        SqliteStore.open(tmp_path / "missing" / "store.sqlite3", namespace="n")


def test_a_failing_disk_changes_nothing(open_store: Opener) -> None:
    """SQLite's errors come out as StoreFailed."""
    store = open_store()
    store.begin(START)
    with sqlite3.connect(open_store.path) as other:
        other.execute("DROP TABLE frames")
    other.close()
    with pytest.raises(StoreFailed, match="frames"):
        store.commit(events_of(1))
    assert store.load_cursor(TOPIC) == START


def test_a_store_has_a_namespace(tmp_path: Path) -> None:
    """Without one, two devices would share."""
    with pytest.raises(ValueError, match="namespace"):
        SqliteStore.open(tmp_path / "store.sqlite3", namespace="")


WRITER = """
import sys
from tests.unit.khala_client.test_store import START, count_kinds, events_of
from khala_client.store import SqliteStore
store = SqliteStore.open(sys.argv[1], namespace="n", fold=count_kinds)
if store.load_cursor(START.topic) is None:
    store.begin(START)
at = store.load_cursor(START.topic).seq
events = events_of(100_000)[at:]
print("ready", flush=True)
for index in range(0, len(events), 3):
    store.commit(events[index:index + 3])
"""


@pytest.mark.slow
def test_a_killed_process_leaves_state_and_cursor_together(tmp_path: Path) -> None:
    """CL-03: SIGKILL at arbitrary points; frames, fold and cursor agree, and the next one goes on."""
    path = tmp_path / "store.sqlite3"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    before = 0
    for lifetime_s in (0.01, 0.03, 0.02, 0.05, 0.04):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == b"ready\n"
            try:
                process.wait(lifetime_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        store = SqliteStore.open(path, namespace="n")
        cursor = store.load_cursor(TOPIC)
        assert cursor is not None
        assert cursor.seq >= before
        before = cursor.seq
        assert [event.seq for event in store.read_history(TOPIC)] == list(range(1, cursor.seq + 1))
        store.close()
        if cursor.seq > 0:  # on a busy machine, the first one may die before its first commit
            with sqlite3.connect(path) as reader:
                assert reader.execute("SELECT events FROM totals").fetchall() == [(cursor.seq,)]
            reader.close()
    assert before > 0
