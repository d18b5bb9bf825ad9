"""INV-9: what a bug in one place costs, and what it does not. Every kind of crash, and who goes on."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fanout_drivers.memory import MemorySubscriber
from khala.core.limits import NodeLimits
from khala.core.protocol import ConnectionProtocol
from khala_contracts import codec
from khala_contracts.codec import CursorStart, EntryTemplate, ErrorMessage, StaleCursor
from khala_service import failpoints
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, run_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from fanout_drivers.base import Delivery
    from khala.core.pages import Page
    from khala_contracts.topics import TopicName
    from tests.actors.khala.node_under_test import NodeUnderTest
    from tests.topic_log import TopicLog

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


def up_to(seq: int, *, after: int = 0) -> list[int]:
    """Seqs ``after + 1 .. seq``."""
    return list(range(after + 1, seq + 1))


@pytest.fixture(autouse=True)
def _no_points_stay_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


# -- one topic ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["node.topic", "node.after_append"])
async def test_a_crash_in_a_topic(autojump_clock: MockClock, point: str) -> None:
    """One topic's task crashes: the others miss nothing, it goes on without a gap, one crash is counted."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other, may_crash=True) as node:
        both = await node.follow(TOPIC, OTHER_TOPIC)
        clients = [both, await node.follow(TOPIC), await node.follow(TOPIC, is_text=True)]
        failpoints.arm(f"{point}=raise")
        await node.commit(log)
        assert node.crash_log.named == [("topic", TOPIC.name)]
        for number in range(4, 10):
            await node.commit(other)
            await node.commit(log)
            assert both.seqs(OTHER_TOPIC) == up_to(number)
        await trio.sleep(2)
        assert all(client.seqs(TOPIC) == up_to(10) for client in clients)
        assert node.counters.task_restarts == {"topic": 1}


async def test_a_crash_in_a_topic_while_the_journal_is_away(autojump_clock: MockClock) -> None:
    """The restarted topic waits for the journal like any other; it neither loses nor repeats a frame."""
    log = log_of(TOPIC, 3)
    async with open_node(log, may_crash=True) as node:
        client = await node.follow(TOPIC)
        failpoints.arm("node.after_append=raise")
        await node.commit(log, 2)
        node.journal.is_down = True
        await trio.sleep(5)
        client.peer.ping()
        node.journal.is_down = False
        await node.commit(log)
        await trio.sleep(2)
        assert client.seqs(TOPIC) == up_to(6)


# -- one connection ----------------------------------------------------------------------------------------


async def test_a_crash_in_a_command(autojump_clock: MockClock) -> None:
    """Its client is told ``internal`` and closed with 4006; nobody else notices."""
    log = log_of(TOPIC, 3)
    async with open_node(log, may_crash=True) as node:
        other = await node.follow(TOPIC)
        doomed = await node.connect(TOPIC)
        failpoints.arm("node.connection=raise")
        doomed.subscribe(TOPIC)
        await node.settle()
        error = doomed.take(ErrorMessage)
        assert (error.code, error.topic, doomed.close_code) == ("internal", "", 4006)
        assert not doomed.is_served
        assert node.crash_log.named == [("connection", doomed.connection.connection_id)]
        await node.commit(log)
        assert other.seqs(TOPIC) == up_to(4)
        assert node.counters.task_restarts == {"connection": 1}
        again = await node.follow(TOPIC)
        assert again.seqs(TOPIC) == up_to(4)


