"""Pages: read once for all who wait, bounded in number and bytes, repeated until the journal answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import CursorStart, StaleCursor
from tests.actors.khala.fake_control import FixedRng
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


def up_to(seq: int, *, after: int = 0) -> list[int]:
    """Seqs ``after + 1 .. seq``."""
    return list(range(after + 1, seq + 1))


async def test_one_read_for_all_who_wait(autojump_clock: MockClock) -> None:
    """However many replay from the same position, each page is read once."""
    log = log_of(TOPIC, 100)
    async with open_node(log) as node:
        node.journal.page_max_frames = 25
        clients = [await node.connect(TOPIC) for _ in range(30)]
        node.journal.hold("read_page")
        for client in clients:
            client.subscribe(TOPIC)
        await node.settle()
        node.journal.open_gate("read_page")
        await trio.sleep(0.1)
        assert all(client.seqs(TOPIC) == up_to(100) for client in clients)
        assert [after for _, after in node.journal.pages_asked] == [0, 25, 50, 75]


async def test_laggards_share_ranges(autojump_clock: MockClock) -> None:
    """Clients that resume at different places send the same ranges from the next multiple of 64 on, joined once."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=NodeLimits(chunk_max_bytes=8_000, drr_quantum_bytes=4_000)) as node:
        await node.follow(TOPIC)
        await node.commit(log, 500, payload=bytes(20))
        ranges = node.registry._ranges
        joined = []
        for position in (5, 10, 60):
            before = ranges.misses
            late = await node.connect(TOPIC)
            late.subscribe(TOPIC, start=CursorStart(position, LINEAGE))
            await node.settle()
            assert late.seqs(TOPIC) == up_to(500, after=position)
            joined.append(ranges.misses - before)
        # Each has one of its own, up to 64 or 128; the last range ends at the head.
        assert joined[1:] == [1, 1]
        assert joined[0] <= 3


async def test_a_page_in_use_is_given_to_a_late_comer(autojump_clock: MockClock) -> None:
    """A page that somebody still sends from serves another replay without a read."""
    log = log_of(TOPIC, 100, payload=bytes(1_000))
    async with open_node(log, limits=NodeLimits(write_stall_timeout_s=1_000)) as node:
        slow = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=1_000))
        assert node.journal.reads["read_page"] == 1
        late = await node.follow(TOPIC)
        assert late.seqs(TOPIC) == up_to(100)
        assert node.journal.reads["read_page"] == 1
        assert node.pages.held_bytes > 100_000
        for _ in range(200):
            slow.read()
            await node.settle()
        assert slow.seqs(TOPIC) == up_to(100)
        assert node.pages.held_bytes == 0


async def test_readers_at_once(autojump_clock: MockClock) -> None:
    """INV-7: at most journal_readers_max reads are in flight; the others wait their turn."""
    logs = [log_of(run_topic(number), 3) for number in range(20)]
    async with open_node(*logs, limits=NodeLimits(journal_readers_max=4)) as node:
        client = await node.connect(*(log.topic for log in logs))
        node.journal.hold("read_page")
        client.subscribe(*(log.topic for log in logs))
        await node.settle()
        assert node.journal.in_flight == node.journal.in_flight_max == 4
        node.journal.open_gate("read_page")
        await trio.sleep(0.1)
        assert node.journal.in_flight_max == 4
        assert all(client.seqs(log.topic) == up_to(3) for log in logs)


async def test_bytes_of_pages(autojump_clock: MockClock) -> None:
    """INV-7: once pages_max_bytes are in use the newest replay waits until one is sent; live never does."""
    logs = [log_of(run_topic(number), 100, payload=bytes(1_000)) for number in range(3)]
    limits = NodeLimits(pages_max_bytes=150_000, write_stall_timeout_s=1_000)
    async with open_node(*logs, limits=limits) as node:
        slow = [
            await node.follow(log.topic, transport=SimulatedTransport(buffer_bytes=1_000)) for log in logs[:2]
        ]
        live = await node.connect(logs[0].topic)
        newest = await node.follow(logs[2].topic)
        assert newest.seqs(logs[2].topic) == []
        await trio.sleep(5)
        assert newest.seqs(logs[2].topic) == []
        assert node.journal.reads["read_page"] == 2
        live.subscribe(logs[0].topic, start=CursorStart(100, LINEAGE))
        await node.settle()
        await node.commit(logs[0])
        assert live.seqs(logs[0].topic) == [101]
        for _ in range(200):
            slow[0].read()
            await node.settle()
        await trio.sleep(0.26)
        assert newest.seqs(logs[2].topic) == up_to(100)
        assert slow[1].connection.closed_with is None


