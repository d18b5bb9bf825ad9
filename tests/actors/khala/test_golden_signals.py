"""OBS-01, OBS-02, KH-28: what happens moves exactly the metrics that stand for it, at /metrics itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.actors.observer import OBSERVE_EVERY_S, DeliveryObserver
from khala.adapters import metrics
from khala.adapters.metrics import NodeCollector
from khala.core.counters import (
    APP_VERSIONS_MAX,
    ClassCounters,
    ClassDelivery,
    DeliveryState,
    NodeCounters,
    VersionCounters,
)
from khala_contracts.codec import CursorStart
from khala_contracts.topics import parse_topic
from khala_service.metrics import MetricsRegistry
from tests.actors.khala.node_under_test import NodeUnderTest, hello_with, open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, TopicLog, claims_for, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.actors.khala.node_under_test import ClientUnderTest

RUN = {"topic_class": "run_events"}
TEST_VERSION = {"app_version": "test"}


@attrs.define
class Scrape:
    """Reads a node's metrics, and what they have moved by since the last look."""

    registry: MetricsRegistry
    before: dict[str, float] = attrs.field(factory=dict)

    @classmethod
    def of(cls, node: NodeUnderTest) -> Scrape:
        """Show the counters of a node as its admin port does."""
        registry = MetricsRegistry("node", process_metrics=False)
        registry.register(NodeCollector(node.counters, {}))
        return cls(registry)

    def value(self, name: str, **labels: str) -> float:
        """Return one series, which must exist."""
        value = self.registry.sample(f"khala_node_{name}", labels)
        assert value is not None, (name, labels)
        return value

    def series(self) -> dict[str, float]:
        """Return every series that a scrape shows, by name and labels."""
        lines = [line for line in self.registry.render().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def moved(self, *names: str) -> dict[str, float]:
        """Return how far the series of these names have moved since this was last asked, if they have."""
        now = self.series()
        changes = {name: value - self.before.get(name, 0.0) for name, value in now.items()}
        self.before = now
        return {
            name.removeprefix("khala_node_"): change
            for name, change in changes.items()
            if change and name.removeprefix("khala_node_").partition("{")[0] in names
        }


def observer_of(node: NodeUnderTest) -> DeliveryObserver:
    """Return the observer of a node, to be asked for a look."""
    return DeliveryObserver(
        node.connections, counters=node.counters, read_pages_bytes=lambda: node.pages.held_bytes
    )


async def leave(node: NodeUnderTest, *clients: ClientUnderTest) -> None:
    """Let clients close."""
    for client in clients:
        client.peer.leave(1001)
    await node.settle()


SIGNALS = (
    "clients_open", "welcomes_total", "reconnects_total", "joins_total", "stale_cursors_total",
    "replay_duration_seconds_count", "subscriptions_open", "closes_total",
)  # fmt: skip


async def test_fifty_connects_ten_reconnects_three_stale(autojump_clock: MockClock) -> None:
    """OBS-01: each golden signal moves by exactly what happened, and by nothing else."""
    log = TopicLog(run_topic())
    log.append(10)
    async with open_node(log) as node:
        scrape = Scrape.of(node)
        scrape.moved()
        clients = [await node.follow(log.topic) for _ in range(50)]
        assert scrape.moved(*SIGNALS) == {
            'welcomes_total{app_version="test"}': 50,
            'clients_open{app_version="test"}': 50,
            'joins_total{topic_class="run_events"}': 50,
            "subscriptions_open": 50,
            'replay_duration_seconds_count{topic_class="run_events"}': 50,
        }
        await leave(node, *clients[:10])
        assert scrape.moved(*SIGNALS) == {
            'closes_total{reason="1001"}': 10,
            'clients_open{app_version="test"}': -10,
            "subscriptions_open": -10,
        }
        await node.commit(log, 5)
        log.floor_seq = 11
        for number in range(10):
            await node.follow(log.topic, start=CursorStart(9 if number < 3 else 10, LINEAGE))
        assert scrape.moved(*SIGNALS) == {
            'welcomes_total{app_version="test"}': 10,
            'clients_open{app_version="test"}': 10,
            'reconnects_total{app_version="test"}': 10,
            'stale_cursors_total{reason="retention_expired",topic_class="run_events"}': 3,
            'joins_total{topic_class="run_events"}': 7,
            "subscriptions_open": 7,
            'replay_duration_seconds_count{topic_class="run_events"}': 7,
        }


@pytest.mark.parametrize(
    ("seqs", "reconnects"), [((0,), 0), ((None,), 0), ((10,), 1), ((0, 10), 0), ((10, 0), 1), ((10, 10), 1)]
)
async def test_a_reconnect_is_a_connection_whose_first_subscribe_resumes(
    autojump_clock: MockClock, seqs: tuple[int | None, ...], reconnects: int
) -> None:
    """Once for each connection, whatever it does later; a first visit is none."""
    log = TopicLog(run_topic())
    log.append(10)
    async with open_node(log) as node:
        client = await node.connect(log.topic)
        for seq in seqs:
            client.subscribe(
                log.topic, start=None if seq is None else CursorStart(seq, LINEAGE if seq else "")
            )
            await node.settle()
        assert Scrape.of(node).value("reconnects_total", **TEST_VERSION) == reconnects


async def test_a_client_that_is_not_welcomed_is_no_client(autojump_clock: MockClock) -> None:
    """A refused hello is counted under its reason; nothing is left open."""
    log = TopicLog(run_topic())
    async with open_node(log) as node:
        scrape = Scrape.of(node)
        client = node.open_client()
        client.say(hello_with("not a token"))
        await node.settle()
        client.peer.leave(1000)
        await trio.sleep(5)
        assert scrape.moved("welcomes_total", "clients_open", "hellos_refused_total") == {
            'hellos_refused_total{reason="token_invalid"}': 1
        }


async def test_throughput_by_topic_class(autojump_clock: MockClock) -> None:
    """OBS-02: frames and bytes once for each topic, deliveries once for each range and subscriber."""
    log = TopicLog(run_topic())
    log.append(1)
    async with open_node(log) as node:
        for _ in range(3):
            await node.follow(log.topic)
        scrape = Scrape.of(node)
        scrape.moved()
        record = await node.commit(log, 4, payload=bytes(100))
        assert scrape.moved("frames_appended_total", "bytes_appended_total", "deliveries_total") == {
            'frames_appended_total{topic_class="run_events"}': 4,
            'bytes_appended_total{topic_class="run_events"}': sum(map(len, record.entries)),
            'deliveries_total{topic_class="run_events"}': 3,
        }


async def test_replay_lag_and_duration(autojump_clock: MockClock) -> None:
    """Frames, bytes and age of a replay that the socket holds up; its duration once it is over."""
    log = TopicLog(run_topic())
    log.append(1_000, payload=bytes(1_000))
    async with open_node(log) as node:
        scrape, observer = Scrape.of(node), observer_of(node)
        client = await node.follow(
            log.topic, start=CursorStart(200, LINEAGE), transport=SimulatedTransport(buffer_bytes=100_000)
        )
        await trio.sleep(3)
        await observer.look()
        left = 1_000 - next(iter(client.connection.subscriptions.values())).position
        assert 0 < left < 800
        assert scrape.value("subscriptions_replaying", **RUN) == 1
        assert scrape.value("subscriptions_by_class", **RUN) == 1
        assert scrape.value("replay_lag_frames", **RUN) == left
        assert scrape.value("replay_lag_frames_max", **RUN) == left
        exact = log.bytes_totals[-1] - log.bytes_totals[1_000 - left]
        assert scrape.value("replay_lag_bytes", **RUN) == pytest.approx(exact, rel=0.01)
        assert scrape.value("replay_age_max_seconds", **RUN) == 3
        assert scrape.value("outbound_bytes") == scrape.value("outbound_bytes_max") > 0
        assert scrape.value("connections_blocked") == 1
        assert scrape.value("write_stall_max_seconds") == 3
        assert scrape.value("pages_bytes") > 0
        while not client.is_live(log.topic):
            await node.settle()
        await observer.look()
        assert scrape.value("replay_lag_frames", **RUN) == scrape.value("subscriptions_replaying", **RUN) == 0
        assert scrape.value("outbound_bytes") == scrape.value("connections_blocked") == 0
        assert scrape.value("replay_duration_seconds_sum", **RUN) == pytest.approx(3)
        assert scrape.value("replay_duration_seconds_bucket", le="2.5", **RUN) == 0
        assert scrape.value("replay_duration_seconds_bucket", le="5.0", **RUN) == 1


async def test_one_slow_client_and_fairness(autojump_clock: MockClock) -> None:
    """OBS-02: the last of the live ones, the spread between the subscribers, and nothing dropped."""
    log = TopicLog(run_topic())
    async with open_node(log) as node:
        scrape, observer = Scrape.of(node), observer_of(node)
        slow = SimulatedTransport()
        await node.follow(log.topic, transport=slow)
        for _ in range(2):
            await node.follow(log.topic)
        slow.is_stalled = True
        await node.commit(log, 3)
        await node.commit(log, 7)
        for _ in range(2):
            await observer.look()
        # Its socket took nothing of the first three, which are its remainder: sent as far as we know.
        assert scrape.value("live_lag_frames_max", **RUN) == 7
        assert scrape.value("fairness_spread_frames", **RUN) == 7
        assert scrape.value("connections_blocked") == 1
        assert scrape.value("subscriptions_stuck") == scrape.value("frames_dropped_total", **RUN) == 0
        # It takes nothing for 10 s and is disconnected: one action, one client, and no frame was dropped.
        await trio.sleep(14)
        await observer.look()
        assert scrape.value("slow_consumer_actions_total", action="disconnect", tier="any") == 1
        assert scrape.value("closes_total", reason="slow_consumer") == 1
        assert scrape.value("live_lag_frames_max", **RUN) == scrape.value("connections_blocked") == 0
        assert scrape.value("frames_dropped_total", **RUN) == 0


async def test_disconnects_are_the_evicted_clients(autojump_clock: MockClock) -> None:
    """OBS-02: three clients take nothing and are disconnected, four stay and lack nothing."""
    log = TopicLog(run_topic())
    async with open_node(log) as node:
        scrape, observer = Scrape.of(node), observer_of(node)
        clients = [await node.follow(log.topic) for _ in range(7)]
        for client in clients[:3]:
            client.transport.is_stalled = True
        for _ in range(30):
            await node.commit(log, 2)
            await trio.sleep(1)
            await observer.look()
        evicted = [client for client in clients if not client.is_served]
        assert (
            len(evicted) == scrape.value("slow_consumer_actions_total", action="disconnect", tier="any") == 3
        )
        assert [client.seqs(log.topic) for client in clients[3:]] == [[*range(1, 61)]] * 4
        assert scrape.value("frames_dropped_total", **RUN) == scrape.value("subscriptions_stuck") == 0
        assert scrape.value("clients_open", **TEST_VERSION) == 4


async def test_a_look_at_many_subscriptions_gives_others_a_turn(autojump_clock: MockClock) -> None:
    """A few connections with many subscriptions cost as much as many with one: delivery does not wait."""
    logs = [TopicLog(run_topic(number)) for number in range(1, 65)]
    async with open_node(*logs) as node, trio.open_nursery() as nursery:
        # Twice what a turn may look at: whoever gives a turn once may be the first of it.
        for _ in range(16):
            await node.follow(*(log.topic for log in logs))
        turns = 0

        async def deliver() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(deliver)
        await observer_of(node).look()
        assert node.counters.delivery.by_class["run_events"].subscriptions == 16 * 64
        assert turns >= 1
        nursery.cancel_scope.cancel()


async def test_frames_that_nobody_sends_are_found(autojump_clock: MockClock) -> None:
    """A live subscription that stands still with nothing in its way is counted as dropped, once."""
    log = TopicLog(run_topic())
    log.append(4)
    async with open_node(log) as node:
        scrape, observer = Scrape.of(node), observer_of(node)
        client = await node.follow(log.topic)
        # What a lost wake-up leaves behind: a position below the head, and nobody who would send.
        subscription = client.connection.subscriptions[log.topic.name]
        subscription.position = 1
        await observer.look()
        assert scrape.value("subscriptions_stuck") == 0
        for _ in range(2):
            await trio.sleep(OBSERVE_EVERY_S)
            await observer.look()
            assert scrape.value("subscriptions_stuck") == 1
            assert scrape.value("frames_dropped_total", **RUN) == 3
        subscription.position = 4
        await observer.look()
        assert scrape.value("subscriptions_stuck") == 0
        assert scrape.value("frames_dropped_total", **RUN) == 3


def test_ten_thousand_topics_make_no_series() -> None:
    """KH-28: what is counted for a topic is counted under its class; names never become labels."""
    counters = NodeCounters()
    registry = MetricsRegistry("node", process_metrics=False)
    registry.register(NodeCollector(counters, {}))
    before = registry.render().count(b"\n")
    for number in range(10_000):
        counts = counters.by_class[run_topic(number).topic_class.name]
        counts.frames_appended += 1
        counts.joins += 1
        counts.stale_cursors["retention_expired"] += 1
        counts.replay_durations.observe(number / 100)
    assert registry.render().count(b"\n") == before
    assert registry.sample("khala_node_joins_total", RUN) == 10_000


@pytest.mark.parametrize("text", ["", "x" * 65, 'a"b', "a b", "ünï", "a\nb"])
def test_what_a_client_calls_itself_is_bounded(text: str) -> None:
    """KH-28: versions in bounded number and a plain form; everything else is one label."""
    counters = NodeCounters()
    assert counters.welcome(text) == "other"
    labels = [counters.welcome(f"web-{number}") for number in range(APP_VERSIONS_MAX + 10)]
    assert labels == [f"web-{number}" for number in range(APP_VERSIONS_MAX)] + ["other"] * 10
    assert counters.welcome("web-0") == "web-0"
    assert len(counters.by_version) == APP_VERSIONS_MAX + 1
    counters.leave("web-0")
    assert counters.by_version["web-0"].clients_open == 1
    assert counters.by_version["other"].welcomes == 11


@pytest.mark.parametrize(
    ("code", "label"), [(1000, "1000"), (1006, "1006"), (3000, "other"), (4999, "other")]
)
async def test_close_codes_are_bounded(autojump_clock: MockClock, code: int, label: str) -> None:
    """KH-28: a client may close with any of thousands of codes; those of the protocol have a label."""
    log = TopicLog(run_topic())
    async with open_node(log) as node:
        client = await node.follow(log.topic)
        client.peer.leave(code)
        await node.settle()
        assert Scrape.of(node).value("closes_total", reason=label) == 1


def test_every_counter_is_shown() -> None:
    """A counter that is added without a metric is seen by nobody."""
    shown = {*metrics.TOTALS, *metrics.GAUGES, *metrics.LABELLED, "task_restarts"} | {
        "slow_consumer_actions",
        "slow_topic_actions",
        "eviction_delays",
        "replay_budget_used",
        "limit_violations",
    }
    nested = {"by_class", "by_version", "delivery"}
    assert {field.name for field in attrs.fields(NodeCounters)} == shown | nested
    of_class = {*metrics.BY_CLASS, "stale_cursors", "replay_durations"}
    assert {field.name for field in attrs.fields(ClassCounters)} == of_class
    assert {field.name for field in attrs.fields(VersionCounters)} == {*metrics.BY_VERSION, "clients_open"}
    of_delivery = {*metrics.DELIVERY, "write_stall_max_s", "by_class"}
    assert {field.name for field in attrs.fields(DeliveryState)} == of_delivery
    assert {field.name for field in attrs.fields(ClassDelivery)} == set(metrics.DELIVERY_BY_CLASS)


@pytest.mark.parametrize(
    ("head", "share", "is_served"), [(250, 0.5, True), (500, 1.0, True), (501, 1.002, False)]
)
async def test_what_a_subscribe_needs_of_its_replay_budget(
    autojump_clock: MockClock, head: int, share: float, is_served: bool
) -> None:
    """KH-16: exactly the budget is in the bucket of the served, one frame more is above it; by tier."""
    topic = parse_topic(f"user:{claims_for().user_id}:notifications")
    log = TopicLog(topic)
    log.append(head)
    async with open_node(log) as node:
        scrape = Scrape.of(node)
        client = await node.follow(topic)
        await node.follow(
            topic, start=CursorStart(head + 1, LINEAGE)
        )  # another history: no question of budgets
        assert client.position(topic) == (head if is_served else -1)

        def sample(name: str, **labels: str) -> float | None:
            return scrape.registry.sample(
                f"khala_replay_budget_used_ratio_{name}", {"tier": "cold", **labels}
            )

        assert (sample("count"), sample("sum")) == (1, pytest.approx(share))
        assert sample("bucket", le="1.0") == is_served
        assert sample("bucket", le="0.5") == (share <= 0.5)
        assert scrape.registry.sample("khala_replay_budget_used_ratio_count", {"tier": "warm"}) == 0
