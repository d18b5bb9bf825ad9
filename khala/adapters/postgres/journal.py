"""JournalReader over PostgreSQL: three statements, each one snapshot.

The position check has a connection of its own: it finds what drivers lost, so it must not wait
behind replays. No retry here; page reads are retried by actors/replay.py, the position check by
its next tick, a subscribe by the client.
"""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager, contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import trio

from khala.core.classification import CursorRow, HeadRights, Observation
from khala.core.pages import Page
from khala.ports import JournalUnavailableError, ObservedTopic
from khala_contracts.codec import StaleReason
from khala_service.adapters.postgres import load_queries, open_pool
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from khala.core.limits import NodeLimits
    from khala_contracts.topics import TopicName
    from khala_service.adapters.postgres import PostgresPool, Row
    from khala_service.secret import Secret

_QUERIES = "khala.adapters.postgres.queries"
# A page is 512 KiB, read in milliseconds. Longer: after a network that swallowed packets, replays hang
# on dead connections (this and the pool's grace) for longer than SPEC gives a stream to resume.
STATEMENT_TIMEOUT_MS: Final = 2_000
POSITION_TIMEOUT_MS: Final = 1_000
ACQUIRE_TIMEOUT_S: Final = 2.0
# Head rows made observations of before others get a turn, 10 microseconds each. More: all frames wait for it.
_HEADS_PER_TURN: Final = 64
# Besides those of replays and heals, so that a subscribe does not wait for sixteen pages.
SUBSCRIBE_CONNECTIONS: Final = 4


class PostgresJournalReader:
    """Reads ``runtime.journal``, ``runtime.topic_heads`` and ``runtime.lineage``."""

    def __init__(self, readers: PostgresPool, position: PostgresPool, limits: NodeLimits) -> None:
        """Use ``position`` for the position check alone."""
        self._readers = readers
        self._position = position
        self._limits = limits
        self._observe_sql = load_queries(_QUERIES, "observe")
        self._page_sql = load_queries(_QUERIES, "read_page")
        self._heads_sql = load_queries(_QUERIES, "read_heads")

    @property
    def pools(self) -> dict[str, PostgresPool]:
        """The connections, by what they are for."""
        return {"readers": self._readers, "position": self._position}

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return each topic and its journal row at the asked seq; see JournalReader."""
        topics = [topic for topic, _ in asked]
        with _translated():
            rows = await self._readers.fetch(self._observe_sql, topics, [seq for _, seq in asked])
        if len(rows) != len(asked):
            # No current lineage: the runtime has never started, or is being restored.
            raise JournalUnavailableError(1.0)
        return [
            ObservedTopic(_observation(topic, row), _cursor_row(row))
            for topic, row in zip(topics, rows, strict=True)
        ]

    async def read_heads(
        self, topics: Sequence[TopicName], known: Sequence[Observation | None] = ()
    ) -> list[Observation]:
        """Return each topic's head row; see JournalReader."""
        with _translated():
            rows = await self._position.fetch(self._heads_sql, list(topics))
        if len(rows) != len(topics):
            raise JournalUnavailableError(1.0)
        found: list[Observation] = []
        for start in range(0, len(rows), _HEADS_PER_TURN):
            # Thousands at once would hold up every frame for tens of milliseconds, twice a second.
            await trio.lowlevel.checkpoint()
            part = slice(start, start + _HEADS_PER_TURN)
            answers = zip(topics[part], known[part] or repeat(None, len(rows[part])), rows[part], strict=True)
            found += [
                before if before is not None and _is_unchanged(before, row) else _observation(topic, row)
                for topic, before, row in answers
            ]
        return found

    async def read_page(self, topic: TopicName, after_seq: int) -> Page:
        """Return the retained frames after ``after_seq``; see JournalReader."""
        limits = self._limits
        with _translated():
            row = await self._readers.fetchrow(
                self._page_sql, topic, after_seq, limits.page_max_frames, limits.page_max_bytes
            )
        if row is None:
            raise JournalUnavailableError(1.0)
        observation = _observation(topic, row)
        is_missing = not row["frames"] and observation.floor_seq <= after_seq + 1 <= observation.head_seq
        if is_missing or (row["frames"] and row["last_seq"] - after_seq != row["frames"]):
            # A hole in the retained rows contradicts the journal's contract; sending on would be
            # a gap on the wire, a stale cursor would blame the client.
            raise JournalUnavailableError(5.0)
        if not row["frames"]:
            return Page.from_sizes(after_seq, b"", (), last_chain=b"", observation=observation)
        return Page.from_sizes(
            after_seq,
            row["blob"],
            struct.unpack(f"!{row['frames']}I", row["sizes"]),
            last_chain=row["last_chain"],
            observation=observation,
        )

    async def check(self) -> str | None:
        """Return None if the journal answers and has a lineage, else why not."""
        try:
            await self._position.measure_clock_skew()
            rows = await self._position.fetch("SELECT 1 FROM runtime.lineage WHERE is_current")
        except (Unavailable, SerializationTrouble):
            return "journal_unreachable"
        except DatabaseError:
            return "journal_schema_missing"
        return None if rows else "no_lineage"


