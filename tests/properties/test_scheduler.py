"""Deficit round-robin: order within a topic, the delay bound, and fairness in bytes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from khala.core.scheduler import DeficitRoundRobin
from khala.core.subscription import Subscription
from tests.range_source import WindowSource, live_subscription

KIB = 1024
QUANTUM = 16 * KIB
CHUNK = 64 * KIB


def _source(subscription: Subscription) -> WindowSource:
    source = subscription.source
    assert isinstance(source, WindowSource)
    return source


def _topics(*sizes: list[int]) -> list[Subscription]:
    topics = []
    for number, of_topic in enumerate(sizes):
        source = WindowSource()
        source.write(of_topic)
        topics.append(live_subscription(source, number=number))
    return topics


def _ring(topics: list[Subscription]) -> DeficitRoundRobin:
    turns = DeficitRoundRobin(QUANTUM, CHUNK, is_text=False, in_flight=InFlight(NodeLimits()))
    for topic in topics:
        turns.add(topic)
    return turns


def _jain(values: list[int]) -> float:
    """Jain's index: 1 if all are equal, 1/n if one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


FRAME_SIZES = st.one_of(st.integers(20, 2_000), st.integers(2_000, CHUNK), st.integers(CHUNK, 300 * KIB))


@given(quiet=st.integers(20, 300 * KIB), hot=st.integers(20, 4_000), company=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_one_frame_against_five_thousand(quiet: int, hot: int, company: int) -> None:
    """A lone frame waits for at most its own rounds of everybody else, not for their queues.

    Bound: ceil(frame / quantum) rounds, in each of which every other topic sends at most one quantum
    and what it had carried over, which is less than its largest frame.
    """
    topics = _topics(*[[hot] * 5_000] * company, [quiet])
    waiting = topics[-1]
    turns = _ring(topics)
    before = 0
    while True:
        taken = turns.take_next()
        assert taken is not None
        if taken[0] is waiting:
            break
        before += len(taken[1])
    rounds = -(-quiet // QUANTUM)
    assert before <= company * (rounds * QUANTUM + hot)


@given(sizes=st.lists(st.integers(20, 60 * KIB), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_equal_demand_gets_equal_bytes(sizes: list[int]) -> None:
    """KH-17: Jain's index in bytes >= 0.9 among topics that always have frames, whatever their sizes."""
    total = 3 * 1024 * KIB
    topics = _topics(*([size] * (total // size + 1) for size in sizes))
    turns = _ring(topics)
    sent = dict.fromkeys(range(len(topics)), 0)
    while sum(sent.values()) < total:
        taken = turns.take_next()
        assert taken is not None
        sent[topics.index(taken[0])] += len(taken[1])
    assert _jain(list(sent.values())) >= 0.9


@given(st.lists(st.lists(FRAME_SIZES, max_size=30), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_everything_is_sent_and_chunks_are_bounded(sizes: list[list[int]]) -> None:
    """Nothing is left over, and only a frame that is larger alone makes a chunk above chunk_max_bytes."""
    topics = _topics(*sizes)
    turns = _ring(topics)
    positions = dict.fromkeys(topics, 0)
    while (taken := turns.take_next()) is not None:
        topic, chunk = taken
        frames = sizes[topics.index(topic)][positions[topic] : topic.position]
        assert sum(frames) == len(chunk)
        assert len(chunk) <= max(CHUNK, frames[0] + QUANTUM)
        positions[topic] = topic.position
    assert positions == {topic: len(of_topic) for topic, of_topic in zip(topics, sizes, strict=True)}
    assert all(topic.deficit_bytes == 0 for topic in topics)


class TurnsMachine(RuleBasedStateMachine):
    """Topics write, wait for pages, end, and come back while turns are taken.

    Mutants killed: keeping the deficit after leaving; leaving without asking for the page; ``add`` without
    the membership check; ``discard`` from one of the two containers only. Not carrying the deficit over,
    not rotating, and not charging for what was sent die in the properties above.
    """

    def __init__(self) -> None:
        """Four topics on one connection."""
        super().__init__()
        self.turns = DeficitRoundRobin(QUANTUM, CHUNK, is_text=False, in_flight=InFlight(NodeLimits()))
        self.topics = _topics([], [], [], [])
        self.seen = dict.fromkeys(self.topics, 0)

    @rule(index=st.integers(0, 3), sizes=st.lists(FRAME_SIZES, min_size=1, max_size=5))
    def write(self, index: int, sizes: list[int]) -> None:
        """Frames arrive, and the topic is woken as fan-out does it."""
        topic = self.topics[index]
        _source(topic).write(sizes)
        if topic.is_active:
            self.turns.add(topic)

    @rule(index=st.integers(0, 3))
    def fall_behind_the_window(self, index: int) -> None:
        """The next frame of this topic has to be read."""
        topic = self.topics[index]
        _source(topic).paged_until = topic.position + 1

    @rule()
    def pages_arrive(self) -> None:
        """Every read is answered and wakes its topic."""
        for topic in self.topics:
            for answered in _source(topic).answer_pages():
                if answered.is_active:
                    self.turns.add(answered)

    @rule(index=st.integers(0, 3))
    def end(self, index: int) -> None:
        """The client unsubscribes; a new subscription takes its place at the same position."""
        old = self.topics[index]
        old.end()
        self.turns.discard(old)
        new = live_subscription(_source(old), number=index, position=old.position)
        self.topics[index] = new
        self.seen[new] = self.seen.pop(old)
        self.turns.add(new)

    @precondition(lambda self: len(self.turns) > 0)
    @rule(count=st.integers(1, 20))
    def take(self, count: int) -> None:
        """The socket takes some chunks."""
        for _ in range(count):
            taken = self.turns.take_next()
            if taken is None:
                assert len(self.turns) == 0
                return
            topic, _ = taken
            assert topic in self.topics, "an ended subscription took a turn"
            assert topic.position > self.seen[topic]
            self.seen[topic] = topic.position

    @invariant()
    def no_credit_outside_the_ring(self) -> None:
        """Only a topic in the ring has a deficit, and the ring has each at most once."""
        ring = list(self.turns._ready)
        assert len(ring) == len(set(ring)) == len(self.turns)
        for topic in self.topics:
            assert topic.deficit_bytes == 0 or topic in ring
            # Nobody is forgotten: frames to send, and neither in the ring nor waiting for a page.
            assert topic in ring or not topic.has_frames

    def teardown(self) -> None:
        """Convergence: once pages arrive, everything that was written is sent."""
        self.pages_arrive()
        while self.turns.take_next() is not None:
            pass
        for topic in self.topics:
            assert topic.position == topic.source.head_seq


def test_turns_under_writes_pages_and_endings() -> None:
    """INV-3: positions only grow, nobody is forgotten, ended topics take no turn."""
    run_state_machine_as_test(
        TurnsMachine, settings=settings(max_examples=100, stateful_step_count=30, deadline=None)
    )
