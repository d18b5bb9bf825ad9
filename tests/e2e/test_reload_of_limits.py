"""Limits, rates and minimum builds of real services change on SIGHUP, are shown, and what exceeds them is audited."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs
import httpx
import pytest
import trio

from khala.cli.up_ports import UpPorts
from khala_contracts import http_messages as m
from khala_contracts.codec import Welcome
from khala_contracts.topics import TOPIC_CLASSES
from tests.e2e.service_processes import SERVICES, Deployment, Service, deployment, json_lines
from tests.e2e.system import wait_until
from tests.e2e.wire import (
    Api,
    events_path,
    follow,
    hello,
    open_api,
    open_wire,
    read_through,
    refusal,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tests.e2e.system import System
    from tests.postgres_cluster import PostgresTestCluster

pytestmark = pytest.mark.slow

ADMIN_TOKEN = "an admin token of at least thirty-two characters"
# Events of an append in force at the start, and after the reload; topics of a subscribe likewise.
EVENTS_MAX, EVENTS_MAX_LATER = 50, 3
TOPICS_MAX, TOPICS_MAX_LATER = 60, 2


@attrs.define
class Served:
    """A deployment as the clients of a system see it."""

    made: Deployment

    @property
    def ready(self) -> dict[str, str]:
        """What `khala up` would have written."""
        ports = self.made.ports
        return {
            "control_url": f"http://127.0.0.1:{ports['control']}",
            "runtime_url": f"http://127.0.0.1:{ports['runtime']}",
            "sync_url": f"ws://127.0.0.1:{ports['node']}/sync/v1/ws",
        }

    def reload(self, service: Service, **changes: Mapping[str, object]) -> None:
        """Write the file anew, and have one service read it again; return once it has."""
        before = self.reloads(service)
        self.made.write_config(**{**_SECTIONS, **changes})
        self.made.processes[SERVICES.index(service)].send_signal(signal.SIGHUP)
        wait_until(lambda: self.reloads(service) > before, timeout_s=5, what=f"{service} has read again")

    def reloads(self, service: Service) -> float:
        """Return how often the service has read its configuration again."""
        return sum(
            self.metric(service, "khala_config_reloads_total", outcome=outcome)
            for outcome in ("applied", "refused")
        )

    def metric(self, service: Service, name: str, **labels: str) -> float:
        """Return one series of a service."""
        port = self.made.ports["admin" if service == "node" else service]
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=5).text
        wanted = name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
        (value,) = (line.split()[-1] for line in text.splitlines() if line.startswith(wanted))
        return float(value)


_SECTIONS: Mapping[str, Mapping[str, object]] = {
    "control": {"admin_token": ADMIN_TOKEN},
    "node": {"limits": {"topics_per_subscribe_max": TOPICS_MAX, "audit_flush_interval_s": 0.05}},
    "runtime": {"limits": {"append_events_max": EVENTS_MAX}},
}


@pytest.fixture(scope="module")
def served(
    postgres_cluster: PostgresTestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Three running services."""
    ports = UpPorts.free()
    numbers = {
        "control": ports.control, "runtime": ports.runtime, "node": ports.node(), "admin": ports.admin(),
    }  # fmt: skip
    with (
        postgres_cluster.database("control", "runtime") as database,
        deployment(tmp_path_factory.mktemp("deployed"), database.dsns, numbers) as made,
    ):
        made.write_config(**_SECTIONS)
        for service in SERVICES:
            made.start(service)
        for service in SERVICES:
            made.wait_ready(service, timeout_s=60)
        yield Served(made)


@asynccontextmanager
async def api_of(served: Served) -> AsyncIterator[Api]:
    """HTTP of the deployment."""
    async with open_api(cast("System", served)) as api:
        yield api


async def audit_rows(api: Api, limit: str) -> list[dict[str, Any]]:
    """Wait for rows of this limit, and return them."""
    with trio.fail_after(10):
        while True:
            answer = await api.get("/internal/v1/audit?action=limit.exceed", ADMIN_TOKEN)
            rows = [row for row in answer.json()["rows"] if row["detail"]["limit"] == limit]
            if rows:
                return rows
            await trio.sleep(0.05)


