"""CARD-04, KH-17 on the wire: turns by bytes among the topics of one connection, and of topics on a node."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import FramesMessage, ReplayComplete
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

LIMITS = NodeLimits()
PAYLOAD = bytes(200)


@pytest.mark.parametrize("is_text", [False, True])
async def test_one_frame_among_five_busy_topics(autojump_clock: MockClock, is_text: bool) -> None:
    """CARD-04: one frame, beside 5,000 waiting on each of five topics, comes within one turn of each."""
    busy = [log_of(run_topic(number), 5_000, payload=PAYLOAD) for number in range(1, 6)]
    quiet = log_of(run_topic(9), 0)
    async with open_node(*busy, quiet) as node:
        topics = [log.topic for log in busy]
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = await node.connect(*topics, quiet.topic, transport=transport, is_text=is_text)
        client.subscribe(quiet.topic)
        await node.settle()
        client.take(ReplayComplete)
        client.subscribe(*topics)
        for _ in range(50):
            client.read()
            await node.settle()
        assert {log.topic.name for log in busy} <= set(client.connection.subscriptions)
        await node.commit(quiet)
        taken = 0
        while not client.seqs(quiet.topic):
            before = client.connection.outbound.waiting_bytes
            await node.settle()
            taken += 4_096
            assert before
        # The chunk in hand (which may have begun alone), then at most one quantum and a frame of each.
        in_json = 2 if is_text else 1
        turn = len(busy) * (LIMITS.drr_quantum_bytes + 300)
        assert taken <= in_json * (LIMITS.chunk_max_bytes + turn) + 2 * 4_096


async def test_equal_topics_share_a_slow_connection(autojump_clock: MockClock) -> None:
    """KH-17: ten equal backlogs and a slow reader: Jain's index over what came of each is 0.95 at least."""
    logs = [log_of(run_topic(number), 3_000, payload=PAYLOAD) for number in range(1, 11)]
    async with open_node(*logs) as node:
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = await node.connect(*(log.topic for log in logs), transport=transport)
        client.subscribe(*(log.topic for log in logs))
        await node.settle()
        counts: Counter[str] = Counter()
        while sum(counts.values()) < 12_000:
            for message in client.take_all(FramesMessage):
                counts.update(frame.topic for frame in message.frames)
            await node.settle()
        got = [counts[log.topic.name] for log in logs]
        assert sum(got) ** 2 / (len(got) * sum(count * count for count in got)) >= 0.95


async def test_a_fan_out_to_many_holds_up_no_other_topic(autojump_clock: MockClock) -> None:
    """KH-17: a frame for 300 followers gives others a turn after each 32 sends; a quiet topic's goes out between."""
    hot, quiet = log_of(run_topic(1), 0), log_of(run_topic(2), 0)
    limits = attrs.evolve(LIMITS, fanout_quantum_sends=32)
    async with open_node(hot, quiet, limits=limits) as node:
        followers = [await node.follow(hot.topic) for _ in range(300)]
        other = await node.follow(quiet.topic)
        for client in [*followers, other]:
            client.read()
        for log in (hot, quiet):
            record = log.append(payload=PAYLOAD)
            await node.driver.publish(log.topic.name, node.signer.seal(record))
        while not other.seqs(quiet.topic):
            await trio.lowlevel.checkpoint()
        assert sum(bool(client.seqs(hot.topic)) for client in followers) < 300
        await node.settle()
        assert all(client.seqs(hot.topic) == [1] for client in followers)
