"""The end of a transaction whose COMMIT meets something that nobody foresaw; the rest needs a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import asyncpg
import attrs
import pytest

from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.adapters.postgres_connection import PostgresConnection
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from khala_service.adapters.postgres_connection import RawConnection


@attrs.define
class _Raw:
    """A driver's connection whose COMMIT fails."""

    error: Exception
    said: list[str] = attrs.field(factory=list)
    is_terminated: bool = False

    async def execute(self, sql: str) -> str:
        self.said.append(sql.partition(" ")[0])
        if sql == "COMMIT":
            raise self.error
        return sql.partition(" ")[0]

    def terminate(self) -> None:
        self.is_terminated = True


async def test_a_commit_that_fails_in_an_unknown_way() -> None:
    """DB-08: COMMIT was sent, the driver says something without a meaning: nobody knows the outcome."""
    raw = _Raw(asyncpg.InterfaceError("cannot perform operation: another operation is in progress"))
    connection = PostgresConnection(cast("RawConnection", raw))
    async with open_asyncio_loop():
        with pytest.raises(Unavailable) as caught:
            async with connection.transaction():
                await connection.execute("UPDATE x SET y = 1")
    assert (caught.value.reason, caught.value.outcome_unknown) == ("database_protocol_error", True)
    assert raw.said == ["BEGIN", "UPDATE", "COMMIT"]
    assert raw.is_terminated
