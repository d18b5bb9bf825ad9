"""Unit tests of khala.adapters.runtime_http: what a report says, and what becomes of one that is not taken."""

from __future__ import annotations

import attrs
import httpx
import pytest

from khala.actors.node_reporter import FanoutReport, ReportRefusedError
from khala.adapters.runtime_http import HttpNodeReports, failing_checks, open_node_reports
from khala.core.counters import DeliveryState, NodeCounters
from khala.core.fanout_figures import FairnessSums, NodeStatus, TopicFigures
from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_contracts.topics import TopicName
from khala_service.adapters.http_client import open_service_client
from khala_service.readiness import Degraded, Readiness
from khala_service.secret import Secret
from runtime.adapters.http.nodes import read_report

TOPIC = TopicName("run:run_00000000000000000000000001:events")


@attrs.define(eq=False)
class FakeRuntime(httpx.AsyncBaseTransport):
    """Takes reports, or answers with a status."""

    status: int = 200
    taken: list[tuple[str, m.NodeReport]] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Take one."""
        if self.status == 0:
            raise httpx.ConnectError("nobody listens")
        if self.status != 200:
            return httpx.Response(self.status, content=codec.encode_message(m.Error(code="unauthenticated")))
        body = codec.decode_message_untrusted(m.NodeReport, await request.aread())
        self.taken.append((request.url.raw_path.decode(), body))
        return httpx.Response(200, content=codec.encode_message(m.NodeReportAck(silent_after_ms=15_000)))


class FixedIds:
    """Always the same id."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_1"


class FixedClock:
    """Always the same time."""

    def now(self) -> float:
        return 1_000.0


def report() -> FanoutReport:
    """Return a report with something in every part."""
    counters = NodeCounters(connections_open=3, subscriptions_open=4, topics_live=2, heals=5)
    counters.slow_consumer_actions.update(throttle=4, catch_up=3, release=2, disconnect=1)
    counters.evictions.update(connection=1, topic=2)
    counters.by_class["run_events"].deliveries = 7
    state = DeliveryState(outbound_bytes=100, connections_blocked=1, write_stall_max_s=1.5)
    state.by_class["app"].live_lag_frames_max = 9
    counters.delivery = state
    topic = TopicFigures(
        topic=TOPIC,
        topic_class="run_events",
        head_seq=8,
        subscribers=4,
        replaying=1,
        frames_per_s=2.5,
        lag_frames_max=9,
    )
    return FanoutReport(
        status=NodeStatus(is_draining=True, is_leaving=False, not_ready={"fanout": "unavailable"}),
        uptime_s=12.5,
        counters=counters,
        fairness=FairnessSums(judged=2, total=1.0, squares=1.0),
        topics=[topic],
    )


async def send(runtime: FakeRuntime, node_id: str = "node-1") -> None:
    """Send a report through the adapter."""
    async with open_service_client("http://runtime", peer="runtime", transport=runtime) as client:
        await reports_with(client, node_id).send(report())


def reports_with(client: object, node_id: str) -> HttpNodeReports:
    """Return the adapter over a client of the test."""
    return HttpNodeReports(
        client,  # type: ignore[arg-type]
        node_id=node_id,
        instance_id="nod_1",
        build_id="0.1.0",
        started_at_ms=1_000_000,
    )


async def test_what_a_report_says() -> None:
    """Every figure arrives as the runtime reads it."""
    runtime = FakeRuntime()
    await send(runtime)
    ((path, body),) = runtime.taken
    assert path == "/internal/v1/nodes/node-1"
    read = read_report("node-1", body)
    assert (read.instance_id, read.started_at_ms, read.uptime_ms) == ("nod_1", 1_000_000, 12_500)
    assert (read.is_draining, read.is_leaving, dict(read.not_ready)) == (
        True,
        False,
        {"fanout": "unavailable"},
    )
    figures = read.figures
    assert (figures.connections, figures.subscriptions, figures.topics_live, figures.heals) == (3, 4, 2, 5)
    assert (figures.throttle, figures.catch_up, figures.release, figures.disconnect) == (4, 3, 2, 1)
    assert (figures.evictions, figures.deliveries, figures.lag_frames_max) == (3, 7, 9)
    assert (figures.waiting_bytes, figures.connections_blocked, figures.write_stall_max_ms) == (100, 1, 1_500)
    assert (figures.judged, figures.fairness) == (2, 0.5)
    (topic,) = read.topics
    assert (topic.topic, topic.head_seq, topic.subscribers, topic.frames_per_s) == (TOPIC, 8, 4, 2.5)


async def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    """A node's name is the operator's text."""
    runtime = FakeRuntime()
    await send(runtime, "a/../b?c")
    assert runtime.taken[0][0] == "/internal/v1/nodes/a%2F..%2Fb%3Fc"


@pytest.mark.parametrize(
    ("status", "outcome"), [(0, "unavailable"), (503, "unavailable"), (401, "refused"), (404, "refused")]
)
async def test_a_report_that_is_not_taken(status: int, outcome: str) -> None:
    """Away, or of another mind: a word for the counter, and nothing else happens."""
    with pytest.raises(ReportRefusedError) as refused:
        await send(FakeRuntime(status=status))
    assert refused.value.outcome == outcome


async def test_without_a_runtime_nobody_is_told() -> None:
    """A node that was given no address reports to nobody."""
    async with open_node_reports(
        "", credential=Secret("khs_x"), verify=True, node_id="n", ids=FixedIds(), clock=FixedClock()
    ) as reports:
        assert reports is None


async def test_failing_checks() -> None:
    """What is only slower keeps nobody from being ready, and is not told as a failure."""

    async def fine() -> str | None:
        return None

    async def slower() -> str | None:
        return Degraded("slower")

    async def away() -> str | None:
        return "unavailable"

    readiness = Readiness({"journal": fine, "fanout": slower, "control_keys": away})
    assert await failing_checks(readiness) == {"control_keys": "unavailable"}