async def test_a_node_takes_over_lower_limits(served: Served) -> None:
    """KH-45: a connection that is open meets the new value; its row of audit names limit and value."""
    async with api_of(served) as api:
        ann = await api.sign_in()
        topic = await api.create_run(ann)
        async with open_wire(cast("System", served)) as wire:
            await wire.ask(hello(await api.mint(ann, topic)), Welcome)
            served.reload("node", node={"limits": {"topics_per_subscribe_max": TOPICS_MAX_LATER}})
            assert (
                served.metric("node", "khala_node_limit", limit="topics_per_subscribe_max")
                == TOPICS_MAX_LATER
            )
            await wire.send(follow(*[topic] * (TOPICS_MAX_LATER + 1)))
            ending = await wire.ending()
            assert ending.codes == (["limit_exceeded"], 4505)
            assert ending.errors[0].details == {"limit": "topics_per_subscribe_max", "max": "2"}
        (row,) = await audit_rows(api, "topics_per_subscribe_max")
        assert (row["reason"], row["detail"]["value"]) == ("limit_exceeded", "2")
        assert (row["user_id"], row["outcome"]) == (ann.user_id, "refused")
        labels = {"limit": "topics_per_subscribe_max", "reason": "limit_exceeded"}
        assert served.metric("node", "khala_node_limit_violations_total", **labels) == 1


async def test_a_runtime_takes_over_lower_limits_and_rates(served: Served) -> None:
    """KH-19: N events are appended, N + 1 are refused and nothing is; one row for each burst, counts are exact."""
    async with api_of(served) as api:
        ann = await api.sign_in("bob")
        topic = await api.create_run(ann)
        events = {"events": [thought(number) for number in range(EVENTS_MAX_LATER + 1)]}
        assert (await api.post(events_path(topic), events, ann.access_token)).is_success
        served.reload(
            "runtime",
            runtime={
                "limits": {"append_events_max": EVENTS_MAX_LATER, "append_bytes_max": 2_000},
                "publish_rate_per_s": {"run_events": 0.5},
            },
        )
        before = await api.watermark(ann, topic)
        for _ in range(3):
            refused = await api.post(events_path(topic), events, ann.access_token)
            assert refusal(refused) == (413, "payload_too_large")
            assert refused.json()["details"]["limit"] == "append_events_max"
        large = {"events": [thought("x" * 2_000)]}
        text = b"\x0a\xd0\x0f" + b"x" * 2_000
        binary = m.AppendEventsRequest(events=[m.EventInput(kind="thought", payload_bytes=text)])
        for body in (large, binary):
            refused = await api.post(events_path(topic), body, ann.access_token, Accept="application/json")
            assert refused.json()["details"]["limit"] == "append_bytes_max"
        assert await api.watermark(ann, topic) == before
        events["events"].pop()
        assert (await api.post(events_path(topic), events, ann.access_token)).is_success
        # The bucket holds ten seconds of the new rate: five events, of which three are gone.
        too_fast = await api.post(events_path(topic), events, ann.access_token)
        assert refusal(too_fast) == (429, "rate_limited")
        assert too_fast.json()["details"]["max"] == "0.5"
        assert int(too_fast.headers["Retry-After"]) >= 1
        for limit, reason, value in (
            ("append_events_max", "payload_too_large", "3"),
            ("append_bytes_max", "payload_too_large", "2000"),
            ("publish_rate_per_s", "rate_limited", "0.5"),
        ):
            (row,) = await audit_rows(api, limit)
            assert (row["reason"], row["detail"]["value"], row["user_id"]) == (reason, value, ann.user_id)
        for limit, reason, count in (
            ("append_events_max", "payload_too_large", 3),
            ("append_bytes_max", "payload_too_large", 2),
            ("publish_rate_per_s", "rate_limited", 1),
        ):
            violations = served.metric(
                "runtime", "khala_runtime_limit_violations_total", limit=limit, reason=reason
            )
            assert violations == count, limit
        assert served.metric("runtime", "khala_runtime_limit", limit="append_events_max") == EVENTS_MAX_LATER


