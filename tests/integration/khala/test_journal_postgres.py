"""The journal reader on PostgreSQL passes the suite of the fake, as the role khala_reader."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures
from typing import TYPE_CHECKING

import attrs
import pytest

from khala.adapters.postgres.journal import PostgresJournalReader, open_journal_reader
from khala.ports import JournalUnavailableError
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from khala_service.config import Secret
from tests.contract.journal_suite import LIMITS, TOPIC, JournalSuite
from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures
from tests.topic_log import LINEAGE, TopicLog

if TYPE_CHECKING:
    from khala_service.adapters.postgres import PostgresPool

_HEAD = """
INSERT INTO runtime.topic_heads VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, clock_timestamp())
"""
_ROW = "INSERT INTO runtime.journal VALUES ($1, $2, $3, $4, $5, NULL, clock_timestamp())"


@attrs.define
class _Desk:
    """The reader, and the database's superuser in the place of the authority."""

    reader: PostgresJournalReader
    authority: PostgresPool

    async def keep(self, log: TopicLog) -> None:
        """Write the head row and the retained rows."""
        seen = log.observe()
        is_untouched = seen.floor_seq == 1
        await self.authority.execute(
            _HEAD,
            log.topic.name,
            log.topic.topic_class.name,
            seen.head_seq,
            seen.head_chain,
            seen.head_bytes_total,
            seen.floor_seq,
            seen.floor_chain,
            seen.floor_bytes_total,
            "none" if is_untouched else seen.floor_reason.value,
            seen.rights.owner_user_id,
            seen.rights.org_id,
        )
        # Rows below the floor are written too: they are invisible by rule, not by being deleted.
        for seq in range(1, log.head_seq + 1):
            await self.authority.execute(
                _ROW, log.topic.name, seq, log.entries[seq - 1], log.chains[seq], log.bytes_totals[seq]
            )

    async def begin_lineage(self, lineage: str | None) -> None:
        """Make a lineage the current one."""
        await self.authority.execute("UPDATE runtime.lineage SET is_current = false")
        if lineage is not None:
            await self.authority.execute(
                "INSERT INTO runtime.lineage VALUES ($1, NULL, 'test', '1', 1, '0/0', clock_timestamp(), true)",
                lineage,
            )

    async def lose_row(self, log: TopicLog, seq: int) -> None:
        """Delete it."""
        await self.authority.execute(
            "DELETE FROM runtime.journal WHERE topic = $1 AND seq = $2", log.topic.name, seq
        )


class TestPostgresJournal(JournalSuite):
    @pytest.fixture
    async def desk(self, runtime_database: Database) -> AsyncIterator[_Desk]:
        """An empty journal with a lineage."""
        async with (
            open_asyncio_loop(),
            open_pool(runtime_database.superuser_dsn, application_name="khala-test", max_size=1) as authority,
            open_journal_reader(Secret(runtime_database.dsn("khala_reader")), LIMITS) as reader,
        ):
            desk = _Desk(reader, authority)
            await desk.begin_lineage(LINEAGE)
            yield desk


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runtime.topic_heads SET head_seq = 6",
        "UPDATE runtime.topic_heads SET head_chain = sha256('other')",
        "UPDATE runtime.topic_heads SET floor_seq = 2",
        "UPDATE runtime.topic_heads SET floor_chain = sha256('other')",
        "UPDATE runtime.topic_heads SET floor_reason = 'compaction_boundary'",
        "UPDATE runtime.topic_heads SET owner_user_id = 'usr_0'",
        "UPDATE runtime.topic_heads SET org_id = NULL",
        "UPDATE runtime.lineage SET id = 'another'",
        "DELETE FROM runtime.topic_heads",
    ],
)
async def test_a_head_that_changed_is_read_anew(runtime_database: Database, change: str) -> None:
    """What is known is returned itself while all of it holds; one column that differs, and it is not."""
    async with (
        open_asyncio_loop(),
        open_pool(runtime_database.superuser_dsn, application_name="khala-test", max_size=1) as authority,
        open_journal_reader(Secret(runtime_database.dsn("khala_reader")), LIMITS) as reader,
    ):
        desk, log = _Desk(reader, authority), TopicLog(TOPIC)
        log.append(5)
        await desk.begin_lineage(LINEAGE)
        await desk.keep(log)
        (known,) = await reader.read_heads([TOPIC.name])
        (again,) = await reader.read_heads([TOPIC.name], [known])
        assert again is known
        await authority.execute(change)
        (changed,) = await reader.read_heads([TOPIC.name], [known])
        assert [changed] == await reader.read_heads([TOPIC.name])
        assert changed != known


async def test_readiness(runtime_database: Database) -> None:
    """The check says what is missing: a lineage, or nothing."""
    async with (
        open_asyncio_loop(),
        open_pool(runtime_database.superuser_dsn, application_name="khala-test", max_size=1) as authority,
        open_journal_reader(Secret(runtime_database.dsn("khala_reader")), LIMITS) as reader,
    ):
        desk = _Desk(reader, authority)
        assert await reader.check() == "no_lineage"
        await desk.begin_lineage(LINEAGE)
        assert await reader.check() is None


async def test_an_absent_schema_is_unavailable(empty_database: Database) -> None:
    """INV-5: before the migration nothing is judged, and the check says why."""
    async with (
        open_asyncio_loop(),
        open_journal_reader(Secret(empty_database.dsn("khala_reader")), LIMITS) as reader,
    ):
        assert await reader.check() == "journal_schema_missing"
        with pytest.raises(JournalUnavailableError):
            await reader.observe([(TOPIC.name, 1)])
        with pytest.raises(JournalUnavailableError):
            await reader.read_page(TOPIC.name, 0)


async def test_an_absent_server_is_unavailable() -> None:
    """A database that nobody serves is trouble, with a time, and nothing hangs."""
    nobody = Secret("postgresql://khala_reader:x@127.0.0.1:1/khala")
    async with open_asyncio_loop(), open_journal_reader(nobody, LIMITS) as reader:
        assert await reader.check() == "journal_unreachable"
        with pytest.raises(JournalUnavailableError) as caught:
            await reader.read_heads([TOPIC.name])
        assert caught.value.retry_after_s > 0
