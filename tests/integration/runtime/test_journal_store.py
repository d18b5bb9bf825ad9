"""PostgreSQL keeps the contract that the actors rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures

import pytest

from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from runtime.adapters.postgres.journal_store import PostgresJournalStore
from tests.integration.runtime.journal_store_suite import JournalStoreSuite
from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures


class TestPostgresJournalStore(JournalStoreSuite):
    @pytest.fixture
    async def store(self, runtime_database: Database) -> AsyncIterator[PostgresJournalStore]:
        async with (
            open_asyncio_loop(),
            open_pool(
                runtime_database.dsn("khala_runtime"), application_name="khala-test", max_size=4
            ) as pool,
        ):
            yield PostgresJournalStore(pool)
