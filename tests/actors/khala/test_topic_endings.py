"""How subscriptions end: another history, the floor, lost rights; and what a crash does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.core.classification import HeadRights
from khala.core.limits import NodeLimits
from khala.core.ranges import RangeCache
from khala_contracts.codec import (
    ErrorMessage,
    FramesMessage,
    StaleCursor,
    StaleReason,
    SubscribeFrom,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.sync_claims import GrantBasis
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest, open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import OTHER_LINEAGE, OTHER_USER, claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from khala.core.ranges import RangeKey

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
# One position check, and a moment for what it starts.
CHECKED_S = 0.53
SMALL_FAN_OUT = NodeLimits(fanout_quantum_sends=32)


def up_to(seq: int, *, after: int = 0) -> list[int]:
    """Seqs ``after + 1 .. seq``."""
    return list(range(after + 1, seq + 1))


def _ended(client: ClientUnderTest) -> bool:
    client.read()
    return TOPIC.name not in client.transcript.topics


# -- another history ---------------------------------------------------------------------------


async def test_another_lineage_ends_every_subscription(autojump_clock: MockClock) -> None:
    """Within a position check all are told, with the new observation; the connection stays."""
    log = log_of(TOPIC, 10)
    async with open_node(log, log_of(OTHER_TOPIC, 2)) as node:
        clients = [await node.follow(TOPIC), await node.follow(TOPIC, OTHER_TOPIC)]
        restored = node.journal.restore(log, 7, lineage=OTHER_LINEAGE)
        await trio.sleep(CHECKED_S)
        for client in clients:
            stale = client.take(StaleCursor)
            assert (stale.topic, stale.reason) == (TOPIC.name, StaleReason.LINEAGE_MISMATCH)
            assert (stale.lineage, stale.head_seq, stale.floor_seq) == (OTHER_LINEAGE, 7, 1)
            assert client.close_code is None
        assert clients[1].seqs(OTHER_TOPIC) == up_to(2)
        # The new history is followed from its own head.
        clients[0].subscribe(TOPIC)
        await node.settle()
        await node.commit(restored)
        assert clients[0].seqs(TOPIC) == up_to(8)


@pytest.mark.parametrize("head", [9, 1])
async def test_a_head_that_goes_backwards_is_another_history(autojump_clock: MockClock, head: int) -> None:
    """What was sent is gone, though the lineage is the same: lineage_mismatch, never silence."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        node.journal.restore(log, head)
        await trio.sleep(CHECKED_S)
        stale = client.take(StaleCursor)
        assert (stale.reason, stale.head_seq) == (StaleReason.LINEAGE_MISMATCH, head)


async def test_another_chain_at_our_head(autojump_clock: MockClock) -> None:
    """The same seq, another content: lineage_mismatch."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        node.journal.restore(log, 9).append(1, payload=b"another tenth")
        await trio.sleep(CHECKED_S)
        assert client.take(StaleCursor).reason is StaleReason.LINEAGE_MISMATCH


async def test_a_check_that_started_before_our_head_moved(autojump_clock: MockClock) -> None:
    """A slow position check that saw less than has arrived since is no other history."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        node.journal.hold("read_heads")
        await trio.sleep(CHECKED_S)
        await node.commit(log, 3)
        node.journal.open_gate("read_heads")
        await trio.sleep(0.1)
        assert client.take_all(StaleCursor) == []
        assert client.seqs(TOPIC) == up_to(13)


async def test_records_of_the_old_history_are_dropped(autojump_clock: MockClock) -> None:
    """What was held or queued for the old history never reaches the new one."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(4)
        held = log.record(13, 14)
        await node.publish(held)
        restored = node.journal.restore(log, 10, lineage=OTHER_LINEAGE)
        restored.append(1, payload=b"new eleventh")
        await trio.sleep(0.6)
        assert client.take(StaleCursor).reason is StaleReason.LINEAGE_MISMATCH
        client.subscribe(TOPIC, start=SubscribeFrom.NOW)
        await node.settle()
        await node.publish(restored.append(1, payload=b"new twelfth"), held)
        await trio.sleep(0.6)
        assert client.seqs(TOPIC) == [12]
        assert client.transcript.topics[TOPIC.name].chain == restored.chains[12]


async def test_a_heal_that_brings_another_history(autojump_clock: MockClock) -> None:
    """A page of another history is not appended: subscriptions end instead."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        hint = log.hint(10, 10) if log.append(1) is None else log.hint(11, 11)
        node.journal.restore(log, 8, lineage=OTHER_LINEAGE).append(9)
        await node.publish(hint)
        await trio.sleep(0.021)
        assert client.take(StaleCursor).lineage == OTHER_LINEAGE
        assert client.take_all(FramesMessage)[-1].frames[-1].seq == 10