async def test_a_crash_in_the_reader(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that our decoding stumbles over is our bug: ``internal``, not a verdict about the client."""
    async with open_node(log_of(TOPIC, 1), may_crash=True) as node:
        other, doomed = await node.follow(TOPIC), await node.connect(TOPIC)
        monkeypatch.setattr(ConnectionProtocol, "receive_untrusted", lambda _self, _data, _now: 1 / 0)
        doomed.subscribe(TOPIC)
        await node.settle()
        assert (doomed.take(ErrorMessage).code, doomed.close_code) == ("internal", 4006)
        assert other.close_code is None
        assert node.counters.task_restarts == {"connection": 1}


@attrs.define(eq=False)
class _Crashing(SimulatedTransport):
    """A socket with a bug in its adapter, once armed."""

    is_armed: bool = False

    def try_send(self, data: bytes | memoryview) -> int:
        """Fail or send."""
        if self.is_armed:
            raise ZeroDivisionError
        return super().try_send(data)


@pytest.mark.parametrize("way", ["direct", "pump", "text"])
async def test_a_crash_in_a_send_of_a_fan_out(autojump_clock: MockClock, way: str) -> None:
    """A connection that crashes while its topic sends to it: dropped; topic and other subscribers unharmed."""
    log = log_of(TOPIC, 3)
    async with open_node(log, may_crash=True) as node:
        transport = _Crashing()
        before = await node.follow(TOPIC)
        doomed = await node.follow(TOPIC, transport=transport, is_text=way == "text")
        after = await node.follow(TOPIC)
        if way == "pump":
            transport.stall()
            await node.commit(log)
            transport.is_armed = True
            transport.resume()
            await node.settle()
        else:
            transport.is_armed = True
            await node.commit(log)
        assert transport.is_aborted
        assert not doomed.is_served
        await node.commit(log)
        assert before.seqs(TOPIC) == after.seqs(TOPIC) == up_to(5)
        assert node.crash_log.named == [("connection", doomed.connection.connection_id)]
        assert node.counters.task_restarts == {"connection": 1}
        assert node.counters.closes == {"internal": 1}


async def test_a_crash_when_a_subscription_ends(autojump_clock: MockClock) -> None:
    """The position check that ends a subscription is not hit by what its connection stumbles over."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other, may_crash=True) as node:
        transport = _Crashing()
        await node.follow(TOPIC, transport=transport)
        client = await node.follow(TOPIC, OTHER_TOPIC)
        transport.is_armed = True
        node.journal.restore(log, 2)
        other.append(1)
        await trio.sleep(0.53)
        assert len(client.take_all(StaleCursor)) == 1
        assert client.seqs(OTHER_TOPIC) == up_to(4)
        assert [kind for kind, _ in node.crash_log.named] == ["connection"]


async def test_a_crash_in_the_sweep_of_one_connection(autojump_clock: MockClock) -> None:
    """One connection's deadlines cannot be looked at: it is dropped, the others are swept in time."""
    async with open_node(log_of(TOPIC, 1), may_crash=True) as node:
        transport = _Crashing()
        await node.connect(TOPIC, transport=transport)
        silent = [await node.connect(TOPIC) for _ in range(3)]
        transport.is_armed = True
        await trio.sleep(46)
        assert [client.close_code for client in silent] == [4002] * 3
        assert transport.is_aborted
        assert node.counters.task_restarts == {"connection": 1}


async def test_half_a_frame(autojump_clock: MockClock) -> None:
    """node.mid_frame: the kernel has a part of a frame; passing the point changes no byte, failing drops one client."""
    log = log_of(TOPIC, 3)
    async with open_node(log, may_crash=True) as node:
        clients = [await node.follow(TOPIC, is_text=is_text) for is_text in (False, True)]
        failpoints.arm("node.mid_frame=raise@4")
        await node.commit(log)
        await node.commit(log, 200, payload=bytes(1_000))
        survivors = [client for client in clients if client.is_served]
        assert len(survivors) == 1
        (doomed,) = [client for client in clients if not client.is_served]
        doomed.read()
        assert doomed.transcript.has_partial_frame
        assert survivors[0].seqs(TOPIC) == up_to(204)
        assert failpoints.hits()["node.mid_frame"] >= 4


async def test_half_a_page(autojump_clock: MockClock) -> None:
    """node.mid_page: a page of a replay has been sent in part; live subscribers notice nothing."""
    log = log_of(TOPIC, 300, payload=bytes(1_000))
    async with open_node(log, may_crash=True) as node:
        live = await node.connect(TOPIC)
        live.subscribe(TOPIC, start=CursorStart(300, LINEAGE))
        await node.settle()
        failpoints.arm("node.mid_page=raise@2")
        doomed = await node.follow(TOPIC)
        await node.commit(log)
        assert not doomed.is_served
        assert 0 < len(doomed.seqs(TOPIC)) < 300
        assert live.seqs(TOPIC) == [301]
        assert node.counters.task_restarts == {"connection": 1}
        again = await node.follow(TOPIC)
        assert again.seqs(TOPIC) == up_to(301)


# -- pages ---------------------------------------------------------------------------------------------------


class _BrokenReads:
    """Reads of the journal that fail by a bug: for one topic, so many times."""

    def __init__(self, node: NodeUnderTest, times: int) -> None:
        self.times = times
        self._read_page = node.reads.read_page
        node.reads.read_page = self._fail_or_read  # type: ignore[method-assign]

    async def _fail_or_read(self, topic: TopicName, after_seq: int, *, is_heal: bool) -> Page:
        if topic == TOPIC.name and self.times:
            self.times -= 1
            raise ZeroDivisionError
        return await self._read_page(topic, after_seq, is_heal=is_heal)


@pytest.mark.parametrize("times", [3, 4])
async def test_a_crash_in_a_page_read(autojump_clock: MockClock, times: int) -> None:
    """A read that crashes is repeated three times; the fourth crash ends who waits with ``unavailable``."""
    log, other = log_of(TOPIC, 10), log_of(OTHER_TOPIC, 10)
    async with open_node(log, other, may_crash=True) as node:
        _BrokenReads(node, times)
        client = await node.follow(TOPIC, OTHER_TOPIC)
        assert client.seqs(OTHER_TOPIC) == up_to(10)
        await trio.sleep(3)
        assert node.counters.task_restarts == {"page_read": times}
        errors = client.take_all(ErrorMessage)
        if times == 3:
            assert errors == []
            assert client.seqs(TOPIC) == up_to(10)
        else:
            assert [(e.code, e.topic, e.retry_after_ms > 0) for e in errors] == [
                ("unavailable", TOPIC.name, True)
            ]
            client.subscribe(TOPIC)
            await node.settle()
            assert client.seqs(TOPIC) == up_to(10)
        await node.commit(other)
        assert client.seqs(OTHER_TOPIC) == up_to(11)


async def test_a_crash_when_a_page_is_handed_over(autojump_clock: MockClock) -> None:
    """One subscription cannot take its page: it ends with ``internal``, whoever waits beside it gets it."""
    log = log_of(TOPIC, 10)
    async with open_node(log, may_crash=True) as node:
        node.journal.hold("read_page")
        doomed, other = await node.follow(TOPIC), await node.follow(TOPIC)
        topic = node.registry._topics[TOPIC.name]
        judge, poisoned = topic._judge_page, doomed.connection.subscriptions[TOPIC.name]
        topic._judge_page = lambda sub, page: 1 / 0 if sub is poisoned else judge(sub, page)  # type: ignore[method-assign,assignment,return-value]
        node.journal.open_gate("read_page")
        await node.settle()
        assert doomed.take(ErrorMessage).code == "internal"
        assert other.seqs(TOPIC) == up_to(10)
        assert node.crash_log.named == [("page_read", TOPIC.name)]


# -- the tasks that serve all topics ------------------------------------------------------------------------


async def test_a_crash_at_one_record(autojump_clock: MockClock) -> None:
    """A record that our own check stumbles over is left out and read from the journal; others do not wait."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other, may_crash=True) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        verifier = node.registry._verifier
        opened = verifier.open_untrusted

        class Broken:
            """Stumbles over the records of one topic."""

            def open_untrusted(self, data: bytes) -> object:
                record = opened(data)
                return 1 / 0 if record.topic == TOPIC.name else record

        node.registry._verifier = Broken()  # type: ignore[assignment]
        await node.commit(log)
        await node.commit(other)
        assert trio.current_time() == 0
        assert client.seqs(OTHER_TOPIC) == up_to(4)
        assert client.seqs(TOPIC) == up_to(4)
        assert node.crash_log.named == [("record", TOPIC.name)]


@attrs.define(eq=False)
class _CrashesOnce(MemorySubscriber):
    """A driver's end that loses one delivery to a bug."""

    has_crashed: bool = False

    async def receive(self) -> Delivery:
        """Take a delivery; lose the first."""
        delivery = await super().receive()
        if not self.has_crashed:
            self.has_crashed = True
            raise ZeroDivisionError
        return delivery


@attrs.define(eq=False)
class _CannotLeave(MemorySubscriber):
    """A driver's end that cannot leave one topic."""

    async def unsubscribe(self, topic: TopicName) -> None:
        """Leave, or fail."""
        if topic == TOPIC.name:
            raise ZeroDivisionError
        await super().unsubscribe(topic)


async def test_a_crash_of_the_pump(autojump_clock: MockClock) -> None:
    """A driver that raises costs a moment: the pump starts again, and what it lost is looked for at once."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=NodeLimits(position_check_interval_s=1_000), may_crash=True) as node:
        client = await node.follow(TOPIC)
        (subscriber,) = node.driver._subscribers
        node.registry._subscriber = _CrashesOnce(subscriber.queue)
        await node.commit(log)  # taken by the receive that was waiting before
        await node.commit(log)  # lost in the crash
        assert client.seqs(TOPIC) == up_to(4)
        await trio.sleep(0.11)
        assert client.seqs(TOPIC) == up_to(5)
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(6)
        assert node.crash_log.named == [("pump", "pump")]


async def test_a_crash_when_a_topic_stops(autojump_clock: MockClock) -> None:
    """A driver that cannot leave one topic does not keep the others alive."""
    logs = [log_of(run_topic(number), 1) for number in range(1, 4)]
    async with open_node(*logs, may_crash=True) as node:
        client = await node.follow(*(log.topic for log in logs))
        (subscriber,) = node.driver._subscribers
        node.registry._subscriber = _CannotLeave(subscriber.queue)
        client.peer.leave()
        await trio.sleep(33)
        assert len(node.registry) == 0
        assert node.crash_log.named == [("linger", TOPIC.name)]


async def test_crashes_of_a_task_back_off(autojump_clock: MockClock) -> None:
    """0.1, 0.2, 0.4 ... 10 s between two lives; a life longer than that begins with 0.1 s again."""
    async with open_node(may_crash=True) as node:
        lives: list[float] = []

        async def crash() -> None:
            lives.append(round(trio.current_time(), 1))
            if len(lives) == 10:
                await trio.sleep(10.1)
            raise ZeroDivisionError

        node.nursery.start_soon(node.supervisor.run_restarted, "x", "x", crash)
        await trio.sleep(70)
        gaps = [round(b - a, 1) for a, b in pairwise(lives)]
        assert gaps[:10] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.2]


# -- rows that cannot be read ---------------------------------------------------------------------------------


def _spoil(log: TopicLog, seq: int, how: str) -> None:
    """Put something else in the place of a stored entry."""
    template = EntryTemplate(log.topic.name)
    log.entries[seq - 1] = {
        "garbage": b"\xff\xff\xff",
        "other_seq": template.entry(seq + 7, "thought", b"x", 1),
        "other_topic": EntryTemplate(OTHER_TOPIC.name).entry(seq, "thought", b"x", 1),
        "not_utf8": log.entries[seq - 1].replace(b"thought", b"though\xff"),
        "two": log.entries[seq - 1] * 2,
    }[how]


@pytest.mark.parametrize("how", ["garbage", "other_seq", "other_topic", "not_utf8", "two"])
@pytest.mark.parametrize("is_text", [False, True])
async def test_a_poison_row_in_a_replay(autojump_clock: MockClock, how: str, is_text: bool) -> None:
    """The replay is served up to the row that is not its frame, and ends there with ``internal``; others go on."""
    log, other = log_of(TOPIC, 100), log_of(OTHER_TOPIC, 100)
    async with open_node(log, other, may_crash=True) as node:
        live = await node.connect(TOPIC)
        live.subscribe(TOPIC, start=CursorStart(100, LINEAGE))
        await node.settle()
        _spoil(log, 61, how)
        client = await node.follow(TOPIC, OTHER_TOPIC, is_text=is_text)
        error = client.take(ErrorMessage)
        assert (error.code, error.topic, error.retryable) == ("internal", TOPIC.name, True)
        assert error.retry_after_ms == 5_000
        assert client.seqs(OTHER_TOPIC) == up_to(100)
        assert node.counters.rows_unreadable >= 1
        assert {kind for kind, _ in node.crash_log.named} == {"page_read"}
        # Behind the row everything is as ever, and the connection stays.
        await node.commit(log)
        await node.commit(other)
        assert live.seqs(TOPIC) == [101]
        assert client.seqs(OTHER_TOPIC) == up_to(101)
        client.subscribe(TOPIC, start=CursorStart(61, LINEAGE))
        await node.settle()
        assert client.seqs(TOPIC) == up_to(101, after=61)


@pytest.mark.parametrize("is_text", [False, True])
async def test_what_stands_before_a_poison_row_is_sent(autojump_clock: MockClock, is_text: bool) -> None:
    """Every frame before the row reaches the client: its cursor stands right before it."""
    log = log_of(TOPIC, 100)
    async with open_node(log, may_crash=True) as node:
        _spoil(log, 61, "garbage")
        client = await node.follow(TOPIC, is_text=is_text)
        frames = [f.seq for m in client.take_all(codec.FramesMessage) for f in m.frames]
        assert frames == up_to(60)
        assert client.take(ErrorMessage).code == "internal"


async def test_a_poison_row_in_a_heal(autojump_clock: MockClock) -> None:
    """A lost record whose row is broken: who needs it is ended, and the topic goes on behind it."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other, may_crash=True) as node:
        clients = [await node.follow(TOPIC, OTHER_TOPIC) for _ in range(2)]
        log.append(5)  # 4 .. 8 are lost
        _spoil(log, 6, "garbage")
        await trio.sleep(0.6)
        for client in clients:
            assert [f.seq for m in client.take_all(codec.FramesMessage) for f in m.frames if f.topic == TOPIC.name] == up_to(5)  # fmt: skip
            assert client.take(ErrorMessage).topic == TOPIC.name
        await node.commit(other)
        behind = await node.connect(TOPIC)
        behind.subscribe(TOPIC, start=CursorStart(6, LINEAGE))
        await node.settle()
        await node.commit(log)
        assert behind.seqs(TOPIC) == [7, 8, 9]
        assert clients[0].seqs(OTHER_TOPIC) == up_to(4)
        assert node.counters.task_restarts["topic"] == 0


async def test_a_record_that_json_cannot_say(autojump_clock: MockClock) -> None:
    """Sealed bytes are sent to binary clients unread; a JSON client of them is ended, with nobody else."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other, may_crash=True) as node:
        text = await node.follow(TOPIC, OTHER_TOPIC, is_text=True)
        record = log.append(1)
        sound = log.entries[3]
        _spoil(log, 4, "not_utf8")
        await node.publish(attrs.evolve(record, entries=(log.entries[3],)))
        error = text.take(ErrorMessage)
        assert (error.code, error.topic) == ("internal", TOPIC.name)
        assert node.crash_log.named == [("frame", TOPIC.name)]
        assert node.counters.rows_unreadable == 1
        log.entries[3] = sound
        await node.commit(other)
        assert text.seqs(OTHER_TOPIC) == up_to(4)
        assert text.close_code is None
