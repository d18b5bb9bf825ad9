"""Errors on asyncio's side: whose they are, and what they end."""

import asyncio
import gc
import random

import pytest
import trio

from khala_service.adapters.asyncio_bridge import open_asyncio_loop, run_in_asyncio
from khala_service.adapters.postgres import Unavailable, open_pool
from tests.postgres_cluster import Database


async def _leave_behind(error: Exception) -> None:
    """Drop a future that has an error; an asyncio coroutine."""
    asyncio.get_running_loop().create_future().set_exception(error)
    gc.collect()
    await asyncio.sleep(0)


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    """No group of one around it: the commands print it."""
    with pytest.raises(KeyError):
        async with open_asyncio_loop():
            raise KeyError("x")


async def test_results_and_errors_cross() -> None:
    """What asyncio returns or raises arrives in trio."""

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        if number < 0:
            raise ValueError(number)
        return 2 * number

    async with open_asyncio_loop():
        assert await run_in_asyncio(double, 4) == 8
        with pytest.raises(ValueError, match="-1"):
            await run_in_asyncio(double, -1)


async def test_trouble_that_nobody_waits_for_ends_nothing() -> None:
    """A caller who left cannot be told; everybody else goes on."""
    async with open_asyncio_loop():
        await run_in_asyncio(_leave_behind, ConnectionError("x"))
        await run_in_asyncio(asyncio.sleep, 0.01)


async def test_a_bug_that_nobody_waits_for_ends_the_loop() -> None:
    """An error of ours must not vanish because it happened in a callback."""
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="bug"), flatten_subgroups=True):
        async with open_asyncio_loop():
            await run_in_asyncio(_leave_behind, RuntimeError("bug"))
            await trio.sleep(5)


async def test_cancelled_logins_disturb_nobody(empty_database: Database) -> None:
    """Wherever the cancel falls into a login, the loop and the next caller live."""
    rng = random.Random(29)
    dsn = empty_database.dsn("khala_runtime")
    async with open_asyncio_loop():
        for _ in range(40):
            async with open_pool(dsn, application_name="t", min_size=0, max_size=2) as pool:
                with trio.move_on_after(rng.uniform(0, 0.012)):
                    await pool.fetch("SELECT 1")
                assert len(await pool.fetch("SELECT 1")) == 1


async def test_without_a_database(empty_database: Database) -> None:
    """A role that may not log in makes the pool unavailable, not the process."""
    dsn = empty_database.dsn("khala_runtime").replace("khala_runtime:", "khala_runtime:x")
    async with open_asyncio_loop(), open_pool(dsn, application_name="t") as pool:
        with pytest.raises(Unavailable, match="database_login_refused"):
            await pool.fetch("SELECT 1")