def _is_unchanged(known: Observation, row: Row) -> bool:
    """Whether the row says what is known: the rest of it follows from the chains."""
    return (
        known.exists
        and row["is_known"]
        and known.lineage == row["lineage"]
        and known.head_seq == row["head_seq"]
        and known.head_chain == row["head_chain"]
        and known.floor_seq == row["floor_seq"]
        and known.floor_chain == row["floor_chain"]
        and known.floor_reason == _floor_reason(row["floor_reason"])
        and known.rights.owner_user_id == row["owner_user_id"]
        and known.rights.org_id == row["org_id"]
    )


def _observation(topic: TopicName, row: Row) -> Observation:
    if not row["is_known"]:
        return Observation.absent(topic, row["lineage"])
    return Observation(
        topic=topic,
        lineage=row["lineage"],
        exists=True,
        head_seq=row["head_seq"],
        head_chain=row["head_chain"],
        head_bytes_total=row["head_bytes_total"],
        floor_seq=row["floor_seq"],
        floor_chain=row["floor_chain"],
        floor_bytes_total=row["floor_bytes_total"],
        floor_reason=_floor_reason(row["floor_reason"]),
        rights=HeadRights(row["owner_user_id"], row["org_id"]),
    )


def _floor_reason(written: str) -> StaleReason:
    # 'none' stands for a floor that never moved; nothing can be below it, so the value is unused.
    return StaleReason.RETENTION_EXPIRED if written == "none" else StaleReason(written)


def _cursor_row(row: Row) -> CursorRow | None:
    chain: Any = row["cursor_chain"]
    return CursorRow(chain, row["cursor_bytes_total"]) if chain is not None else None


@contextmanager
def _translated() -> Iterator[None]:
    """Turn every trouble of the database into the one that the node's actors know."""
    try:
        yield
    except Unavailable as exc:
        raise JournalUnavailableError(exc.retry_after_s) from exc
    except (SerializationTrouble, DatabaseError) as exc:
        # The statements are ours: a refusal means a schema that is missing or being migrated.
        raise JournalUnavailableError(1.0) from exc


@asynccontextmanager
async def open_journal_reader(dsn: Secret, limits: NodeLimits) -> AsyncIterator[PostgresJournalReader]:
    """Yield a reader; must run inside ``open_asyncio_loop``."""
    async with (
        open_pool(
            dsn,
            application_name="khala-node",
            # Nothing before the first use: a node whose database is away must listen at once.
            min_size=0,
            max_size=limits.journal_readers_max + SUBSCRIBE_CONNECTIONS,
            statement_timeout_ms=STATEMENT_TIMEOUT_MS,
            acquire_timeout_s=ACQUIRE_TIMEOUT_S,
        ) as readers,
        open_pool(
            dsn,
            application_name="khala-node-position",
            min_size=0,
            max_size=1,
            statement_timeout_ms=POSITION_TIMEOUT_MS,
            acquire_timeout_s=ACQUIRE_TIMEOUT_S,
        ) as position,
    ):
        yield PostgresJournalReader(readers, position, limits)
