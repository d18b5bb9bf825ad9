"""What a node remembers of its deliveries, told for single frames, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala.actors.explainer import explain_frame
from khala.core.explanation import Arrival, Delivery, Path
from khala.core.limits import NodeLimits
from khala.core.seq_times import Passed
from khala_contracts.codec import CursorStart, SubscribeFrom
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, OTHER_LINEAGE, USER, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala.core.explanation import NodeExplanation, SubscriptionFacts
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC = run_topic(1)
LIMITS = NodeLimits(dead_after_s=10_000)


def told(node: NodeUnderTest, seq: int) -> NodeExplanation:
    """Ask about a frame of the topic."""
    return explain_frame(node.registry, TOPIC.name, seq)


def fate(node: NodeUnderTest, seq: int, client: ClientUnderTest) -> SubscriptionFacts:
    """What became of a frame on the client's newest subscription."""
    of_client = [
        facts
        for facts in told(node, seq).subscriptions
        if facts.note.connection_id == client.connection.connection_id
    ]
    return of_client[-1]


async def test_a_live_frame(autojump_clock: MockClock) -> None:
    """Announced, appended, fanned out, sent: at the times at which it happened."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        client = await node.follow(TOPIC)
        # Between two position checks.
        await trio.sleep(10.1)
        await node.commit(log, 2)
        await trio.sleep(10)
        topic = told(node, 5).topic
        now = Passed(10.1, 10.1)
        assert (topic.arrival, topic.is_live, topic.is_healed) == (Arrival.APPENDED, True, False)
        assert (topic.announced, topic.appended, topic.fanned_out, topic.checked) == (now, now, now, None)
        facts = fate(node, 5, client)
        assert (facts.delivery, facts.path, facts.passed) == (Delivery.SENT, Path.DIRECT, now)
        assert facts.note.user_id == USER


async def test_a_replayed_frame(autojump_clock: MockClock) -> None:
    """Older than the topic's life on this node: read for whoever asks, and sent in its turn."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        await trio.sleep(5)
        client = await node.follow(TOPIC)
        topic = told(node, 2).topic
        assert (topic.arrival, topic.opened_at, topic.opened_head_seq) == (Arrival.BEFORE, 5.0, 3)
        facts = fate(node, 2, client)
        assert (facts.delivery, facts.path, facts.passed) == (Delivery.SENT, Path.IN_TURN, Passed(5.0, 5.0))
        await node.commit(log)
        assert told(node, 2).topic.fanned_out is None
        assert told(node, 4).topic.fanned_out == Passed(5.0, 5.0)


async def test_a_healed_frame(autojump_clock: MockClock) -> None:
    """No record: the position check saw it, and the read 20 ms later brought it."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        client = await node.follow(TOPIC)
        log.append(1)
        await trio.sleep(2)
        topic = told(node, 4).topic
        assert (topic.arrival, topic.is_healed, topic.announced) == (Arrival.APPENDED, True, None)
        assert topic.checked == Passed(0.5, 0.5)
        assert topic.appended == Passed(0.52, 0.52)
        assert fate(node, 4, client).delivery is Delivery.SENT


async def test_a_hint_without_a_copy(autojump_clock: MockClock) -> None:
    """Announced, and read from the journal all the same."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        await node.follow(TOPIC)
        log.append(1)
        await node.publish(log.hint(4, 4))
        await trio.sleep(0.1)
        topic = told(node, 4).topic
        assert (topic.announced, topic.is_healed) == (Passed(0.0, 0.0), True)


async def test_a_frame_that_is_not_here(autojump_clock: MockClock) -> None:
    """Above the head; on a topic that nobody follows; after everybody has left."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        assert told(node, 1).topic.arrival is Arrival.NOT_FOLLOWED
        client = await node.follow(TOPIC)
        assert told(node, 4).topic.arrival is Arrival.AWAITED
        assert fate(node, 4, client).delivery is Delivery.AWAITED
        client.unsubscribe(TOPIC)
        await trio.sleep(40)
        assert node.registry.find(TOPIC.name) is None
        assert told(node, 4).topic.arrival is Arrival.NOT_FOLLOWED
        # What was done while it was live is remembered.
        assert told(node, 3).topic.arrival is Arrival.BEFORE
        assert fate(node, 3, client).delivery is Delivery.SENT


async def test_a_client_that_is_behind(autojump_clock: MockClock) -> None:
    """Handed over in part, and not begun: told apart by what the kernel has taken."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=LIMITS) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        client.read()
        transport.buffer_bytes = 2_500
        await node.commit(log, 5, payload=bytes(1_000))
        await node.commit(log, 5, payload=bytes(1_000))
        states = [fate(node, seq, client).delivery for seq in (1, 2, 3, 5, 6, 10)]
        sent, begun, behind = Delivery.SENT, Delivery.HANDED_OVER, Delivery.BEHIND
        assert states == [sent, sent, begun, begun, behind, behind]
        assert fate(node, 3, client).path is Path.DIRECT
        standing = fate(node, 6, client).standing
        assert standing is not None
        assert (standing.position, standing.backlogged_since) == (5, 0.0)


