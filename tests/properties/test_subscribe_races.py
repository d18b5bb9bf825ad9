"""KH-42: any commands in any order, while the journal answers late and frames come: one stream, one answer each.

The transcript of the socket asserts the grammar (subscribed, frames by +1 in the authority's chain,
replay_complete, frames; nothing of a topic after its ack). Here answers are counted and compared with what was
asked, and at the end every topic stands where its last command left it.

Mutants killed (each was tried): a duplicate that starts a second stream; another cursor that is taken for a
duplicate; an unsubscribe that keeps the topic's turn or its page; ``subscribed`` queued after the first frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    ReplayComplete,
    StaleCursor,
    Subscribed,
    Unsubscribed,
)
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.topic_log import LINEAGE, run_topic

if TYPE_CHECKING:
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest
    from tests.topic_log import TopicLog

TOPICS = (run_topic(1), run_topic(2))
HEAD = 12
# Windows and pages that a few frames leave behind, and nobody ended for being slow.
LIMITS = NodeLimits(
    window_max_frames=8,
    page_max_frames=5,
    write_stall_timeout_s=1e6,
    dead_after_s=1e6,
    release_after_warm_s=1e6,
)


@attrs.frozen
class Ask:
    """Subscribe after ``seq``; above the head it is stale."""

    topic: int
    seq: int


@attrs.frozen
class Leave:
    """Unsubscribe."""

    topic: int


@attrs.frozen
class Commit:
    """Frames come, perhaps unheard of."""

    topic: int
    count: int
    is_said: bool


@attrs.frozen
class Wait:
    """Let the journal answer, or not yet, and the client take some bytes."""

    seconds: float
    max_bytes: int


Step = Ask | Leave | Commit | Wait
WHICH = st.integers(0, 1)
STEPS = st.one_of(
    st.builds(Ask, WHICH, st.sampled_from([0, 0, 1, 6, HEAD, 10**6])),
    st.builds(Ask, WHICH, st.sampled_from([0, 6])),
    st.builds(Leave, WHICH),
    st.builds(Commit, WHICH, st.integers(1, 6), st.booleans()),
    st.builds(Wait, st.sampled_from([0.0, 0.01, 0.05, 0.6]), st.sampled_from([0, 150, 10_000])),
)


def _answers(client: ClientUnderTest) -> list[Subscribed | StaleCursor | Unsubscribed | ErrorMessage]:
    kinds = (Subscribed, StaleCursor, Unsubscribed, ErrorMessage)
    return [message for message in client.received if isinstance(message, kinds)]


async def _do(step: Step, client: ClientUnderTest, node: NodeUnderTest, logs: list[TopicLog]) -> None:
    match step:
        case Ask(topic, seq):
            client.subscribe(TOPICS[topic], start=CursorStart(seq, LINEAGE))
        case Leave(topic):
            client.unsubscribe(TOPICS[topic])
        case Commit(topic, count, is_said):
            record = logs[topic].append(count)
            if is_said:
                await node.publish(record)
        case Wait(seconds, max_bytes):
            await trio.sleep(seconds)
            if max_bytes:
                client.read(max_bytes)


def _check_answers(client: ClientUnderTest, commands: list[Ask | Leave]) -> None:
    """One answer for each command, in their order; of each stream at most one replay_complete."""
    for command, answer in zip(commands, _answers(client), strict=True):
        assert answer.topic == TOPICS[command.topic].name
        match command:
            case Leave():
                assert isinstance(answer, Unsubscribed)
            case Ask(_, seq) if seq > 10**5:
                assert isinstance(answer, StaleCursor)
            case Ask(_, seq):
                assert isinstance(answer, Subscribed)
                assert answer.start_seq == seq


def _check_streams(client: ClientUnderTest, commands: list[Ask | Leave], logs: list[TopicLog]) -> None:
    """Every topic is where its last command left it: live at the head, or silent."""
    for number, topic in enumerate(TOPICS):
        last = next((command for command in reversed(commands) if command.topic == number), None)
        followed = client.transcript.topics.get(topic.name)
        if isinstance(last, Ask) and last.seq <= 10**5:
            assert followed is not None
            assert (followed.position, followed.chain) == (logs[number].head_seq, logs[number].chains[-1])
            assert followed.completed_at is not None
        else:
            assert followed is None


async def _live(steps: list[Step], *, delay_s: float, is_text: bool, buffer_bytes: int) -> None:
    logs = [log_of(topic, HEAD) for topic in TOPICS]
    async with open_node(*logs, limits=LIMITS) as node:
        node.journal.page_max_frames = LIMITS.page_max_frames
        client = await node.connect(*TOPICS, is_text=is_text)
        client.transport.buffer_bytes = buffer_bytes
        node.journal.delay_s = delay_s
        for step in steps:
            await _do(step, client, node, logs)
        for _ in range(40):
            await trio.sleep(0.1)
            client.read()
        commands = [step for step in steps if isinstance(step, Ask | Leave)]
        _check_answers(client, commands)
        _check_streams(client, commands, logs)
        # A duplicate changes nothing, so each stream is complete once.
        streams = sum(isinstance(message, Subscribed) for message in client.received)
        completed = sum(isinstance(message, ReplayComplete) for message in client.received)
        assert completed <= streams
        before = sum(isinstance(message, FramesMessage) for message in client.received)
        client.unsubscribe(*TOPICS)
        await trio.sleep(0.5)
        for log in logs:
            await node.commit(log)
        client.read()
        assert sum(isinstance(message, FramesMessage) for message in client.received) == before
        assert all(not topic.subscriptions for topic in node.registry._topics.values())
        assert node.pages.held_bytes == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(STEPS, min_size=6, max_size=30),
    delay_s=st.sampled_from([0.0, 0.02]),
    is_text=st.booleans(),
    buffer_bytes=st.sampled_from([200, 100_000]),
)
def test_one_stream_and_one_answer_each(
    steps: list[Step], delay_s: float, is_text: bool, buffer_bytes: int
) -> None:
    """INV-4, KH-42: never two interleaved streams of a topic, never a frame after the ack."""
    trio.run(
        lambda: _live(steps, delay_s=delay_s, is_text=is_text, buffer_bytes=buffer_bytes),
        clock=MockClock(autojump_threshold=0),
    )
