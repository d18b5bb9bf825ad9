"""What the store says of trouble before a batch was begun; everything else: tests/integration/runtime."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest

from khala_service.errors import Unavailable
from runtime.adapters.postgres.journal_store import PostgresJournalStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala_service.adapters.postgres import PostgresPool


class _LosingConnection:
    """A connection that is gone as soon as it is used."""

    async def execute(self, sql: str) -> str:
        raise Unavailable("database_connection_lost", 3.0, outcome_unknown=True)


class _LosingPool:
    """A pool of such connections."""

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[_LosingConnection]:
        yield _LosingConnection()


async def test_a_writer_that_is_lost_while_it_is_opened() -> None:
    """DB-08: nothing was sent that could be committed: the outcome is known, whatever the settings became."""
    store = PostgresJournalStore(cast("PostgresPool", _LosingPool()))
    with pytest.raises(Unavailable) as caught:
        async with store.open_writer(1):
            pytest.fail("there is no connection")
    error = caught.value
    assert (error.reason, error.retry_after_s, error.outcome_unknown) == (
        "database_connection_lost",
        3.0,
        False,
    )