async def test_the_largest_payload(served: Served) -> None:
    """KH-19: payload_max_bytes of the class is appended and delivered; one byte more is 413, audited, and no row."""
    maximum = TOPIC_CLASSES["run_events"].payload_max_bytes
    # Beside the text a thought has a tag and a length of three bytes.
    text = "x" * (maximum - 4)
    served.reload("runtime", runtime={"limits": {"append_events_max": EVENTS_MAX}})
    async with api_of(served) as api:
        ann = await api.sign_in("eve")
        topic = await api.create_run(ann)
        async with open_wire(cast("System", served)) as wire:
            await wire.ask(hello(await api.mint(ann, topic)), Welcome)
            follower = await subscribe(wire, topic)
            refused = await api.post(events_path(topic), {"events": [thought(text + "x")]}, ann.access_token)
            assert refusal(refused) == (413, "payload_too_large")
            assert refused.json()["details"]["limit"] == "payload_max_bytes"
            (position,) = await api.append(ann, topic, thought(text))
            await read_through(wire, follower, position.seq)
            assert len(follower.frames[-1].payload) == maximum
            # Of the refused one there is nothing: the sequence has no hole.
            assert position.seq == 2
        (row,) = await audit_rows(api, "payload_max_bytes")
        assert (row["reason"], row["detail"]["value"]) == ("payload_too_large", str(maximum))


async def test_minimum_builds(served: Served) -> None:
    """PR-14: raised while everything runs: control says it, the node refuses with it; the token stays usable."""
    async with api_of(served) as api:
        ann = await api.sign_in("cid")
        token = await api.mint(ann, await api.create_run(ann))
        later: dict[str, Mapping[str, object]] = {
            "control": {**_SECTIONS["control"], "min_build_id": "9.9"},
            "node": {"min_build_id": "9.9"},
        }
        for service in ("control", "node"):
            served.reload(service, **later)
        assert (await api.get("/api/compat")).json()["min_build_id"] == "9.9"
        async with open_wire(cast("System", served)) as wire:
            await wire.send(hello(token))
            ending = await wire.ending()
            assert ending.codes == (["upgrade_required"], 4504)
            assert ending.errors[0].details == {
                "failed": "build",
                "offered": "wire-tests",
                "supported": "9.9-",
                "min_build_id": "9.9",
            }
        refusals = served.metric("node", "khala_node_hellos_refused_total", reason="upgrade_required")
        assert refusals == 1
        served.reload("node")
        async with open_wire(cast("System", served)) as wire:
            await wire.ask(hello(token), Welcome)


async def test_what_cannot_be_used_changes_nothing(served: Served) -> None:
    """CT-15: every error of the file is named in the log, the counter rises, and what was in force stays."""
    refused = served.metric("node", "khala_config_reloads_total", outcome="refused")
    in_force = served.metric("node", "khala_node_limit", limit="subscriptions_max")
    served.reload("node", node={"limits": {"subscriptions_max": 0, "hello_timeout_s": "soon", "strange": 1}})
    assert served.metric("node", "khala_config_reloads_total", outcome="refused") == refused + 1
    assert served.metric("node", "khala_node_limit", limit="subscriptions_max") == in_force
    lines = json_lines(served.made.log_of("node"))
    (line,) = (line for line in lines if line["event"] == "reload_refused")
    reasons = " ".join(line["reasons"])
    assert all(key in reasons for key in ("subscriptions_max", "hello_timeout_s", "strange"))
    served.reload("node", node={"port": served.made.ports["node"] + 1, "limits": {"journal_readers_max": 3}})
    lines = json_lines(served.made.log_of("node"))
    assert any(line["event"] == "reload_ignored" and line["keys"] == ["node.port"] for line in lines)
    assert served.metric("node", "khala_node_limit", limit="journal_readers_max") == 16
    async with api_of(served) as api, open_wire(cast("System", served)) as wire:
        ann = await api.sign_in("dee")
        await wire.ask(hello(await api.mint(ann, await api.create_run(ann))), Welcome)
