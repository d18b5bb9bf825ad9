"""CLAW-06: what a slow consumer is told and when, pinned by fixtures, the same in each of twenty runs.

``tests/fixtures/backpressure/*.json``: a script (what the topic gets, what the client's kernel takes), the
actions of the node with the second of each, and everything that was said to the client, in its order. The
tasks of a node run in another order in each run; none of it may show.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio
from trio.testing import MockClock

from khala.adapters.metrics import NodeCollector
from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    Lagging,
    ReplayComplete,
    Subscribed,
    Unsubscribed,
)
from khala_contracts.topics import format_notifications, format_worker_events, parse_topic
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import Close
from tests.topic_log import LINEAGE, USER, claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest
    from tests.topic_log import TopicLog

FIXTURES: Final = Path(__file__).parents[2] / "fixtures" / "backpressure"
NAMES: Final = sorted(path.stem for path in FIXTURES.glob("*.json"))
RUNS: Final = 20
# Between two sweeps: what has been done is seen before the script goes on, whatever the order of tasks.
LOOK_EVERY_S: Final = 0.25
LOOK_OFFSET_S: Final = 0.02
TOPICS: Final = {
    "hot": parse_topic(format_worker_events(f"wrk_{1:026d}")),
    "warm": run_topic(1),
    "cold": parse_topic(format_notifications(USER)),
}


@attrs.define(eq=False)
class Observed:
    """What one run has shown."""

    actions: list[list[object]] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)


def steps_of(fixture: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each step with its second; one with ``every_s`` is many."""
    for step in fixture["steps"]:
        count = round((step["until_s"] - step["at_s"]) / step["every_s"]) if "every_s" in step else 0
        for number in range(count + 1):
            yield round(step["at_s"] + number * step.get("every_s", 0.0), 3), step


async def play(fixture: dict[str, Any]) -> Observed:
    """Run one fixture's script on a whole node in virtual time."""
    topic, observed = TOPICS[fixture["tier"]], Observed()
    log = log_of(topic, 0)
    async with open_node(log, limits=NodeLimits(**fixture["limits"])) as node:
        transport = SimulatedTransport()
        client = await node.connect(transport=transport, claims=claims_for(topic))
        client.subscribe(topic)
        await node.settle()
        _read(client, observed)
        transport.buffer_bytes = fixture["kernel_bytes"]
        node.nursery.start_soon(_watch_actions, node, observed)
        for at_s, step in sorted(steps_of(fixture), key=lambda timed: timed[0]):
            await trio.sleep_until(at_s)
            await _do(step, fixture, node, log, client, observed)
        await trio.sleep(5)
        await _complete(node, log, client)
    return observed


async def _do(
    step: dict[str, Any],
    fixture: dict[str, Any],
    node: NodeUnderTest,
    log: TopicLog,
    client: ClientUnderTest,
    observed: Observed,
) -> None:
    if "commit" in step:
        await node.commit(log, step["commit"], payload=bytes(step["payload_bytes"]))
        return
    match step["do"]:
        case "stall":
            client.transport.stall()
        case "read_everything":
            client.transport.buffer_bytes = None
            client.transport.resume()
            await node.settle()
            _read(client, observed)
            client.transport.buffer_bytes = fixture["kernel_bytes"]
        case "read":
            _read(client, observed, step.get("bytes"))
        case "resume":
            client.subscribe(log.topic, start=_cursor(log, client))
        case unknown:
            raise AssertionError(unknown)
    await node.settle()


async def _watch_actions(node: NodeUnderTest, observed: Observed) -> None:
    """Note each action with the sweep that did it, and its tier as ``/metrics`` shows it."""
    seen: Counter[tuple[str, str]] = Counter()
    collector = NodeCollector(node.counters, {})
    await trio.sleep_until(LOOK_OFFSET_S)
    while True:
        now = actions_shown(collector)
        for action, tier in (now - seen).elements():
            observed.actions.append([round(trio.current_time() - LOOK_OFFSET_S, 2), action, tier])
        seen = now
        await trio.sleep(LOOK_EVERY_S)


def actions_shown(collector: NodeCollector) -> Counter[tuple[str, str]]:
    """Return what /metrics says of actions, by action and tier."""
    samples = collector.slow_consumer_actions().samples
    return Counter(
        {(sample.labels["action"], sample.labels["tier"]): round(sample.value) for sample in samples}
    )


def _read(client: ClientUnderTest, observed: Observed, max_bytes: int | None = None) -> None:
    """Let the client read, and note what was said; frames that follow each other are one line."""
    for message in client.read(max_bytes):
        match message:
            case FramesMessage(frames=frames):
                # Where the kernel cut them says nothing about the node.
                first = frames[0].seq
                if observed.said[-1].startswith("frames "):
                    first = int(observed.said.pop().split()[1])
                observed.said.append(f"frames {first} to {frames[-1].seq}")
            case Subscribed():
                observed.said.append(f"subscribed after {message.start_seq}")
            case ReplayComplete(through_seq=through_seq):
                observed.said.append(f"replay_complete through {through_seq}")
            case Lagging():
                observed.said.append(f"lagging from {message.from_seq} head {message.head_seq}")
            case Unsubscribed(reason=reason):
                observed.said.append(f"unsubscribed {reason.value}")
            case ErrorMessage():
                observed.said.append(f"error {message.code} {message.advice.value}")
            case Close(code):
                observed.said.append(f"close {code}")


def _cursor(log: TopicLog, client: ClientUnderTest) -> CursorStart:
    """Return where the client is: after the last frame that it has received."""
    messages = [each for each in client.received if isinstance(each, FramesMessage)]
    position = messages[-1].frames[-1].seq
    return CursorStart(position, LINEAGE, log.chains[position])


async def _complete(node: NodeUnderTest, log: TopicLog, client: ClientUnderTest) -> None:
    """Whatever happened: the client, or another one with its cursor, gets all that it lacks."""
    start = _cursor(log, client)
    again = await node.connect(claims=claims_for(log.topic))
    again.subscribe(log.topic, start=start)
    await trio.sleep(1)
    assert again.seqs(log.topic) == list(range(start.seq + 1, log.head_seq + 1))


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_fixtures_sequence(name: str) -> None:
    """CLAW-06, KH-18, KH-44: twenty runs, one sequence: the fixture's."""
    fixture = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    for _ in range(RUNS):
        observed = trio.run(play, fixture, clock=MockClock(autojump_threshold=0))
        assert observed.actions == fixture["actions"]
        assert observed.said == fixture["said"]


def test_every_action_and_tier_is_pinned() -> None:
    """No action of the policy, and no tier, is without a fixture."""
    fixtures = [json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES]
    shown = {action for fixture in fixtures for _, action, _ in fixture["actions"]}
    assert shown == {"throttle", "catch_up", "release", "disconnect"}
    assert {fixture["tier"] for fixture in fixtures} == set(TOPICS)