async def test_a_heal_in_flight_over_a_change_of_history(autojump_clock: MockClock) -> None:
    """A page read before the history changed is dropped when it arrives after it."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(2)
        node.journal.hold("read_page")
        await node.publish(log.hint(11, 12))
        await trio.sleep(0.021)
        restored = node.journal.restore(log, 10, lineage=OTHER_LINEAGE)
        await trio.sleep(CHECKED_S)
        assert client.take(StaleCursor).lineage == OTHER_LINEAGE
        client.subscribe(TOPIC, start=SubscribeFrom.NOW)
        await node.settle()
        node.journal.open_gate("read_page")
        await node.settle()
        assert client.take_all(StaleCursor) == []
        await node.publish(restored.append(1, payload=b"new eleventh"))
        assert client.seqs(TOPIC) == [11]
        assert client.transcript.topics[TOPIC.name].chain == restored.chains[11]


async def test_a_check_in_flight_over_a_change_of_history(autojump_clock: MockClock) -> None:
    """A position check that began before the change does not undo it for those who came after."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        node.journal.hold("read_heads")
        await trio.sleep(CHECKED_S)
        node.journal.restore(log, 8, lineage=OTHER_LINEAGE)
        new = await node.follow(TOPIC)
        assert new.seqs(TOPIC) == up_to(8)
        node.journal.open_gate("read_heads")
        await node.settle()
        assert new.take_all(StaleCursor) == []
        assert not _ended(new)


async def test_a_subscribe_in_flight_over_a_change_of_history(autojump_clock: MockClock) -> None:
    """A subscribe that was observed before the change is asked to come again; it is not served from it."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        node.journal.hold("observe")
        late = await node.follow(TOPIC)
        restored = node.journal.restore(log, 8, lineage=OTHER_LINEAGE)
        await trio.sleep(CHECKED_S)
        node.journal.open_gate("observe")
        await node.settle()
        error = late.take(ErrorMessage)
        assert (error.code, error.topic, error.retry_after_ms) == ("unavailable", TOPIC.name, 1000)
        late.subscribe(TOPIC)
        await node.settle()
        assert late.seqs(TOPIC) == up_to(8)
        assert late.transcript.topics[TOPIC.name].chain == restored.chains[8]


@pytest.mark.parametrize("lineage", [None, OTHER_LINEAGE])
async def test_joined_bytes_of_the_old_history_are_not_sent(
    autojump_clock: MockClock, lineage: str | None
) -> None:
    """A restored copy, announced or not: its frames are encoded anew; the chain proves whose they are."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        restored = node.journal.restore(log, 5, lineage=lineage)
        await trio.sleep(CHECKED_S)
        client.take(StaleCursor)
        restored.append(5, payload=b"another past")
        client.subscribe(TOPIC)
        await trio.sleep(1)
        assert client.seqs(TOPIC) == up_to(10)
        assert client.transcript.topics[TOPIC.name].chain == restored.chains[10]


