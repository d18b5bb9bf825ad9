"""One topic on a node: whatever its driver does, subscribers get the journal's frames in order."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fanout_drivers.base import RecordCopy
from fanout_drivers.memory import MemoryDriver
from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    CursorStart,
    ReplayComplete,
    StaleCursor,
    Subscribed,
    SubscribeFrom,
    SubscriptionMode,
)
from khala_contracts.fanout_records import RecordSigner
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import KEY_ID, open_node
from tests.topic_log import LINEAGE, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_contracts.fanout_records import FanoutRecord

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


def up_to(seq: int, *, after: int = 0) -> list[int]:
    """Seqs ``after + 1 .. seq``."""
    return list(range(after + 1, seq + 1))


# -- the good case -----------------------------------------------------------------------------


async def test_replay_then_live(autojump_clock: MockClock) -> None:
    """INV-4: subscribed, the replay, replay_complete at the head of the subscribe, then live frames."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        subscribed = client.take(Subscribed)
        assert (subscribed.head_seq, subscribed.mode) == (10, SubscriptionMode.REPLAYING)
        assert client.take(ReplayComplete).through_seq == 10
        await node.commit(log, 3)
        assert client.seqs(TOPIC) == up_to(13)
        # The copy of the record was enough: one page for the replay, none for the live frames.
        assert node.journal.reads["read_page"] == 1
        assert trio.current_time() == 0


async def test_nothing_to_replay(autojump_clock: MockClock) -> None:
    """KH-43: a topic without frames is live at once, complete through 0, and seq 1 arrives."""
    log = log_of(TOPIC, 0)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        assert client.take(Subscribed).mode is SubscriptionMode.LIVE
        assert client.take(ReplayComplete).through_seq == 0
        await node.commit(log)
        assert client.seqs(TOPIC) == [1]


async def test_one_encoding_for_all(autojump_clock: MockClock) -> None:
    """Live frames are joined once, however many subscribers there are."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        clients = [await node.follow(TOPIC) for _ in range(20)]
        before = (node.registry._ranges.hits, node.registry._ranges.misses)
        await node.commit(log, 3)
        assert (node.registry._ranges.hits, node.registry._ranges.misses) == (before[0], before[1] + 1)
        assert all(client.seqs(TOPIC) == up_to(4) for client in clients)


# -- what a driver may do -------------------------------------------------------------------------


async def test_a_lost_record_is_healed_by_the_position_check(autojump_clock: MockClock) -> None:
    """KH-04: the last record is lost and nothing follows: found by the next check, read 20 ms later."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(2)
        await trio.sleep(0.519)
        assert client.seqs(TOPIC) == up_to(10)
        await trio.sleep(0.002)
        assert client.seqs(TOPIC) == up_to(12)


async def test_a_gap_is_healed_after_the_delay(autojump_clock: MockClock) -> None:
    """A record above head + 1 is held; 20 ms later one read closes the gap, and the held one follows."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(1)
        await node.commit(log, 2)
        await trio.sleep(0.019)
        assert client.seqs(TOPIC) == up_to(10)
        await trio.sleep(0.002)
        assert client.seqs(TOPIC) == up_to(13)
        assert node.counters.heals == 1


async def test_a_gap_that_closes_by_itself_costs_no_read(autojump_clock: MockClock) -> None:
    """Records that only changed places within 20 ms are put in order without the journal."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        records = [log.append(2) for _ in range(5)]
        for index in (4, 2, 0, 3, 1):
            await node.publish(records[index])
            await trio.sleep(0.002)
        assert client.seqs(TOPIC) == up_to(20)
        await trio.sleep(0.1)
        assert node.counters.heals == 0


async def test_repeated_and_overlapping_records(autojump_clock: MockClock) -> None:
    """INV-3: what is at or below the head sends nothing; an overlap is only a hint."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        record = await node.commit(log, 2)
        await node.publish(record, record, log.record(1, 5))
        assert client.seqs(TOPIC) == up_to(12)
        log.append(2)
        await node.publish(log.record(11, 14))
        assert client.seqs(TOPIC) == up_to(12)
        await trio.sleep(0.021)
        assert client.seqs(TOPIC) == up_to(14)


async def test_a_pure_hint_starts_one_read(autojump_clock: MockClock) -> None:
    """A commit too large for the driver travels as a hint and costs one page."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(5)
        await node.publish(log.hint(11, 15))
        await trio.sleep(0.021)
        assert client.seqs(TOPIC) == up_to(15)
        assert node.counters.heals == 1


