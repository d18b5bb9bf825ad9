"""Where a follower keeps what it applied: state and cursor move in one commit, or not at all.

A store belongs to one namespace (a user on a device, or a key on a device); a device that shares
the file with another never sees its cursors. Two kinds: SqliteStore for followers that come back,
MemoryStore for one-time reads.

Invariants (tests/unit/khala_client/test_store.py, also with a process killed at random points):
    INV-S1  the kept frames of a topic end exactly at its cursor
    INV-S2  a frame is committed only as the cursor's next one: each (topic, seq) once
    INV-S3  what a fold wrote and the cursor are of the same commit
Durability: WAL with synchronous=NORMAL. A killed process loses nothing that was committed. A power
cut may lose the last commits, but always state and cursor together, and the node sends again what
lies after the cursor: so FULL would buy an fsync per commit and no promise.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol, Self

from khala_client.core.cursor import Cursor
from khala_client.errors import StoreConflict, StoreFailed, StoreRefused
from khala_client.events import Event
from khala_client.file_lock import LockHeld, hold_file_lock
from khala_contracts.topics import Lineage, Seq, TopicName

__all__ = ["STORE_VERSION", "Fold", "MemoryStore", "SqliteStore", "Store"]

STORE_VERSION: Final = 1
# "Khal": tells a store from any other SQLite file.
_APPLICATION_ID: Final = 0x4B68616C
# Another process may hold the write lock for one of its commits, which take milliseconds.
_BUSY_TIMEOUT_S: Final = 5.0
_HISTORY_PAGE_FRAMES: Final = 500

_SCHEMA: Final = f"""
CREATE TABLE cursors (
    namespace TEXT NOT NULL, topic TEXT NOT NULL,
    lineage TEXT NOT NULL, seq INTEGER NOT NULL, chain BLOB NOT NULL,
    PRIMARY KEY (namespace, topic)
) WITHOUT ROWID;
CREATE TABLE frames (
    namespace TEXT NOT NULL, topic TEXT NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, schema_version INTEGER NOT NULL, payload BLOB NOT NULL, chain BLOB NOT NULL,
    PRIMARY KEY (namespace, topic, seq)
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {STORE_VERSION};
"""

# Writes what one event means to the application, in the transaction that moves the cursor.
Fold = Callable[[sqlite3.Connection, Event], None]


class Store(Protocol):
    """What a subscription needs of a store. Calls are synchronous; one at a time."""

    @property
    def is_blocking(self) -> bool:
        """True if calls wait for a disk: the ring then makes them in a worker thread."""
        ...

    def claim(self, topic: TopicName) -> AbstractContextManager[None]:
        """Be the only follower of ``topic`` in this store, inside the block.

        Raises:
            StoreConflict: another one is at it, here or in another process.
        """
        ...

    def load_cursor(self, topic: TopicName) -> Cursor | None:
        """Return the committed cursor, None if nothing of ``topic`` is stored."""
        ...

    def begin(self, cursor: Cursor) -> None:
        """Start to keep ``cursor.topic`` after ``cursor``; an earlier history of it is dropped."""
        ...

    def commit(self, events: Sequence[Event]) -> None:
        """Keep ``events``, which follow the cursor without a hole, and move the cursor to the last.

        Raises:
            StoreConflict: they do not follow the stored cursor. Nothing was changed.
            StoreFailed: the disk refused. Nothing was changed; retry is safe.
        """
        ...

    def read_history(self, topic: TopicName) -> Iterator[Event]:
        """Return the kept events of ``topic``, ascending."""
        ...


class MemoryStore:
    """Forgets everything with the process; for reads that are not to be continued."""

    is_blocking = False

    def __init__(self, *, keep_frames: bool = False) -> None:
        self._keep_frames = keep_frames
        self._cursors: dict[TopicName, Cursor] = {}
        self._events: dict[TopicName, list[Event]] = {}
        self._claimed: set[TopicName] = set()

    @contextmanager
    def claim(self, topic: TopicName) -> Iterator[None]:
        """See Store.claim; excludes followers with the same MemoryStore only."""
        if topic in self._claimed:
            raise StoreConflict(_busy_text(topic))
        self._claimed.add(topic)
        try:
            yield
        finally:
            self._claimed.discard(topic)

    def load_cursor(self, topic: TopicName) -> Cursor | None:
        """See Store.load_cursor."""
        return self._cursors.get(topic)

    def begin(self, cursor: Cursor) -> None:
        """See Store.begin."""
        self._cursors[cursor.topic] = cursor
        self._events[cursor.topic] = []

    def commit(self, events: Sequence[Event]) -> None:
        """See Store.commit."""
        if not events:
            return
        topic = TopicName(events[0].topic)
        cursor = self._cursors.get(topic)
        _check_continuity(cursor, events)
        assert cursor is not None
        self._cursors[topic] = Cursor(topic, Seq(events[-1].seq), cursor.lineage, events[-1].chain)
        if self._keep_frames:
            self._events[topic].extend(events)

    def read_history(self, topic: TopicName) -> Iterator[Event]:
        """See Store.read_history; empty unless keep_frames was asked for."""
        return iter(tuple(self._events.get(topic, ())))


class SqliteStore:
    """A store in one SQLite file, shared by processes and namespaces."""

    is_blocking = True

    def __init__(
        self,
        path: Path,
        *,
        namespace: str,
        keep_frames: bool,
        fold: Fold | None,
        connection: sqlite3.Connection,
    ) -> None:
        """Use ``SqliteStore.open``."""
        self._path = path
        self._namespace = namespace
        self._keep_frames = keep_frames
        self._fold = fold
        self._connection = connection
        # Calls come from worker threads; SQLite allows that one at a time.
        self._mutex = threading.Lock()

    @classmethod
    def open(
        cls, path: Path | str, *, namespace: str, keep_frames: bool = True, fold: Fold | None = None
    ) -> Self:
        """Open the store at ``path``; it is made, with mode 0600, if it is missing.

        Args:
            path: The file; its folder must exist.
            namespace: Whose cursors these are, for example ``usr_.../dev_...``; not empty.
            keep_frames: Keep every applied frame (for export and re-folds), or only the cursor.
            fold: Called for each event inside the transaction that moves the cursor; it may create
                and write tables of its own, and must not commit.

        Raises:
            StoreRefused: made by a newer client, or no store at all. Nothing was changed.
            StoreFailed: the file cannot be opened or made.
        """
        if not namespace:
            message = "a store needs the namespace of its user and device"
            raise ValueError(message)
        path = Path(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            message = f"cannot open the store {path.name}: {error}"
            raise StoreFailed(message) from error
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return cls(path, namespace=namespace, keep_frames=keep_frames, fold=fold, connection=connection)

    def close(self) -> None:
        """Close the file; further calls fail."""
        with self._mutex:
            self._connection.close()

    def claim(self, topic: TopicName) -> AbstractContextManager[None]:
        """See Store.claim; held by a lock file next to the store, which a dead process frees."""
        digest = hashlib.sha256(f"{self._namespace}\0{topic}".encode()).hexdigest()[:16]
        return _claim_file(self._path.with_name(f"{self._path.name}-{digest}.lock"), topic)

    def load_cursor(self, topic: TopicName) -> Cursor | None:
        """See Store.load_cursor."""
        with self._mutex, _translated(self._path):
            return self._load_cursor(topic)

    def _load_cursor(self, topic: TopicName) -> Cursor | None:
        row = self._connection.execute(
            "SELECT lineage, seq, chain FROM cursors WHERE namespace = ? AND topic = ?",
            (self._namespace, topic),
        ).fetchone()
        if row is None:
            return None
        lineage, seq, chain = row
        return Cursor(topic, Seq(seq), Lineage(lineage), chain or None)

    def begin(self, cursor: Cursor) -> None:
        """See Store.begin."""
        with self._mutex, _translated(self._path), self._transaction() as connection:
            connection.execute(
                "DELETE FROM frames WHERE namespace = ? AND topic = ?", (self._namespace, cursor.topic)
            )
            self._save_cursor(connection, cursor)

    def commit(self, events: Sequence[Event]) -> None:
        """See Store.commit. An exception of the fold also leaves everything as it was."""
        if not events:
            return
        topic = TopicName(events[0].topic)
        with self._mutex, _translated(self._path), self._transaction() as connection:
            # Inside the write transaction: nobody can move the cursor between check and update.
            cursor = self._load_cursor(topic)
            _check_continuity(cursor, events)
            assert cursor is not None
            if self._keep_frames:
                connection.executemany(
                    "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (
                            self._namespace,
                            topic,
                            event.seq,
                            event.kind,
                            event.schema_version,
                            event.payload,
                            event.chain,
                        )
                        for event in events
                    ],
                )
            if self._fold is not None:
                for event in events:
                    self._fold(connection, event)
            self._save_cursor(
                connection, Cursor(topic, Seq(events[-1].seq), cursor.lineage, events[-1].chain)
            )

    def _save_cursor(self, connection: sqlite3.Connection, cursor: Cursor) -> None:
        connection.execute(
            "INSERT INTO cursors VALUES (?, ?, ?, ?, ?) ON CONFLICT (namespace, topic) DO UPDATE"
            " SET lineage = excluded.lineage, seq = excluded.seq, chain = excluded.chain",
            (self._namespace, cursor.topic, cursor.lineage, cursor.seq, cursor.chain or b""),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def read_history(self, topic: TopicName) -> Iterator[Event]:
        """See Store.read_history; reads in pages, so that a commit may come in between."""
        after_seq = 0
        while True:
            with self._mutex, _translated(self._path):
                rows = self._connection.execute(
                    "SELECT seq, kind, schema_version, payload, chain FROM frames"
                    " WHERE namespace = ? AND topic = ? AND seq > ? ORDER BY seq LIMIT ?",
                    (self._namespace, topic, after_seq, _HISTORY_PAGE_FRAMES),
                ).fetchall()
            for seq, kind, schema_version, payload, chain in rows:
                yield Event(topic, seq, kind, payload, schema_version, chain)
            if len(rows) < _HISTORY_PAGE_FRAMES:
                return
            after_seq = rows[-1][0]

    def list_namespaces(self, topic: TopicName) -> tuple[str, ...]:
        """Return whose histories of ``topic`` this file keeps; for whoever inspects it."""
        with self._mutex, _translated(self._path):
            rows = self._connection.execute(
                "SELECT namespace FROM cursors WHERE topic = ? ORDER BY namespace", (topic,)
            ).fetchall()
        return tuple(namespace for (namespace,) in rows)

    def list_cursors(self) -> tuple[Cursor, ...]:
        """Return the committed cursors of this namespace, by topic."""
        with self._mutex, _translated(self._path):
            topics = self._connection.execute(
                "SELECT topic FROM cursors WHERE namespace = ? ORDER BY topic", (self._namespace,)
            ).fetchall()
            cursors = [self._load_cursor(TopicName(topic)) for (topic,) in topics]
        return tuple(cursor for cursor in cursors if cursor is not None)


def _check_continuity(cursor: Cursor | None, events: Sequence[Event]) -> None:
    first = events[0]
    if cursor is None or first.seq != cursor.seq + 1:
        stored = "nothing" if cursor is None else f"seq {cursor.seq}"
        message = f"{first.topic}: seq {first.seq} does not follow {stored} in this store"
        raise StoreConflict(message)
    for before, event in itertools.pairwise(events):
        if event.topic != first.topic or event.seq != before.seq + 1:
            message = f"{first.topic}: seq {event.seq} does not follow seq {before.seq}"
            raise StoreConflict(message)


def _busy_text(topic: str) -> str:
    return f"{topic} is being followed with this store; give this follower a store of its own, or none"


@contextmanager
def _claim_file(path: Path, topic: TopicName) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(hold_file_lock(path))
        except LockHeld as error:
            raise StoreConflict(_busy_text(topic)) from error
        yield


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        message = f"the store {path.name} failed: {error}"
        raise StoreFailed(message) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        _refuse_foreign(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # Two processes may open a new file at once: the second finds it prepared.
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        message = f"{path.name} is not a store of this client: {error}"
        raise StoreRefused(message) from error


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(tables) == 0


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    if _is_empty(connection):
        return
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        message = f"{path.name} is another application's database"
        raise StoreRefused(message)
    if version > STORE_VERSION:
        message = f"{path.name} has store version {version}; this client knows {STORE_VERSION}: upgrade it"
        raise StoreRefused(message)