async def test_joined_bytes_outlive_no_topic(autojump_clock: MockClock) -> None:
    """The same, but nobody followed while the copy was put back."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        client.unsubscribe(TOPIC)
        await trio.sleep(40)
        assert len(node.registry) == 0
        restored = node.journal.restore(log, 5)
        restored.append(5, payload=b"another past")
        client.subscribe(TOPIC)
        await trio.sleep(1)
        assert client.seqs(TOPIC) == up_to(10)
        assert client.transcript.topics[TOPIC.name].chain == restored.chains[10]


async def test_a_page_read_in_the_old_history_is_not_given_to_the_new(autojump_clock: MockClock) -> None:
    """A replay that starts after the change does not join a read that started before it."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        node.journal.hold("read_page")
        old = await node.follow(TOPIC)
        restored = node.journal.restore(log, 5, lineage=OTHER_LINEAGE)
        restored.append(5, payload=b"another past")
        await trio.sleep(CHECKED_S)
        assert old.take(StaleCursor).lineage == OTHER_LINEAGE
        new = await node.follow(TOPIC)
        node.journal.open_gate("read_page")
        await trio.sleep(0.1)
        assert new.take_all(StaleCursor) == []
        assert new.seqs(TOPIC) == up_to(10)
        assert new.transcript.topics[TOPIC.name].chain == restored.chains[10]


# -- changes during a yield of fan-out -------------------------------------------------------------


@attrs.define(eq=False)
class _HookedTransport(SimulatedTransport):
    """Calls back when the server sends, inside of its turn."""

    on_send: Callable[[], None] | None = None

    def try_send(self, data: bytes | memoryview) -> int:
        """Send, then call back once."""
        sent = super().try_send(data)
        hook, self.on_send = self.on_send, None
        if hook is not None:
            hook()
        return sent


async def _crowd(node: NodeUnderTest, count: int) -> list[tuple[ClientUnderTest, _HookedTransport]]:
    """``count`` live subscribers, in the order of fan-out."""
    crowd = []
    for _ in range(count):
        transport = _HookedTransport()
        crowd.append((await node.follow(TOPIC, transport=transport), transport))
    for client, _ in crowd:
        client.take_all(FramesMessage)
    return crowd


async def test_another_history_during_a_yield_of_fan_out(autojump_clock: MockClock) -> None:
    """After the change no frame of the old history is sent to those who had not had their turn."""
    log = log_of(TOPIC, 10)
    async with open_node(log, limits=SMALL_FAN_OUT) as node:
        crowd = await _crowd(node, 100)
        topic = node.registry._topics[TOPIC.name]
        restored = log.copy()
        restored.lineage = OTHER_LINEAGE

        async def change() -> None:
            await trio.lowlevel.checkpoint()
            topic.learn(restored.observe(), topic.begin_read())

        crowd[31][1].on_send = lambda: node.nursery.start_soon(change)
        await node.commit(log)
        got_it = [bool(client.take_all(FramesMessage)) for client, _ in crowd]
        assert got_it[:32] == [True] * 32
        assert not all(got_it)
        assert all(client.take(StaleCursor).lineage == OTHER_LINEAGE for client, _ in crowd)


async def test_subscribers_leave_during_a_yield_of_fan_out(autojump_clock: MockClock) -> None:
    """Who leaves gets nothing more, nobody is skipped or sent twice, and who comes gets all."""
    log = log_of(TOPIC, 10)
    async with open_node(log, limits=SMALL_FAN_OUT) as node:
        crowd = await _crowd(node, 100)
        topic = node.registry._topics[TOPIC.name]
        leavers = [*range(20, 40), 98, 99]

        def leave() -> None:
            for index in leavers:
                crowd[index][0].connection.remove_subscription(TOPIC.name, "asked")

        crowd[25][1].on_send = leave
        await node.commit(log)
        for index, (client, _) in enumerate(crowd):
            frames = client.take_all(FramesMessage)
            expected = index not in leavers or 20 <= index <= 25
            assert len(frames) == expected, index
        assert len(topic.subscriptions) == 100 - len(leavers)


async def test_a_subscriber_joins_during_a_yield_of_fan_out(autojump_clock: MockClock) -> None:
    """One who joins between two turns of a fan-out gets its frames exactly once."""
    log = log_of(TOPIC, 10)
    async with open_node(log, limits=SMALL_FAN_OUT) as node:
        crowd = await _crowd(node, 64)
        late = await node.connect(TOPIC)
        crowd[0][1].on_send = lambda: late.subscribe(TOPIC)
        await node.commit(log, 2)
        await trio.sleep(1)
        assert late.seqs(TOPIC) == up_to(12)
        assert late.is_live(TOPIC)