@pytest.mark.parametrize("is_hint", [True, False])
async def test_told_before_it_is_visible(autojump_clock: MockClock, is_hint: bool) -> None:
    """What cannot be read yet is not sent and ends nobody; it comes once it is visible."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(4)
        node.journal.visible[TOPIC.name] = 10
        await node.publish(log.hint(11, 14) if is_hint else log.record(13, 14))
        await trio.sleep(2)
        assert client.seqs(TOPIC) == up_to(10)
        # A hint that the journal does not bear out is not asked about for ever.
        assert node.counters.heals <= 2
        node.journal.visible.clear()
        await trio.sleep(0.53)
        assert client.seqs(TOPIC) == up_to(14)


@pytest.mark.parametrize("record_count", [65, 500])
async def test_a_driver_that_dropped_says_so(autojump_clock: MockClock, record_count: int) -> None:
    """PositionUnknown: the journal is read at once, not at the next position check."""
    log = log_of(TOPIC, 10)
    async with open_node(log, driver=MemoryDriver(queue_max_records=2)) as node:
        client = await node.follow(TOPIC)
        records = [log.append(1) for _ in range(record_count)]
        for record in records:
            for subscriber in node.driver._subscribers:
                subscriber.offer_nowait(_copy_of(node.signer, record))
        await node.settle()
        assert node.counters.position_unknown == 1
        await trio.sleep(0.001)
        assert client.seqs(TOPIC) == up_to(10 + record_count)


async def test_a_burst_that_arrives_whole_costs_no_read(autojump_clock: MockClock) -> None:
    """Records that wait in the driver are handed over at the pace of their topic."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        (subscriber,) = node.driver._subscribers
        for _ in range(500):
            subscriber.offer_nowait(_copy_of(node.signer, log.append(1)))
        await node.settle()
        assert client.seqs(TOPIC) == up_to(510)
        assert node.counters.records == {"apply": 500}
        assert node.counters.heals == 0


async def test_position_unknown_of_all_topics(autojump_clock: MockClock) -> None:
    """A driver that reconnected concerns every topic; each reads at once."""
    logs = [log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)]
    async with open_node(*logs) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        for log in logs:
            log.append(2)
            node.registry._topics[log.topic.name].position_unknown()
        await trio.sleep(0.001)
        assert client.seqs(TOPIC) == client.seqs(OTHER_TOPIC) == up_to(5)


async def test_more_records_than_the_inbox_holds(autojump_clock: MockClock) -> None:
    """INV-7: records that arrive while a read is slow are held up to the bound; the rest is read."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(1)
        node.journal.hold("read_page")
        await node.commit(log)
        await trio.sleep(0.021)  # the heal is in flight
        for _ in range(200):
            await node.commit(log)
        topic = node.registry._topics[TOPIC.name]
        assert len(topic._inbox) == node.limits.held_records_max
        assert node.counters.records["overflow"] == 200 - node.limits.held_records_max
        node.journal.open_gate("read_page")
        await trio.sleep(0.001)
        assert client.seqs(TOPIC) == up_to(212)


def _copy_of(signer: RecordSigner, record: FanoutRecord) -> RecordCopy:
    return RecordCopy(record.topic, signer.seal(record))


# -- what nobody may do: forgeries and conflicts -----------------------------------------------------


async def test_forged_records_change_nothing(autojump_clock: MockClock) -> None:
    """INV-6: a record without the runtime's seal, or sealed for another topic, is counted and dropped."""
    log, other = log_of(TOPIC, 10), log_of(OTHER_TOPIC, 10)
    async with open_node(log, other) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        copy = log.copy()
        forged = copy.append(1, payload=b"evil")
        wrong_key = RecordSigner(KEY_ID, bytes(32))
        await node.driver.publish(TOPIC.name, wrong_key.seal(forged))
        await node.driver.publish(TOPIC.name, b"rubbish")
        sealed = node.signer.seal(other.append(1))
        await node.driver.publish(TOPIC.name, sealed)
        await node.settle()
        assert node.counters.records_forged == 3
        assert client.seqs(TOPIC) == up_to(10)
        # What was not believed is not remembered either.
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(11)


async def test_a_conflict_is_decided_by_the_journal_at_once(autojump_clock: MockClock) -> None:
    """A sealed record that continues another chain is never sent; one read shows what is true."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        fork = log.copy()
        fork.cut(9)
        fork.append(1, payload=b"another tenth")
        conflicting = fork.append(2)
        log.append(1)
        await node.publish(conflicting)
        await trio.sleep(0.001)
        assert node.counters.records["conflict"] == 1
        assert client.seqs(TOPIC) == up_to(11)


async def test_a_record_of_another_lineage_is_decided_by_the_journal(autojump_clock: MockClock) -> None:
    """An old record of another history, replayed by somebody, ends nobody and sends nothing."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        foreign = attrs.evolve(log.append(1), lineage="lin_other")
        await node.publish(foreign)
        await trio.sleep(0.001)
        assert node.counters.records["other_lineage"] == 1
        assert client.seqs(TOPIC) == up_to(11)
        assert client.take_all(StaleCursor) == []


# -- trouble of the journal -----------------------------------------------------------------------------


