"""A driver's task and the block that uses it: whose error comes out."""

from __future__ import annotations

import pytest
import trio

from fanout_drivers.background import open_background


async def crash_when_cancelled() -> None:
    """Serve until cancelled, and fail to leave."""
    try:
        await trio.sleep_forever()
    finally:
        raise LookupError("of the task")


async def test_the_error_of_the_block_is_kept() -> None:
    """The task crashes while it is being cancelled: the block's error comes out, with the crash beside it."""
    with pytest.raises(ValueError, match="ours") as caught:
        async with open_background(crash_when_cancelled):
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("ours")
    crash = caught.value.__context__
    assert isinstance(crash, ExceptionGroup)
    assert [type(error) for error in crash.exceptions] == [LookupError]


async def test_a_crash_after_a_good_block_comes_out() -> None:
    """The block ended well, the task did not: nobody overlooks that."""
    with pytest.raises(ExceptionGroup) as caught:
        async with open_background(crash_when_cancelled):
            await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in caught.value.exceptions] == [LookupError]


async def test_a_crash_ends_the_block() -> None:
    """A task that ends by a bug takes its block with it."""

    async def crash() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("of the task")

    with pytest.raises(ExceptionGroup):
        async with open_background(crash):
            await trio.sleep_forever()
