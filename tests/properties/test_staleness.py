"""Cursors while head, floor and window move: two nodes over one journal, in virtual time.

Hypothesis draws what happens; after each step both nodes are asked from the same place, and followers go on,
fast or slow. What must be answered is said here once more, from the log alone.

Mutants killed (each was tried): the floor or a budget off by one, either way, or not tested; the head off by
one; the lineage or the chain not compared; the reason of the floor replaced; a page read without looking at
its observation or its lineage; a head that goes backwards believed. A survivor is equivalent: a subscription
that a position check does not end below the floor is ended by its next page.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
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
    StaleCursor,
    StaleReason,
    Subscribed,
    Unsubscribed,
)
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, OTHER_LINEAGE, run_topic

if TYPE_CHECKING:
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest
    from tests.topic_log import TopicLog

TOPIC = run_topic(1)
# Frames of 60 to 180 bytes: some histories meet the one budget first, some the other.
BUDGET_FRAMES, BUDGET_BYTES = 24, 2_000
# Windows and pages that a few frames leave behind, and nobody ended for being slow.
LIMITS = NodeLimits(
    replay_budget_events={"run_events": BUDGET_FRAMES},
    replay_budget_bytes={"run_events": BUDGET_BYTES},
    window_max_frames=6,
    page_max_frames=5,
    write_stall_timeout_s=1e6,
    dead_after_s=1e6,
    release_after_warm_s=1e6,
)


@attrs.frozen
class Append:
    """Commit frames; these nodes hear of them from the driver, the others by their checks."""

    count: int
    size: int
    heard_by: frozenset[int]


@attrs.frozen
class MoveFloor:
    """Retain the newest ``kept`` frames, or what is retained already if that is less."""

    kept: int
    reason: StaleReason


@attrs.frozen
class Ask:
    """Ask both nodes around the floor, the head, or the edge of a budget."""

    edge: int
    is_foreign: bool
    chain: str


@attrs.frozen
class Follow:
    """Start to follow at a node, so many frames before the head."""

    node: int
    behind: int
    is_slow: bool


@attrs.frozen
class Drain:
    """Let every slow follower take what waits for it."""


@attrs.frozen
class Pass:
    """Let a position check come."""


@attrs.frozen
class Restore:
    """Put an older copy back, with a lineage of its own."""

    lost: int


Step = Append | MoveFloor | Ask | Follow | Drain | Pass | Restore
NODES = st.sampled_from([frozenset[int](), frozenset({0}), frozenset({1}), frozenset({0, 1})])
REASONS = st.sampled_from([StaleReason.RETENTION_EXPIRED, StaleReason.COMPACTION_BOUNDARY])
APPENDS = st.builds(Append, st.integers(1, 8), st.sampled_from([0, 0, 1, 40, 120]), NODES)
ASKS = st.builds(Ask, st.integers(0, 3), st.booleans(), st.sampled_from(["", "right", "wrong"]))
FOLLOWS = st.builds(Follow, st.integers(0, 1), st.integers(0, 24), st.booleans())
STEPS = st.one_of(
    APPENDS,
    APPENDS,
    APPENDS,
    st.builds(MoveFloor, st.integers(0, 12), REASONS),
    ASKS,
    ASKS,
    FOLLOWS,
    st.sampled_from([Drain(), Pass(), Pass(), Restore(1), Restore(4)]),
)


@attrs.define(eq=False)
class World:
    """The nodes, the history that they read, and who follows."""

    nodes: list[NodeUnderTest]
    log: TopicLog
    askers: list[ClientUnderTest]
    followers: list[ClientUnderTest] = attrs.field(factory=list)
    lineages: list[str] = attrs.field(factory=lambda: [LINEAGE])

    async def settle(self) -> None:
        for node in self.nodes:
            await node.settle()

    async def do(self, step: Step) -> None:
        match step:
            case Append(count, size, heard_by):
                record = self.log.append(count, payload=bytes(size))
                for number in heard_by:
                    await self.nodes[number].publish(record)
            case MoveFloor(kept, reason):
                floor_seq = self.log.head_seq + 1 - kept
                if floor_seq > self.log.floor_seq:
                    self.log.floor_seq, self.log.floor_reason = floor_seq, reason
            case Ask():
                await self.ask(step)
            case Follow(node, behind, is_slow):
                transport = SimulatedTransport(buffer_bytes=300) if is_slow else SimulatedTransport()
                seq = max(0, self.log.head_seq - behind)
                cursor = CursorStart(seq, self.log.lineage, self.log.chains[seq])
                self.followers.append(await self.nodes[node].follow(TOPIC, start=cursor, transport=transport))
            case Drain():
                for follower in self.followers:
                    follower.read()
            case Pass():
                await trio.sleep(LIMITS.position_check_interval_s + 0.1)
            case Restore(lost):
                self.restore(max(self.log.floor_seq - 1, self.log.head_seq - lost))
        await self.settle()

    def restore(self, head_seq: int) -> None:
        self.lineages.append(f"lin_{len(self.lineages) + 2:026d}")
        self.log = self.nodes[0].journal.restore(self.log, head_seq, lineage=self.lineages[-1])
        self.nodes[1].journal.logs[TOPIC.name] = self.log
        self.nodes[1].journal.lineage = self.lineages[-1]

    async def ask(self, step: Ask) -> None:
        """Both nodes answer alike, and as the log says."""
        log = self.log
        edges = (log.floor_seq, log.head_seq, log.head_seq - BUDGET_FRAMES, self._byte_edge())
        for seq in range(max(0, edges[step.edge] - 2), edges[step.edge] + 2):
            chain = b""
            if step.chain and seq <= log.head_seq:
                chain = log.chains[seq] if step.chain == "right" else bytes(32)
            await self.ask_once(CursorStart(seq, log.lineage, chain))
        if step.is_foreign:
            await self.ask_once(CursorStart(edges[step.edge], OTHER_LINEAGE))

    async def ask_once(self, cursor: CursorStart) -> None:
        log = self.log
        answers = []
        for client in self.askers:
            client.subscribe(TOPIC, start=cursor)
            await self.settle()
            client.unsubscribe(TOPIC)
            await self.settle()
            assert client.take_all(ErrorMessage) == []
            answers.append(_one_answer(client))
        assert answers[0] == answers[1]
        reason = _why_stale(log, cursor)
        if reason is None:
            assert isinstance(answers[0], Subscribed)
            assert (answers[0].start_seq, answers[0].head_seq) == (cursor.seq, log.head_seq)
        else:
            assert answers[0] == StaleCursor.of(TOPIC.name, reason, log.observe())

    def _byte_edge(self) -> int:
        totals = self.log.bytes_totals
        return next(s for s, total in enumerate(totals) if totals[-1] - total <= BUDGET_BYTES)

    async def check_followers(self) -> None:
        """Convergence: whoever was not ended has everything; whoever was, for a reason that holds."""
        for _ in range(40):
            for follower in self.followers:
                follower.read()
            await trio.sleep(LIMITS.position_check_interval_s / 4)
        for follower in self.followers:
            followed = follower.transcript.topics.get(TOPIC.name)
            ends = follower.take_all(StaleCursor)
            if followed is not None:
                assert (ends, followed.position) == ([], self.log.head_seq)
                assert followed.chain == self.log.chains[-1]
                continue
            (end,) = ends
            if end.reason is StaleReason.LINEAGE_MISMATCH:
                assert len(self.lineages) > 1


def _one_answer(client: ClientUnderTest) -> Subscribed | StaleCursor:
    answers: list[Subscribed | StaleCursor] = [*client.take_all(Subscribed), *client.take_all(StaleCursor)]
    assert len(answers) == len(client.take_all(Unsubscribed)) == 1, answers
    return answers[0]


def _why_stale(log: TopicLog, cursor: CursorStart) -> StaleReason | None:
    """Say what must be answered, from the log alone (SPEC section 1, promise 5)."""
    seq = cursor.seq
    if cursor.lineage != log.lineage or seq > log.head_seq:
        return StaleReason.LINEAGE_MISMATCH
    is_retained = seq + 1 >= log.floor_seq
    if cursor.chain and is_retained and cursor.chain != log.chains[seq]:
        return StaleReason.LINEAGE_MISMATCH
    if not is_retained:
        return log.floor_reason
    replay = log.entries[seq:]
    if len(replay) > BUDGET_FRAMES or sum(map(len, replay)) > BUDGET_BYTES:
        return StaleReason.REPLAY_BUDGET_EXCEEDED
    return None


async def _live(steps: list[Step]) -> None:
    log = log_of(TOPIC, 30)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_node(log, limits=LIMITS)) for _ in range(2)]
        for node in nodes:
            node.journal.page_max_frames = LIMITS.page_max_frames
        askers = [await node.connect(TOPIC, is_text=number == 1) for number, node in enumerate(nodes)]
        world = World(nodes, log, askers)
        for step in steps:
            await world.do(step)
        await world.check_followers()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=8, max_size=24))
def test_staleness_follows_from_the_observation(steps: list[Step]) -> None:
    """INV-5, KH-06, KH-16: equal observations, equal answers, whatever was heard, held, drained or restored."""
    trio.run(_live, steps, clock=MockClock(autojump_threshold=0))