async def test_a_wait_for_the_journal(autojump_clock: MockClock) -> None:
    """Neither the client's fault nor a gap: the page has not come."""
    log = log_of(TOPIC, 10)
    async with open_node(log, limits=LIMITS) as node:
        node.journal.hold("read_page")
        client = await node.follow(TOPIC)
        assert fate(node, 5, client).delivery is Delivery.AWAITS_JOURNAL
        node.journal.open_gate("read_page")


async def test_subscriptions_that_ended(autojump_clock: MockClock) -> None:
    """Each ending is remembered with its reason, its time and the position."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        leaver, gone, restarter = [await node.follow(TOPIC) for _ in range(3)]
        await trio.sleep(5)
        leaver.unsubscribe(TOPIC)
        gone.transport.reset()
        restarter.subscribe(TOPIC, start=SubscribeFrom.NOW)
        await trio.sleep(1)
        await node.commit(log)
        # A reset is noticed when something is sent.
        for client, because, ended_at in ((leaver, "asked", 5.0), (gone, "disconnected", 6.0)):
            facts = fate(node, 4, client)
            assert (facts.delivery, facts.note.ended_because) == (Delivery.ENDED, because)
            assert (facts.note.position, facts.note.ended_at) == (3, ended_at)
        assert fate(node, 4, gone).note.closed_with == "1006"
        assert fate(node, 4, restarter).delivery is Delivery.SENT
        assert fate(node, 3, restarter).delivery is Delivery.NOT_ASKED
        of_restarter = [
            facts.note.ended_because
            for facts in told(node, 3).subscriptions
            if facts.note.connection_id == restarter.connection.connection_id
        ]
        assert of_restarter == ["replaced", ""]


async def test_refused_subscriptions(autojump_clock: MockClock) -> None:
    """Stale with what was observed; forbidden; without an answer of the journal."""
    log = log_of(TOPIC, 30)
    log.floor_seq = 11
    async with open_node(log, limits=LIMITS) as node:
        client = await node.connect(TOPIC)
        client.subscribe(TOPIC, start=CursorStart(5, LINEAGE, b""))
        await node.settle()
        stale = fate(node, 20, client)
        assert stale.delivery is Delivery.REFUSED
        assert stale.note.ended_because == "stale_cursor.retention_expired"
        assert (stale.note.start_seq, stale.note.floor_seq, stale.note.head_seq) == (5, 11, 30)
        node.journal.is_down = True
        client.subscribe(TOPIC)
        await node.settle()
        assert fate(node, 20, client).note.ended_because == "unavailable"
        stranger = await node.connect()
        stranger.subscribe(TOPIC)
        await node.settle()
        assert fate(node, 20, stranger).note.ended_because == "forbidden"


async def test_another_history(autojump_clock: MockClock) -> None:
    """After a restore nothing is said about frames that are no more."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=LIMITS) as node:
        client = await node.follow(TOPIC)
        await node.commit(log, 5)
        node.journal.restore(log, 2, lineage=OTHER_LINEAGE)
        await trio.sleep(1)
        topic = told(node, 7).topic
        assert (topic.arrival, topic.appended, topic.opened_head_seq) == (Arrival.AWAITED, None, 2)
        assert fate(node, 9, client).note.ended_because == "stale_cursor.lineage_mismatch"


async def test_memory_is_bounded(autojump_clock: MockClock) -> None:
    """INV-7: marks, stopped topics and subscriptions have their maxima, and keep the newest."""
    limits = attrs.evolve(
        LIMITS, trace_marks_max=8, trace_subscriptions_max=10, trace_topics_max=3, topic_linger_s=0.5
    )
    logs = [log_of(run_topic(number), 1) for number in range(1, 8)]
    async with open_node(*logs, limits=limits) as node:
        client = await node.connect(*[log.topic for log in logs])
        for log in logs:
            client.subscribe(log.topic)
            await node.settle()
            for _ in range(30):
                await node.commit(log)
                await trio.sleep(0.1)
            trace = node.registry.trace.find_topic(log.topic.name)
            assert trace is not None
            assert len(trace.appended) <= 8
            # Nothing is forgotten by that: bounds are wider.
            assert all(trace.appended.find(seq) is not None for seq in range(2, 32))
            client.unsubscribe(log.topic)
            await trio.sleep(2)
        trace_of_node = node.registry.trace
        remembered = [log.topic for log in logs if trace_of_node.find_topic(log.topic.name) is not None]
        assert remembered == [log.topic for log in logs[-3:]]
        for _ in range(20):
            client.subscribe(TOPIC, start=SubscribeFrom.NOW)
            client.unsubscribe(TOPIC)
        await node.settle()
        assert len(list(trace_of_node.find_subscriptions(TOPIC.name))) == 10
