"""Unit tests of runtime.adapters.http.nodes: who may report and ask, and what is refused; no database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_service.admin_routes import AdminToken
from khala_service.http_edge import make_app
from khala_service.metrics import MetricsRegistry
from khala_service.secret import Secret
from khala_service.service_auth import ServiceCredentials
from runtime.adapters.http.nodes import METRICS_ROUTE, TOPIC_LIMIT_MAX, add_node_routes, read_report
from runtime.adapters.http.projections import OperatorCheck
from runtime.core.node_registry import NODES_MAX, NodeRegistry
from runtime.core.node_reports import REPORT_TOPICS_MAX

if TYPE_CHECKING:
    from quart.typing import TestClientProtocol

ADMIN = "an-admin-token-of-a-test"
NODE, CONTROL = "khs_" + "n" * 43, "khs_" + "c" * 43
TOPIC = "run:run_{}:events"


class FixedClock:
    """Always the same time."""

    def now(self) -> float:
        return 1_000.0


def client_of(registry: NodeRegistry, *, has_nodes: bool = True) -> TestClientProtocol:
    """Return a client of an application with nothing but these routes."""
    app = make_app("runtime", metrics=MetricsRegistry("runtime", process_metrics=False), ready_checks={})
    operators = OperatorCheck(ServiceCredentials({"control": Secret(CONTROL)}), AdminToken(Secret(ADMIN)))
    nodes = ServiceCredentials({"node": Secret(NODE)} if has_nodes else {})
    add_node_routes(app, registry, nodes=nodes, operators=operators, clock=FixedClock())
    return app.test_client()


async def send(
    client: TestClientProtocol, body: m.NodeReport, *, name: str = "node-1", credential: str = NODE
) -> tuple[int, dict[str, Any]]:
    """Report; return the status and the answer."""
    response = await client.post(
        f"/internal/v1/nodes/{name}",
        data=codec.encode_message(body),
        headers={
            "Authorization": f"Bearer {credential}",
            "Content-Type": "application/x-protobuf",
            "Accept": "application/json",
        },
    )
    return response.status_code, json.loads(await response.get_data())


async def ask(
    client: TestClientProtocol, query: str = "", *, credential: str = ADMIN
) -> tuple[int, dict[str, Any]]:
    """Ask for the metrics; return the status and the answer."""
    response = await client.get(METRICS_ROUTE + query, headers={"Authorization": f"Bearer {credential}"})
    return response.status_code, json.loads(await response.get_data())


def report(**fields: Any) -> m.NodeReport:
    """Return a report that is fine."""
    return m.NodeReport(**({"node_id": "node-1", "instance_id": "nod_1", "build_id": "0.1.0"} | fields))


def topic(number: int, **fields: Any) -> m.NodeTopic:
    """Return a topic of a report."""
    return m.NodeTopic(topic=TOPIC.format(f"01{number:024d}"), topic_class="run_events", **fields)


async def test_a_report_is_seen() -> None:
    """What a node says comes back as it was, with its age, under its name."""
    client = client_of(NodeRegistry())
    figures = m.FanoutFigures(
        connections=3,
        slow_consumers=m.SlowConsumerActions(release=2),
        fairness=m.Fairness(judged=4, sum=2.0, sum_of_squares=2.0),
    )
    status, ack = await send(client, report(figures=figures, topics=[topic(1, frames_per_s=2.5)]))
    assert (status, ack) == (200, {"silent_after_ms": "15000"})
    status, found = await ask(client)
    assert (status, found["generated_at"], found["topic_limit"]) == (200, "1000000", "20")
    (node,) = found["nodes"]
    assert (node["node_id"], node["ready"], node["silent"]) == ("node-1", True, False)
    assert 0 <= int(node["report_age_ms"]) < 5_000
    assert node["figures"]["slow_consumers"]["release"] == "2"
    assert found["totals"]["figures"]["fairness"] == {
        "index": 0.5, "judged": "4", "sum": 2, "sum_of_squares": 2,
    }  # fmt: skip
    assert [row["frames_per_s"] for row in found["topics"]] == [2.5]


@pytest.mark.parametrize("credential", ["", ADMIN, CONTROL, NODE + "x"])
async def test_only_nodes_report(credential: str) -> None:
    """Nobody else, the operator included; and nothing is kept of it."""
    registry = NodeRegistry()
    assert (await send(client_of(registry), report(), credential=credential))[0] == 401
    assert registry.standings(0.0) == []


async def test_without_a_credential_no_node_reports() -> None:
    """A runtime that was told no credential of nodes believes nobody."""
    assert (await send(client_of(NodeRegistry(), has_nodes=False), report()))[0] == 401


@pytest.mark.parametrize(("credential", "status"), [("", 401), (NODE, 401), (ADMIN, 200), (CONTROL, 200)])
async def test_who_may_ask(credential: str, status: int) -> None:
    """Operators, and control; a node's credential opens reports alone."""
    assert (await ask(client_of(NodeRegistry()), credential=credential))[0] == status