# -- the floor ----------------------------------------------------------------------------------------


def _reading_slowly() -> SimulatedTransport:
    return SimulatedTransport(buffer_bytes=4 * 1024)


async def test_the_floor_passes_a_subscriber_behind(autojump_clock: MockClock) -> None:
    """INV-5: a client that lags when the floor passes it is told so; it never sees a gap."""
    log = log_of(TOPIC, 400, payload=bytes(200))
    limits = NodeLimits(window_max_frames=10, write_stall_timeout_s=1_000)
    async with open_node(log, limits=limits) as node:
        node.journal.page_max_frames = 50
        client = await node.follow(TOPIC, transport=_reading_slowly())
        await trio.sleep(1)
        log.floor_seq = 300
        await trio.sleep(1)
        for _ in range(40):  # 4 KiB a second: more than all of it
            client.read()
            await trio.sleep(1)
        stale = client.take(StaleCursor)
        assert (stale.reason, stale.floor_seq, stale.head_seq) == (StaleReason.RETENTION_EXPIRED, 300, 400)
        assert stale.floor_chain == log.chains[299]
        seqs = [frame.seq for message in client.take_all(FramesMessage) for frame in message.frames]
        assert seqs == up_to(len(seqs))
        assert len(seqs) < 299
        assert client.close_code is None


async def test_pages_in_hand_outlive_the_floor(autojump_clock: MockClock) -> None:
    """What was read before the floor passed is still sent; then the client is told, without a gap."""
    log = log_of(TOPIC, 300, payload=bytes(2_000))
    limits = NodeLimits(window_max_frames=10, write_stall_timeout_s=1_000)
    async with open_node(log, limits=limits) as node:
        node.journal.page_max_frames = 100
        client = await node.follow(TOPIC, transport=_reading_slowly())
        log.floor_seq = 290
        await trio.sleep(CHECKED_S)
        assert client.take_all(StaleCursor) == []
        for _ in range(200):
            client.read()
            await node.settle()
        assert client.take(StaleCursor).floor_seq == 290
        seqs = [frame.seq for message in client.take_all(FramesMessage) for frame in message.frames]
        assert seqs == up_to(200)


@pytest.mark.parametrize(("floor", "is_stale"), [(11, False), (12, False), (13, True), (14, True)])
async def test_the_floor_and_a_stalled_subscriber(
    autojump_clock: MockClock, floor: int, is_stale: bool
) -> None:
    """INV-5: at position 11 floor 12 still serves it, floor 13 does not; the position check says so."""
    log = log_of(TOPIC, 10)
    limits = NodeLimits(window_max_frames=1, write_stall_timeout_s=1_000)
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        client.read()
        transport.stall()
        for _ in range(5):
            await node.commit(log)
        assert client.connection.subscriptions[TOPIC.name].position == 11  # it is in the remainder
        log.floor_seq = floor
        await trio.sleep(CHECKED_S)
        assert (TOPIC.name in client.connection.subscriptions) is not is_stale
        transport.resume()
        await trio.sleep(CHECKED_S)
        assert len(client.take_all(StaleCursor)) == int(is_stale)
        frames = [frame.seq for message in client.take_all(FramesMessage) for frame in message.frames]
        assert frames == up_to(11 if is_stale else 15)


async def test_the_window_serves_below_the_floor(autojump_clock: MockClock) -> None:
    """A running subscription that the window covers goes on, though retention has passed it."""
    log = log_of(TOPIC, 10)
    async with open_node(log, limits=NodeLimits(write_stall_timeout_s=1_000)) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        transport.stall()
        await node.commit(log, 10)
        await node.commit(log, 10)
        log.floor_seq = 25
        await trio.sleep(1)
        transport.resume()
        await trio.sleep(1)
        assert client.seqs(TOPIC) == up_to(30)


