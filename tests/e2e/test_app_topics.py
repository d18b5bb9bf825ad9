"""App topics end to end: published by command, by pipe and with a key; followed from beyond the replay budget."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio

from khala_contracts.codec import StaleCursor
from khala_contracts.topics import TOPIC_CLASSES, format_app
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.system import KHALA, System, running_system
from tests.e2e.wire import (
    TEXT,
    follow,
    open_api,
    open_welcomed,
    read_through,
    refusal,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khala_contracts.topics import TopicName
    from tests.e2e.wire import Api, Person

pytestmark = pytest.mark.slow

BUDGET = TOPIC_CLASSES["app"].replay_budget_events
BATCH = 500
# The user of the profile that `khala up` signs in.
DEVELOPMENT_LOGIN = "dev"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that takes as much as one sends."""
    folder = tmp_path_factory.mktemp("system")
    with running_system(folder, KHALA_RUNTIME_PUBLISH_RATE_PER_S='{"app": 0}') as started:
        yield started


@pytest.fixture(scope="module")
def org_id(system: System) -> str:
    """The org of the user of the profile."""

    async def ask() -> str:
        async with open_api(system) as api:
            return (await api.sign_in(DEVELOPMENT_LOGIN)).org_id

    return trio.run(ask)


def ack_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one acknowledgement that a command printed."""
    (line,) = done.stdout.splitlines()
    ack: dict[str, Any] = json.loads(line)
    return ack


async def append(api: Api, person: Person, topic: TopicName, *texts: str) -> None:
    """Append in one request."""
    _, org_id, name = topic.split(":")
    body = {"events": [thought(text) for text in texts]}
    answer = await api.post(f"/v1/app-topics/{org_id}/{name}/events", body, person.access_token)
    assert answer.status_code == 200, answer.text


def test_published_by_command_and_by_pipe(system: System, org_id: str) -> None:
    """Each is acknowledged with its place; a repeat with its key is the same event; `tail --verify` agrees."""
    topic = format_app(org_id, "shop")
    first = ack_of(system.run("publish", topic, "custom", '{"name": "opened"}', "--key", "k", "--json"))
    assert (first["topic"], first["seq"]) == (topic, "1")
    again = system.run("publish", topic, "custom", '{"name": "opened"}', "--key", "k", "--json")
    assert ack_of(again) == first
    lines = "".join(json.dumps({"kind": "thought", "data": {"text": text}}) + "\n" for text in "abc")
    environ = {**os.environ, "KHALA_PROFILE": system.ready["profile"]}
    piped = subprocess.run(
        [*KHALA, "publish", topic, "--json"],
        input=lines, env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ack_of(piped)["seq"] == "4"
    tail = system.tail("shop", topic, "--from", "beginning", "--verify")
    tail.wait_for(4)
    assert [event["kind"] for event in tail.events()] == ["custom", "thought", "thought", "thought"]
    verified = system.run("verify", topic)
    assert "4" in verified.stdout


def test_refused_by_command(system: System, org_id: str) -> None:
    """Another's org, a kind of no app, a topic that is not published to: one sentence each."""
    foreign = system.run("publish", f"app:org_{1:026d}:shop", "thought", "--text", "a", check=False)
    assert foreign.returncode == 1
    unknown = system.run("publish", f"app:{org_id}:shop", "run.transferred", check=False)
    assert unknown.returncode == 1
    closed = system.run("publish", f"org:{org_id}:runs", "thought", check=False)
    assert closed.returncode == 1
    assert "only those of runs and apps" in closed.stderr


async def test_a_key_publishes_where_its_pattern_says(system: System, org_id: str) -> None:
    """A service key of the org, its neighbour topic, and a member who reads over both subprotocols."""
    created = system.run(
        "keys", "create", "--name", "n", "--can", "publish", "--topics", f"app:{org_id}:bell", "--json"
    )
    secret = json.loads(created.stdout)["secret"]
    topic = format_app(org_id, "bell")
    async with open_api(system) as api:
        me = await api.sign_in(DEVELOPMENT_LOGIN, OTHER_DEVICE)
        body = {"events": [thought("ding")]}
        for name, status in (("bell", 200), ("bell2", 404)):
            answer = await api.post(f"/v1/app-topics/{org_id}/{name}/events", body, secret)
            assert answer.status_code == status, answer.text
        # It may publish, and nothing else.
        assert refusal(await api.get(f"/v1/app-topics/{org_id}/bell/events", secret)) == (404, "not_found")
        for subprotocol in ("khala.v1", TEXT):
            async with open_welcomed(system, api, me, topic, subprotocol=subprotocol) as wire:
                follower = await subscribe(wire, topic)
                await read_through(wire, follower, 1)


def test_history_beyond_the_budget(system: System, org_id: str) -> None:
    """The node says stale; the command reads the log by pages first, and then goes on live."""
    topic = format_app(org_id, "long")
    count = BUDGET + BATCH

    async def fill() -> None:
        async with open_api(system) as api:
            me = await api.sign_in(DEVELOPMENT_LOGIN, OTHER_DEVICE)
            for start in range(0, count, BATCH):
                await append(api, me, topic, *(str(start + number) for number in range(BATCH)))
            async with open_welcomed(system, api, me, topic) as wire:
                stale = await wire.ask(follow(topic), StaleCursor)
                assert stale.reason.value == "replay_budget_exceeded"

    trio.run(fill)
    tail = system.tail("long", topic, "--from", "beginning")
    tail.wait_for(count)
    system.run("publish", topic, "thought", "--text", "live")
    tail.wait_for(count + 1)
    assert [event["seq"] for event in tail.events()] == [str(seq) for seq in range(1, count + 2)]
