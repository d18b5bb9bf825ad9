"""append_v1 called directly, in transactions of the test's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

APPEND = "SELECT * FROM runtime.append_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"


@attrs.frozen
class RawEvent:
    """One event of a raw append."""

    event_id: str
    kind: str = "thought"
    payload: bytes = b""
    schema_version: int = 1
    compaction_key: str | None = None


def append_args(
    topics: Sequence[tuple[str, Sequence[RawEvent]]], *, generation: int = 0, topic_class: str = "run_events"
) -> list[object]:
    """Return the arguments of append_v1 for events by topic."""
    events = [event for _, of_topic in topics for event in of_topic]
    count = len(topics)
    return [
        generation,
        [topic for topic, _ in topics],
        [topic_class] * count,
        ["usr_owner"] * count,
        [None] * count,
        [len(of_topic) for _, of_topic in topics],
        [event.event_id for event in events],
        [event.kind for event in events],
        [event.payload for event in events],
        [event.schema_version for event in events],
        ["actor"] * len(events),
        ["request"] * len(events),
        [event.compaction_key for event in events],
    ]


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Connect, inside asyncio; the connection is closed also if the test fails."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        # Nothing to wait for: what was not committed is not wanted.
        connection.terminate()


async def append_raw(
    connection: asyncpg.Connection[asyncpg.Record],
    *topics: tuple[str, Sequence[RawEvent]],
    generation: int = 0,
) -> asyncpg.Record:
    """Append and return append_v1's one row."""
    row = await connection.fetchrow(APPEND, *append_args(topics, generation=generation))
    assert row is not None
    return row
