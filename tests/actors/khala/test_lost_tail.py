"""KH-37: our client on a real node, over a path that loses frames and lets heartbeats pass."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import trio

from khala.core.limits import NodeLimits
from khala_client.core.happenings import Delivered, GapSeen, Happening, HeadSeen, Live
from khala_client.core.protocol import Identity
from khala_client.core.sync import SyncMachine
from khala_contracts import codec
from khala_contracts.codec import FramesMessage, ServerHeartbeat, encode_entry
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import DEVICE, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_client.core.happenings import Output
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC = run_topic(1)


@attrs.define(eq=False)
class LossyPath:
    """Carries what the machine and the node say to each other, except frames while it is lossy."""

    node: NodeUnderTest
    client: ClientUnderTest
    machine: SyncMachine
    is_lossy: bool = False
    happenings: list[Happening] = attrs.field(factory=list)

    def perform(self, output: Output) -> None:
        """Do what the machine asks for; a gap that was seen ends the loss."""
        assert output.close is None, output.close
        self.happenings += output.happenings
        if any(isinstance(happening, GapSeen) for happening in output.happenings):
            self.is_lossy = False
        for data in output.send:
            self.client.peer.say(data)

    async def carry(self) -> None:
        """Let everything pass that may, until both sides are silent."""
        self.perform(self.machine.tick(trio.current_time()))
        while True:
            await self.node.settle()
            messages = self.client.read()
            if not messages:
                return
            for message in messages:
                if isinstance(message, FramesMessage):
                    if self.is_lossy:
                        continue
                    data = b"".join(map(encode_entry, message.frames))
                else:
                    data = codec.encode_server_control(message)  # type: ignore[arg-type]
                self.perform(self.machine.receive_untrusted(data, trio.current_time()))

    def of(self, kind: type[Happening]) -> list[Happening]:
        """Return what has happened of this kind."""
        return [happening for happening in self.happenings if isinstance(happening, kind)]

    def applied(self) -> list[int]:
        """Return the seqs that the machine has delivered."""
        delivered = [h for h in self.happenings if isinstance(h, Delivered)]
        return [applied.frame.seq for happening in delivered for applied in happening.applied]


async def test_a_lost_tail_is_noticed_within_two_intervals(autojump_clock: MockClock) -> None:
    """The last frames before silence are lost on the way: heartbeats show it, and the client resumes."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        machine = SyncMachine(Identity(DEVICE, "test"), rng=random.Random(0))
        machine.follow(TOPIC.name, "beginning")
        path = LossyPath(node, node.open_client(), machine)
        path.perform(machine.connected(node.grant(TOPIC), machine.topics, trio.current_time()))
        await path.carry()
        assert path.applied() == [1, 2, 3]
        assert len(path.of(Live)) == 1
        path.is_lossy = True
        await node.commit(log, 2)
        lost_at = trio.current_time()
        while not path.of(GapSeen):
            await path.carry()
            await trio.sleep(0.1)
            assert trio.current_time() - lost_at < 2 * node.limits.heartbeat_interval_s + 1
        assert path.of(HeadSeen)
        await path.carry()
        assert path.applied() == [1, 2, 3, 4, 5]
        assert not path.is_lossy


async def test_what_only_the_journal_has_is_not_stated(autojump_clock: MockClock) -> None:
    """Found by seed 309: while the database is away, a topic behind its window looks like a lost tail."""
    log = log_of(TOPIC, 3)
    limits = NodeLimits(window_max_frames=2, heartbeat_interval_s=1.0)
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = await node.follow(TOPIC, transport=transport)
        assert client.is_live(TOPIC)
        transport.stall()
        node.journal.is_down = True
        for _ in range(6):
            await node.commit(log)
        transport.resume()
        await node.settle()
        client.take_all(ServerHeartbeat)
        await trio.sleep(5 * limits.heartbeat_interval_s)
        assert client.position(TOPIC) < log.head_seq
        stated = [topic for beat in client.take_all(ServerHeartbeat) for topic in beat.topics]
        assert stated == []
        node.journal.is_down = False
        await trio.sleep(5 * limits.heartbeat_interval_s)
        assert client.position(TOPIC) == log.head_seq
        assert any(beat.topics for beat in client.take_all(ServerHeartbeat))
    assert autojump_clock.current_time() > 0
