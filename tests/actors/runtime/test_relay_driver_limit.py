"""What a driver cannot carry travels as a hint, not as a copy that its broker refuses (FD-03)."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from khala_contracts.topics import Lineage
from tests.actors.runtime.rig import LINEAGE
from tests.actors.runtime.test_relay import commits, entries_of, relaying


@pytest.mark.parametrize("is_too_small", [False, True])
async def test_the_bound_of_the_driver_decides(is_too_small: bool) -> None:
    """An entry of exactly entries_max_bytes is copied, of one byte more announced; asked each time."""
    made = commits(1, 1, size=1_000)
    async with relaying() as (relay, driver, _):
        driver.entries_max_bytes = len(entries_of(made)[0]) - is_too_small
        relay.offer(made, lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        (record,) = driver.records()
        assert bool(record.entries) is not is_too_small
        assert (record.first_seq, record.last_seq) == (1, 1)


async def test_a_small_driver_gets_more_records() -> None:
    """Several entries that do not fit together travel apart, each continuing the one before."""
    made = commits(1, 4, size=1_000)
    async with relaying() as (relay, driver, _):
        driver.entries_max_bytes = 2 * len(entries_of(made)[0])
        relay.offer(made, lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        records = driver.records()
        assert [(record.first_seq, record.last_seq, len(record.entries)) for record in records] == [
            (1, 2, 2),
            (3, 4, 2),
        ]
        assert records[1].chain_before == records[0].chain_after
