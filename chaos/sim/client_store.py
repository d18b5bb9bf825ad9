"""What a client's device keeps when the client dies: the product's store, behind the client's gate.

Contents and their continuity are `MemoryStore`'s, so that its rules are under test; that a commit is there
or not after a kill is SQLite's part (tests/unit/khala_client/test_store.py kills processes for it).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from khala_client.errors import StoreConflict, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.sim.gates import PortGate
    from khala_client.core.cursor import Cursor
    from khala_client.events import Event
    from khala_client.store import MemoryStore
    from khala_contracts.topics import TopicName

__all__ = ["ClientStore"]


class ClientStore:
    """A Store of one incarnation over what its device keeps."""

    is_blocking = False

    def __init__(self, kept: MemoryStore, gate: PortGate) -> None:
        """Read and write ``kept`` while the gate is open."""
        self._kept = kept
        self._gate = gate
        self._claimed: dict[TopicName, None] = {}

    @contextmanager
    def claim(self, topic: TopicName) -> Iterator[None]:
        """See Store.claim; a dead process's claims are gone with it."""
        if topic in self._claimed:
            message = f"{topic} is followed with this store"
            raise StoreConflict(message)
        self._claimed[topic] = None
        try:
            yield
        finally:
            del self._claimed[topic]

    def load_cursor(self, topic: TopicName) -> Cursor | None:
        """See Store.load_cursor."""
        return self._kept.load_cursor(topic)

    def begin(self, cursor: Cursor) -> None:
        """See Store.begin."""
        self._check()
        self._kept.begin(cursor)

    def commit(self, events: Sequence[Event]) -> None:
        """See Store.commit."""
        self._check()
        self._kept.commit(events)

    def read_history(self, topic: TopicName) -> Iterator[Event]:
        """See Store.read_history."""
        return self._kept.read_history(topic)

    def _check(self) -> None:
        if self._gate.is_severed:
            message = "the process is dead"
            raise StoreFailed(message)
