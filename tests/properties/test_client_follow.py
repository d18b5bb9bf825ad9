"""The client against a faulty path: frames are lost, repeated, reordered, cut off at any point.

The model is the log itself. Safety alone would not find a client that stops applying, so every
example ends with faults off and a pass that must reach the head (convergence).

Mutants of khala_client that were made by hand; by what each of them dies:
    apply.py    no duplicate check (an old frame is a gap)            counts
    apply.py    the last applied frame is applied again               prefix
    apply.py    no gap check (the frame after a hole is applied)      prefix
    apply.py    a gap moves the position                              cursor
    follow.py   a gap is noticed and nothing is asked again           state after a gap
    follow.py   a lost tail is not searched by heartbeats             convergence
    follow.py   a heartbeat moves the position                        cursor
    follow.py   the end of a connection forgets the position          prefix
    sync.py     the end of a connection does not detach               convergence
Not by this machine but by tests/unit/khala_client/test_follow.py: frames applied in LEAVING (harmless
here: they are next anyway), a missing end of replay (found again by heartbeats), other chains.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from khala_client.core.follow import FollowState
from khala_client.core.happenings import Delivered, Live, Output, TokenDue, TopicEnded
from khala_client.core.protocol import Identity
from khala_client.core.sync import Reconnect, SyncMachine
from khala_contracts import codec
from khala_contracts.codec import FramesMessage
from tests.unit.khala_client.node_model import LogModel, NodeModel, topic_number

if TYPE_CHECKING:
    from khala_contracts.frames import Frame
    from khala_contracts.topics import TopicName

TOPICS = (topic_number(1), topic_number(2))
IDENTITY = Identity("dev_00000001", "0.1.0")
# Rounds of "deliver everything, two heartbeats" after which a client must be at the head: one for
# what is on the way, one to find a lost tail, one to resume; the rest is slack for reconnects.
ROUNDS_MAX = 8


class FaultyPath(RuleBasedStateMachine):
    """A client, a node and what lies between them."""

    topic_of = st.sampled_from(TOPICS)

    def __init__(self) -> None:
        super().__init__()
        self.logs = {topic: LogModel(topic) for topic in TOPICS}
        self.machine = SyncMachine(IDENTITY, rng=random.Random(0))
        self.now_s = 100.0
        self.node: NodeModel | None = None
        # Invariant: everything here was sent by the current node and not yet received.
        self.pipe: deque[bytes] = deque()
        self.delivered: dict[TopicName, list[Frame]] = {topic: [] for topic in TOPICS}
        self.proven: dict[TopicName, int] = dict.fromkeys(TOPICS, 0)
        self.is_faulty = True

    @initialize(first=st.integers(0, 5))
    def follow_both(self, first: int) -> None:
        """Follow two topics from the beginning; one has a past."""
        self.logs[TOPICS[0]].append(first)
        for topic in TOPICS:
            self.perform(self.machine.follow(topic, "beginning"))
        self.connect()

    # -- the ring that a real client has ---------------------------------------------------------

    def connect(self) -> None:
        """Open a connection if there is none."""
        if self.node is None:
            self.node = NodeModel(self.logs.values())
            self.pipe.clear()
            self.perform(self.machine.connected("token", self.machine.topics, self.now_s))

    def perform(self, output: Output) -> None:
        """Do what the machine asks for."""
        for data in output.send:
            assert self.node is not None
            self.pipe.extend(self.node.receive(data))
        for happening in output.happenings:
            assert not isinstance(happening, TopicEnded), happening
            if isinstance(happening, Delivered):
                self.delivered[happening.topic] += [applied.frame for applied in happening.applied]
                assert happening.cursor.seq == len(self.delivered[happening.topic])
            elif isinstance(happening, Live):
                self.proven[happening.topic] = happening.seq
            elif isinstance(happening, TokenDue):
                self.perform(self.machine.renew("token", self.machine.topics))
        if output.close is not None:
            assert self.is_faulty, f"closed although the path is sound: {output.close.reason}"
            self.cut()

    def cut(self) -> None:
        """Lose the connection, and with it everything that is on its way."""
        self.node = None
        self.pipe.clear()
        decision = self.machine.disconnected(None, self.now_s)
        assert isinstance(decision, Reconnect), decision

    # -- rules -----------------------------------------------------------------------------------

    @rule(topic=topic_of, count=st.integers(1, 8), frames_per_message=st.integers(1, 3))
    def write(self, topic: TopicName, count: int, frames_per_message: int) -> None:
        """Somebody writes, and the node sends it in several messages."""
        self.logs[topic].append(count)
        for _ in range(count):
            if self.node is not None:
                self.pipe.extend(self.node.pump(topic, frames_per_message))

    @precondition(lambda self: self.pipe)
    @rule(count=st.integers(1, 12))
    def deliver(self, count: int) -> None:
        """The client receives what comes next."""
        for _ in range(count):
            if self.pipe:
                self.receive(self.pipe.popleft())

    def receive(self, data: bytes) -> None:
        """Let the client take one message, and check that it counts what it got exactly (KH-24)."""
        message = codec.decode_server_message_untrusted(data)
        follow = (
            self.machine.follow_of(message.frames[0].topic) if isinstance(message, FramesMessage) else None
        )
        if (
            follow is None
            or follow.rule is None
            or follow.state not in {FollowState.REPLAYING, FollowState.LIVE}
        ):
            self.perform(self.machine.receive_untrusted(data, self.now_s))
            return
        assert isinstance(message, FramesMessage)
        position, counts = follow.rule.seq, attrs.evolve(follow.rule.counts)
        for frame in message.frames:
            if frame.seq > position + 1:
                counts.gaps += 1
                break
            counts.duplicates += frame.seq <= position
            counts.applied += frame.seq > position
            position = max(position, frame.seq)
        had_gap = counts.gaps > follow.rule.counts.gaps
        self.perform(self.machine.receive_untrusted(data, self.now_s))
        assert follow.rule.counts == counts
        if had_gap:
            assert follow.state in {FollowState.LEAVING, FollowState.DETACHED}

    @precondition(lambda self: any(data[:1] == b"\x0a" for data in self.pipe))
    @rule(index=st.integers(0, 7), fault=st.sampled_from(("lose", "repeat", "swap")))
    def disturb(self, index: int, fault: str) -> None:
        """Frames are lost, repeated or overtaken. Control messages are not: they have one order."""
        places = [place for place, data in enumerate(self.pipe) if data[:1] == b"\x0a"]
        place = places[index % len(places)]
        match fault:
            case "lose":
                del self.pipe[place]
            case "repeat":
                self.pipe.insert(place, self.pipe[place])
            case _:
                other = places[(index + 1) % len(places)]
                self.pipe[place], self.pipe[other] = self.pipe[other], self.pipe[place]

    @rule(is_back_at_once=st.booleans())
    def lose_connection(self, is_back_at_once: bool) -> None:
        """A reset, at any point; or, if there is no connection, the next attempt."""
        if self.node is not None:
            self.cut()
        if is_back_at_once:
            self.connect()

    @rule(topic=topic_of)
    def pause_or_resume(self, topic: TopicName) -> None:
        """The follower is slow, or no longer."""
        follow = self.machine.follow_of(topic)
        assert follow is not None
        self.perform(self.machine.resume(topic) if follow.is_paused else self.machine.pause(topic))

    @precondition(lambda self: self.node is not None)
    @rule()
    def beat(self) -> None:
        """A heartbeat; the client's clock goes on."""
        assert self.node is not None
        self.now_s += 1
        self.pipe.append(self.node.heartbeat())

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def delivered_is_a_prefix(self) -> None:
        """INV-F1: a contiguous prefix of the log, each frame once."""
        for topic, frames in self.delivered.items():
            assert frames == self.logs[topic].frames[: len(frames)]

    @invariant()
    def cursors_are_what_was_delivered(self) -> None:
        """INV-F2, INV-F3: the cursor is the last delivered frame, with the authority's chain."""
        for topic, frames in self.delivered.items():
            follow = self.machine.follow_of(topic)
            assert follow is not None
            if follow.rule is not None:
                assert follow.rule.seq == len(frames)
                assert follow.rule.chain == self.logs[topic].chains[len(frames)]
                assert follow.rule.counts.applied == len(frames)

    @invariant()
    def nothing_is_proven_ahead(self) -> None:
        """Live is said about applied frames only."""
        assert all(self.proven[topic] <= len(self.delivered[topic]) for topic in TOPICS)

    def teardown(self) -> None:
        """Convergence: when faults stop, everything that is committed is delivered."""
        if not self.machine.topics:
            return
        # The last fault is the worst: the newest frames get lost, and nothing follows them.
        self.drain()
        for topic in TOPICS:
            self.logs[topic].append(1)
            if self.node is not None:
                self.node.pump(topic)
        for _ in range(ROUNDS_MAX):
            self.connect()
            for topic in TOPICS:
                self.perform(self.machine.resume(topic))
            self.drain()
            for _ in range(2):
                if self.node is not None:
                    self.beat()
                    self.drain()
        for topic in TOPICS:
            assert self.delivered[topic] == self.logs[topic].frames

    def drain(self) -> None:
        """Let everything arrive that the node has to send."""
        while self.node is not None:
            for topic in self.node.topics:
                self.pipe.extend(self.node.pump(topic))
            if not self.pipe:
                return
            self.receive(self.pipe.popleft())


FaultyPath.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestFaultyPath = FaultyPath.TestCase
