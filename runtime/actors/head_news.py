"""Tells the nodes how far topics have come whose commits nobody saw return.

Used by writer.py and projector.py after an answer to COMMIT was lost: what that transaction committed
was never offered to the relay (INV-20).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection

    from khala_contracts.topics import TopicName
    from runtime.actors.relay import Relay
    from runtime.ports import JournalStore

__all__ = ["tell_heads"]

# Only the next transaction of the caller waits for this.
ANNOUNCE_TIMEOUT_S: Final = 2.0

_log = get_logger(__name__)


async def tell_heads(store: JournalStore, relay: Relay, topics: Collection[TopicName]) -> None:
    """Offer the heads of these topics to the relay; if they cannot be read, position checks find them."""
    with trio.move_on_after(ANNOUNCE_TIMEOUT_S):
        try:
            heads = await store.read_topics(sorted(topics))
        except (Unavailable, SerializationTrouble, DatabaseError) as error:
            _log.info("heads_not_told", topics=len(topics), reason=str(error))
        else:
            relay.offer_heads(heads.values())