async def test_a_page_is_freed_when_its_client_leaves(autojump_clock: MockClock) -> None:
    """A replay that ends by a close holds no page."""
    log = log_of(TOPIC, 100, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=1_000))
        assert node.pages.held_bytes > 0
        client.peer.vanish()
        await node.settle()
        assert node.pages.held_bytes == 0


async def test_a_page_is_freed_by_live_frames(autojump_clock: MockClock) -> None:
    """A page that reaches beyond the window's head is freed once live frames have passed its end.

    Otherwise each such client would hold 512 KiB for as long as it stays, and 256 of them would
    block every replay of the node.
    """
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.connect(TOPIC)
        node.journal.hold("observe")
        client.subscribe(TOPIC)
        await node.settle()
        log.append(3)  # committed after the observation; the page will show it, the window not yet
        node.journal.open_gate("observe")
        await node.settle()
        assert client.seqs(TOPIC) == up_to(10)
        assert node.pages.held_bytes > 0
        await node.publish(log.record(11, 13))
        assert client.seqs(TOPIC) == up_to(13)
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(14)
        assert node.pages.held_bytes == 0


async def test_the_journal_is_down_during_a_replay(autojump_clock: MockClock) -> None:
    """KH-34: the replay waits, is never stale, and goes on where it was when the journal is back."""
    log = log_of(TOPIC, 100)
    async with open_node(log) as node:
        node.journal.page_max_frames = 40
        node.journal.hold("read_page")
        client = await node.follow(TOPIC)
        node.journal.is_down = True
        node.journal.open_gate("read_page")
        for _ in range(6):
            client.peer.ping()
            await trio.sleep(10)
        assert client.seqs(TOPIC) == up_to(40)
        assert client.take_all(StaleCursor) == []
        node.journal.is_down = False
        await trio.sleep(5)
        assert client.seqs(TOPIC) == up_to(100)
        assert client.is_live(TOPIC)


async def test_retries_back_off(autojump_clock: MockClock) -> None:
    """A read is repeated after 0.25, 0.5, 1, 2, 2, 2 ... s: an outage's end is never far from the next."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        node.journal.retry_after_s = 0.0
        node.journal.failures["read_page"] = 1_000
        await node.follow(TOPIC)
        started_at = trio.current_time()
        seen: list[float] = []
        while trio.current_time() - started_at < 13:
            if node.journal.reads["read_page"] > len(seen):
                seen.append(round(trio.current_time() - started_at, 1))
            await trio.sleep(0.01)
        assert seen[:8] == [0.0, 0.3, 0.8, 1.8, 3.8, 5.8, 7.8, 9.8]
        assert node.counters.page_read_failures == node.journal.reads["read_page"]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
async def test_a_retry_is_not_before_its_time(autojump_clock: MockClock, jitter: float) -> None:
    """What the journal advises is waited for in full, whatever the jitter."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        node.pages._rng = FixedRng(jitter)
        node.journal.retry_after_s = 1.5
        node.journal.failures["read_page"] = 1
        client = await node.follow(TOPIC)
        await trio.sleep(1.49)
        assert node.journal.reads["read_page"] == 1
        await trio.sleep(0.27)
        assert client.seqs(TOPIC) == up_to(10)


async def test_a_replay_that_nobody_waits_for(autojump_clock: MockClock) -> None:
    """Its clients have left while the journal was down: the answer is dropped, nothing is held."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        node.journal.failures["read_page"] = 2
        client = await node.follow(TOPIC)
        client.peer.leave()
        await trio.sleep(10)
        assert node.pages.held_bytes == 0
        assert node.pages._waiting == {}
        again = await node.follow(TOPIC)
        assert again.seqs(TOPIC) == up_to(10)


async def test_a_long_replay_does_not_delay_live_frames_of_others(autojump_clock: MockClock) -> None:
    """KH-39: while one topic is replayed over a slow journal, another's live frames come at once."""
    history, quiet = log_of(TOPIC, 5_000), log_of(OTHER_TOPIC, 0)
    async with open_node(history, quiet) as node:
        node.journal.page_max_frames = 100
        client = await node.connect(TOPIC, OTHER_TOPIC)
        client.subscribe(OTHER_TOPIC)
        await node.settle()
        node.journal.delay_s = 0.2
        client.subscribe(TOPIC)
        await trio.sleep(1)
        for number in range(1, 6):
            await node.commit(quiet)
            assert client.seqs(OTHER_TOPIC) == up_to(number)
            await trio.sleep(0.3)
        assert len(client.seqs(TOPIC)) < 5_000
        await trio.sleep(15)
        assert client.seqs(TOPIC) == up_to(5_000)