async def test_a_heal_is_repeated_after_the_advised_time(autojump_clock: MockClock) -> None:
    """Journal down while a gap is open: subscribers wait, nobody is stale, the read is repeated."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        node.journal.failures["read_page"] = 2
        log.append(1)
        await node.commit(log)
        await trio.sleep(1.99)
        assert client.seqs(TOPIC) == up_to(10)
        await trio.sleep(0.04)
        assert client.seqs(TOPIC) == up_to(12)
        assert client.take_all(StaleCursor) == []


async def test_position_unknown_survives_a_failed_read(autojump_clock: MockClock) -> None:
    """The wish to know is not forgotten because the journal was down just then."""
    log = log_of(TOPIC, 10)
    limits = NodeLimits(position_check_interval_s=1_000)
    async with open_node(log, limits=limits) as node:
        client = await node.follow(TOPIC)
        node.journal.failures["read_page"] = 1
        log.append(1)
        node.registry._topics[TOPIC.name].position_unknown()
        await trio.sleep(0.9)
        assert client.seqs(TOPIC) == up_to(10)
        await trio.sleep(0.2)
        assert client.seqs(TOPIC) == up_to(11)


async def test_live_delivery_does_not_need_the_journal(autojump_clock: MockClock) -> None:
    """While the journal is down, records that fit keep flowing."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        node.journal.is_down = True
        for _ in range(5):
            await node.commit(log)
            await trio.sleep(1)
        assert client.seqs(TOPIC) == up_to(15)


# -- subscribing while records arrive ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_subscribing_at_any_moment(autojump_clock: MockClock, seed: int) -> None:
    """KH-05: subscribers that come at random moments of a busy topic see strictly +1 and all of it.

    The journal answers late, records get lost and change places; the transcript of every client
    asserts order, the barrier's position and its chain as it is read.
    """
    rng = random.Random(seed)
    log = log_of(TOPIC, rng.choice((0, 1, 50, 3_000)))
    limits = NodeLimits(window_max_frames=rng.choice((1, 10, 1_024)))
    async with open_node(log, limits=limits) as node:
        node.journal.page_max_frames = rng.choice((1, 7, 2_000)) if log.head_seq < 100 else 500
        clients = [await node.connect(TOPIC) for _ in range(12)]
        node.journal.delay_s = 0.010
        late = []
        for step in range(60):
            record = log.append(rng.randint(1, 4))
            fate = rng.random()
            if fate < 0.7:
                await node.publish(record)
            elif fate < 0.9:
                late.append(record)
            if late and rng.random() < 0.3:
                await node.publish(late.pop(rng.randrange(len(late))))
            if step % 5 == 0:
                clients[step // 5].subscribe(TOPIC, start=rng.choice(list(SubscribeFrom)))
            await trio.sleep(rng.choice((0, 0.001, 0.011)))
        await trio.sleep(5)  # pages of one frame take 10 ms each
        for client in clients:
            seqs = client.seqs(TOPIC)
            assert client.is_live(TOPIC)
            assert client.transcript.topics[TOPIC.name].position == log.head_seq
            assert client.transcript.topics[TOPIC.name].chain == log.chains[log.head_seq]
            assert seqs == up_to(log.head_seq, after=log.head_seq - len(seqs))


async def test_frames_that_arrived_during_the_replay_follow_it(autojump_clock: MockClock) -> None:
    """After replay_complete the frames committed meanwhile come at once, though nothing new happens."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.connect(TOPIC)
        node.journal.hold("read_page")
        client.subscribe(TOPIC)
        await node.settle()
        await node.commit(log, 5)
        node.journal.open_gate("read_page")
        await trio.sleep(0.001)
        assert client.take(ReplayComplete).through_seq == 10
        assert client.seqs(TOPIC) == up_to(15)


async def test_records_that_arrive_while_their_page_is_read(autojump_clock: MockClock) -> None:
    """INV-4: a replay that waits for a page is not overtaken by the same frames live: the barrier holds."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        node.journal.hold("read_page")
        log.append(3)  # the subscribe sees them, the window does not yet
        client = await node.follow(TOPIC, start=CursorStart(9, LINEAGE))
        await node.publish(log.record(11, 13))
        node.journal.open_gate("read_page")
        await trio.sleep(0.1)
        assert client.take(ReplayComplete).through_seq == 13
        assert client.seqs(TOPIC) == up_to(13, after=9)


async def test_an_older_answer_of_the_journal(autojump_clock: MockClock) -> None:
    """A subscribe whose observation was overtaken by live records starts at what it was told."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        client = await node.connect(TOPIC)
        node.journal.hold("observe")
        client.subscribe(TOPIC, start=SubscribeFrom.NOW)
        await node.settle()
        await node.commit(log, 5)
        node.journal.open_gate("observe")
        await node.settle()
        assert client.take(Subscribed).head_seq == 10
        assert client.take(ReplayComplete).through_seq == 10
        assert client.seqs(TOPIC) == up_to(15, after=10)