async def test_an_idle_subscriber_is_not_ended_by_retention(autojump_clock: MockClock) -> None:
    """Everything was pruned: a client at the head has missed nothing."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.floor_seq = 11
        await trio.sleep(2)
        assert client.take_all(StaleCursor) == []
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(11)


async def test_retention_passes_a_topic_that_nobody_heard_of(autojump_clock: MockClock) -> None:
    """Frames were written and pruned while the node was deaf: stale, then it goes on from the head."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(10)
        log.floor_seq = 16
        await trio.sleep(0.6)
        assert client.take(StaleCursor).floor_seq == 16
        client.subscribe(TOPIC, start=SubscribeFrom.EARLIEST)
        await node.settle()
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(21, after=15)


# -- rights -------------------------------------------------------------------------------------------


async def test_a_right_lost_on_the_head_row_ends_the_subscription(autojump_clock: MockClock) -> None:
    """A transferred run: the old owner is unsubscribed within a position check, others stay."""
    log = log_of(TOPIC, 3)
    async with open_node(log, log_of(OTHER_TOPIC, 1)) as node:
        owner = await node.follow(TOPIC, OTHER_TOPIC)
        member = await node.connect(TOPIC, claims=claims_for(TOPIC, basis=GrantBasis.ORG_MEMBER))
        member.subscribe(TOPIC)
        await node.settle()
        log.rights = HeadRights(OTHER_USER, log.rights.org_id)
        await trio.sleep(CHECKED_S)
        ended = owner.take(Unsubscribed)
        assert (ended.topic, ended.reason) == (TOPIC.name, UnsubscribedReason.FORBIDDEN)
        await node.commit(log)
        assert _ended(owner)
        assert owner.seqs(OTHER_TOPIC) == [1]
        assert member.seqs(TOPIC) == up_to(4)


async def test_a_run_that_vanishes_is_forbidden(autojump_clock: MockClock) -> None:
    """No head row any more: it looks like a run that never existed, and a subscribe says the same."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        del node.journal.logs[TOPIC.name]
        await trio.sleep(CHECKED_S)
        client.subscribe(TOPIC)
        await node.settle()
        assert client.take(ErrorMessage).code == "forbidden"
        assert TOPIC.name not in client.transcript.topics


# -- crashes -------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _CrashingRanges(RangeCache):
    """Fails while armed, for one topic."""

    crashes_left: int = 0

    def put(self, key: RangeKey, framed: bytes) -> None:
        """Fail or put."""
        if self.crashes_left and key.topic == TOPIC.name:
            self.crashes_left -= 1
            raise ZeroDivisionError
        super().put(key, framed)


async def test_a_crash_inside_a_topic_is_contained(autojump_clock: MockClock) -> None:
    """INV-9: one topic's task crashes: logged, counted, resumed 0.1 s later; no other topic notices."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    ranges = _CrashingRanges(1_000_000)
    async with open_node(log, other, ranges=ranges, may_crash=True) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        ranges.crashes_left = 1
        await node.commit(log)
        await node.commit(other)
        assert client.seqs(OTHER_TOPIC) == up_to(4)
        assert client.seqs(TOPIC) == up_to(3)
        assert [type(crash) for crash in node.crash_log.crashes] == [ZeroDivisionError]
        assert node.counters.task_restarts["topic"] == 1
        log.append(1)  # unheard of while the task was down
        await trio.sleep(0.11)
        assert client.seqs(TOPIC) == up_to(5)
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(6)


async def test_crashes_back_off(autojump_clock: MockClock) -> None:
    """A topic that crashes again and again is restarted after 0.1, 0.2, 0.4 ... s, not in a hot loop."""
    log = log_of(TOPIC, 3)
    ranges = _CrashingRanges(1_000_000)
    async with open_node(log, ranges=ranges, may_crash=True) as node:
        client = await node.follow(TOPIC)
        ranges.crashes_left = 3
        await node.commit(log)
        for until, crashes in ((0.05, 1), (0.25, 2), (0.35, 3)):
            await trio.sleep(until - trio.current_time())
            assert len(node.crash_log.crashes) == crashes
        await trio.sleep(0.71 - trio.current_time())
        assert len(node.crash_log.crashes) == 3
        assert client.seqs(TOPIC) == up_to(4)
        # After a stable period the first delay counts again.
        await trio.sleep(11)
        ranges.crashes_left = 1
        await node.commit(log)
        await trio.sleep(0.11)
        assert client.seqs(TOPIC) == up_to(5)