@pytest.mark.parametrize("limit", ["0", "-1", "abc", "1.5", "+1", "1e3", "99999999999999999999"])
async def test_limits_that_are_none(limit: str) -> None:
    """Refused with the field, never guessed at."""
    status, error = await ask(client_of(NodeRegistry()), f"?topic_limit={limit}")
    assert (status, error["code"], error["details"]["field"]) == (400, "invalid_argument", "topic_limit")


@pytest.mark.parametrize(("limit", "in_force"), [("1", 1), ("100", 100), ("101", 100), ("1000000000", 100)])
async def test_limits(limit: str, in_force: int) -> None:
    """From 1 on; above the most, the most: and never more topics than that."""
    registry = NodeRegistry()
    client = client_of(registry)
    for node in ("node-1", "node-2"):
        topics = [topic(number + 200 * (node == "node-2")) for number in range(REPORT_TOPICS_MAX)]
        assert (await send(client, report(node_id=node, topics=topics), name=node))[0] == 200
    status, found = await ask(client, f"?topic_limit={limit}")
    assert (status, found["topic_limit"], len(found["topics"])) == (200, str(in_force), in_force)
    assert in_force <= TOPIC_LIMIT_MAX


@pytest.mark.parametrize("window", ["9", "3601", "x"])
async def test_windows(window: str) -> None:
    """10 s to an hour."""
    assert (await ask(client_of(NodeRegistry()), f"?window_s={window}"))[0] == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (report(node_id="node-2"), "node_id"),
        (report(instance_id=""), "instance_id"),
        (report(build_id="x" * 129), "build_id"),
        (report(uptime_ms=-1), "uptime_ms"),
        (report(not_ready={str(n): "no" for n in range(33)}), "not_ready"),
        (report(not_ready={"fanout": "x" * 129}), "not_ready"),
        (report(topics=[topic(n) for n in range(REPORT_TOPICS_MAX + 1)]), "topics"),
        (report(topics=[m.NodeTopic(topic="run:*:events")]), "topics.topic"),
        (report(topics=[topic(1, subscribers=-1)]), "topics.subscribers"),
        (report(topics=[topic(1, frames_per_s=float("nan"))]), "topics.frames_per_s"),
        (report(figures=m.FanoutFigures(deliveries=1 << 60)), "figures.deliveries"),
        (report(figures=m.FanoutFigures(slow_consumers=m.SlowConsumerActions(release=-1))), "figures.slow_consumers.release"),
        (report(figures=m.FanoutFigures(fairness=m.Fairness(sum=float("inf")))), "figures.fairness.sum"),
    ],
)  # fmt: skip
async def test_nonsense_is_refused(body: m.NodeReport, field: str) -> None:
    """With the field; a broken node must not break the picture of all others."""
    registry = NodeRegistry()
    status, error = await send(client_of(registry), body)
    assert (status, error["details"]["field"]) == (400, field)
    assert registry.standings(0.0) == []


async def test_room() -> None:
    """One more node than there may be is told which limit that is."""
    registry = NodeRegistry()
    for number in range(NODES_MAX):
        registry.take(read_report(f"n{number}", report(node_id=f"n{number}")), trio.current_time())
    status, error = await send(client_of(registry), report())
    assert (status, error["code"], error["details"]["limit"]) == (403, "limit_exceeded", "nodes_max")
