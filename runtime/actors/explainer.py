"""What the runtime knows of one event: the commit, the topic's position, and when the nodes were told.

Called by the operators' route; owns nothing. The node's side of the same question is
khala/actors/explainer.py, and `khala explain` puts both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts.codec import EntryTemplate

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName
    from runtime.core.relayed_records import RelayedRecord, RelayedRecords
    from runtime.ports import EventRow, JournalStore, TopicRecord

__all__ = ["EventExplanation", "Explainer"]


@attrs.frozen
class EventExplanation:
    """One answer.

    Attributes:
        head: The topic's head row; None if nothing was ever written to it.
        event: The committed event; None if there is none at this position.
        chain: Chain at the event; b"" if the journal no longer has it.
        entry_bytes: Size of the event as it travels.
        told: The record with which the nodes were told; None: before this process started, longer ago
            than it remembers, or not (yet).
    """

    head: TopicRecord | None
    event: EventRow | None
    chain: bytes
    entry_bytes: int
    told: RelayedRecord | None


class Explainer:
    """Puts together what the database has and what the relay remembers."""

    def __init__(self, store: JournalStore, relayed: RelayedRecords) -> None:
        self._store = store
        self._relayed = relayed

    async def explain(self, topic: TopicName, seq: int) -> EventExplanation:
        """Return what is known of one position.

        Args:
            topic: The topic.
            seq: Position, at least 1; it need not exist.

        Raises:
            Unavailable: The database does not answer.
        """
        told = self._relayed.find(topic, seq)
        page = await self._store.read_events(topic, after_seq=seq - 1, limit=1, max_bytes=1)
        if page is None:
            return EventExplanation(None, None, b"", 0, told)
        if not page.events:
            return EventExplanation(page.topic, None, b"", 0, told)
        (event,) = page.events
        entry = EntryTemplate(topic).entry(event.seq, event.kind, event.payload, event.schema_version)
        return EventExplanation(page.topic, event, page.last_chain, len(entry), told)
