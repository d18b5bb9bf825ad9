"""KH-06, KH-35: where a cursor goes stale, exactly: two nodes over one PostgreSQL, real sockets, twenty times.

What is asked and what must come is a table, made from the model of the authority's history. The answers of
both nodes to one question are equal in every field, whatever their windows hold.
"""

from __future__ import annotations

import json
from itertools import chain
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    FromStart,
    StaleCursor,
    StaleReason,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    SubscriptionMode,
    TopicStart,
    Unsubscribe,
    Unsubscribed,
)
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.topics import Tier, parse_topic
from khala_service.adapters.postgres import open_asyncio_loop
from tests.integration.khala.rig import open_rig
from tests.topic_log import LINEAGE, OTHER_LINEAGE, TopicLog, run_topic

if TYPE_CHECKING:
    from khala.core.classification import SubscriptionStart
    from tests.integration.khala.rig import BareClient, Rig
    from tests.postgres_cluster import Database

REPEATS = 20
NODES = 2
FLOOR, HEAD = 11, 20
SEQ_MAX = 2**63 - 1
BUDGET_FRAMES, BUDGET_BYTES = 50, 10_000
# Small budgets for one class, so that both sides of each are cheap; a rate that no question exceeds.
LIMITS = NodeLimits(
    replay_budget_events={"worker_events": BUDGET_FRAMES},
    replay_budget_bytes={"worker_events": BUDGET_BYTES},
    client_messages_per_s=1e6,
    client_messages_burst=1_000_000,
)


@attrs.frozen
class Case:
    """One question, and why it is stale; None: it is served from ``start_seq`` on."""

    log: TopicLog
    start: SubscriptionStart
    reason: StaleReason | None = None
    start_seq: int = 0

    @property
    def topic_start(self) -> TopicStart:
        """The question as a part of a subscribe."""
        how = FromStart(self.start) if isinstance(self.start, SubscribeFrom) else self.start
        return TopicStart(self.log.topic.name, how)

    def answer(self) -> Subscribed | StaleCursor:
        """Return what every node must say, in every field."""
        seen, topic = self.log.observe(), self.log.topic.name
        if self.reason is not None:
            return StaleCursor.of(topic, self.reason, seen)
        is_live = self.start_seq == seen.head_seq
        return Subscribed(
            topic=topic,
            lineage=LINEAGE,
            head_seq=seen.head_seq,
            floor_seq=seen.floor_seq,
            chain_at_start=self.log.chains[self.start_seq],
            tier=Tier.HOT if topic.startswith("worker:") else Tier.WARM,
            mode=SubscriptionMode.LIVE if is_live else SubscriptionMode.REPLAYING,
            start_seq=self.start_seq,
        )


def _worker_log(number: int) -> TopicLog:
    return TopicLog(parse_topic(f"worker:wrk_{number:026d}:events"))


def _append_bytes(log: TopicLog, size: int) -> None:
    """Append frames of exactly ``size`` encoded bytes in all."""
    end = log.bytes_totals[-1] + size
    while (left := end - log.bytes_totals[-1]) > 0:
        probe = log.copy()
        probe.append(payload=bytes(500))
        frame_bytes = len(probe.entries[-1])
        # The last two halves, so that no length changes its own length.
        log.append(payload=bytes(500 + left - frame_bytes if left < 2 * frame_bytes else 500))
    assert log.bytes_totals[-1] == end


def _floor_cases(log: TopicLog, other: TopicLog) -> list[Case]:
    """Both sides of floor and head, with and without a chain; other histories at each of them."""
    mismatch, retained = StaleReason.LINEAGE_MISMATCH, log.floor_reason
    cases = []
    for seq, reason in (
        (0, retained),
        (1, retained),
        (FLOOR - 3, retained),
        (FLOOR - 2, retained),
        (FLOOR - 1, None),
        (FLOOR, None),
        (HEAD - 1, None),
        (HEAD, None),
        (HEAD + 1, mismatch),
        (SEQ_MAX, mismatch),
    ):
        cases.append(Case(log, CursorStart(seq, LINEAGE), reason, seq))
        if seq <= HEAD:
            is_comparable = seq >= FLOOR - 1
            foreign = other.chains[seq]
            cases += [
                Case(log, CursorStart(seq, LINEAGE, log.chains[seq]), reason, seq),
                Case(log, CursorStart(seq, LINEAGE, foreign), mismatch if is_comparable else reason, seq),
            ]
        cases.append(Case(log, CursorStart(seq, OTHER_LINEAGE), mismatch))
    return [
        *cases,
        Case(log, SubscribeFrom.BEGINNING, retained),
        Case(log, SubscribeFrom.EARLIEST, None, FLOOR - 1),
        Case(log, SubscribeFrom.NOW, None, HEAD),
    ]


async def _write_cases(rig: Rig) -> list[Case]:
    """Write the journals and return what to ask about them."""
    retained, compacted, other = TopicLog(run_topic(1)), TopicLog(run_topic(2)), TopicLog(run_topic(3))
    compacted.floor_reason = StaleReason.COMPACTION_BOUNDARY
    for log in (retained, compacted, other):
        await rig.authority.commit(log, HEAD)
    # One whose rows below the floor are still there, one whose rows are gone.
    await rig.authority.move_floor(retained, FLOOR)
    await rig.authority.move_floor(compacted, FLOOR, is_pruned=True)
    cases = _floor_cases(retained, other) + _floor_cases(compacted, other)
    exceeded = StaleReason.REPLAY_BUDGET_EXCEEDED
    frames = _worker_log(1)
    await rig.authority.commit(frames, BUDGET_FRAMES + 1)
    cases += [
        Case(frames, CursorStart(0), exceeded),
        Case(frames, SubscribeFrom.BEGINNING, exceeded),
        Case(frames, SubscribeFrom.EARLIEST, exceeded),
        Case(frames, CursorStart(1, LINEAGE), None, 1),
        Case(frames, SubscribeFrom.NOW, None, BUDGET_FRAMES + 1),
    ]
    for number, spare in enumerate((-1, 0, 1), start=2):
        log = _worker_log(number)
        await rig.authority.commit(log)
        before = log.head_seq
        _append_bytes(log, BUDGET_BYTES + spare)
        await rig.authority.write(log, before)
        cases += [
            Case(log, CursorStart(1, LINEAGE), exceeded if spare > 0 else None, 1),
            Case(log, CursorStart(2, LINEAGE), None, 2),
            Case(log, CursorStart(0), exceeded),
        ]
    return cases


def _answers(client: BareClient) -> list[object]:
    return [m for m in client.received if isinstance(m, Subscribed | StaleCursor | ErrorMessage)]


async def _wait_answers(client: BareClient, count: int) -> None:
    await client.wait(lambda: len(_answers(client)) >= count, within_s=60)


async def _wait_acks(client: BareClient, count: int) -> None:
    await client.wait(lambda: len(client.of(Unsubscribed)) >= count, within_s=60)


def _deal(cases: list[Case], rng: Random) -> list[list[Case]]:
    """Return the cases in random order, in hands of at most one for each topic."""
    hands: list[list[Case]] = []
    for case in rng.sample(cases, len(cases)):
        for hand in hands:
            if all(other.log is not case.log for other in hand):
                hand.append(case)
                break
        else:
            hands.append([case])
    return hands


async def _ask_all(client: BareClient, hands: list[list[Case]]) -> list[object]:
    """Ask everything at once; commands are answered one after the other, in their order."""
    before, count = len(_answers(client)), sum(map(len, hands))
    for hand in hands:
        await client.say(Subscribe(tuple(case.topic_start for case in hand)))
        await client.say(Unsubscribe(tuple(case.log.topic.name for case in hand)))
    await _wait_answers(client, before + count)
    return _answers(client)[before:]


async def test_every_boundary_on_two_nodes_twenty_times(runtime_database: Database) -> None:
    """KH-06, KH-16: the same code, reason and fields each time, in any order, cold and warm, in both forms."""
    rng = Random(6)
    dsn = runtime_database.dsn("khala_reader")
    async with (
        open_asyncio_loop(),
        open_rig(runtime_database.superuser_dsn, dsn, nodes=NODES, limits=LIMITS) as rig,
    ):
        cases = await _write_cases(rig)
        topics = list({case.log.topic.name: case.log.topic for case in cases}.values())
        clients = [
            await rig.connect(*topics, node=number % NODES, is_text=number >= NODES)
            for number in range(2 * NODES)
        ]
        for repeat in range(REPEATS):
            for client in clients[repeat % 2 * NODES :][:NODES]:
                hands = _deal(cases, rng)
                answers = await _ask_all(client, hands)
                for case, answer in zip(chain.from_iterable(hands), answers, strict=True):
                    assert answer == case.answer(), case
        for node in rig.nodes:
            answered = node.counters.subscribes
            assert answered["stale"] + answered["served"] == answered.total() == REPEATS * len(cases)
            assert node.counters.task_restarts == {}


@attrs.frozen
class _Malformed:
    """A cursor that no client could hold, in the bytes of one subprotocol."""

    field: str
    payload: bytes
    is_text: bool


def _malformed(topic: str) -> list[_Malformed]:
    """KH-35: negative, beyond int64, without its lineage, with half a chain."""
    cursors = [
        ("seq", session_pb2.Cursor(seq=-1, lineage=LINEAGE)),
        ("seq", session_pb2.Cursor(seq=-(2**63), lineage=LINEAGE)),
        ("lineage", session_pb2.Cursor(seq=1)),
        ("lineage", session_pb2.Cursor(seq=SEQ_MAX)),
        ("lineage", session_pb2.Cursor(seq=1, lineage="l" * 65)),
        ("chain", session_pb2.Cursor(seq=1, lineage=LINEAGE, chain=bytes(31))),
    ]
    binary = [
        _Malformed(
            field,
            session_pb2.ClientMessage(
                subscribe=session_pb2.Subscribe(
                    topics=[session_pb2.TopicSubscription(topic=topic, cursor=cursor)]
                )
            ).SerializeToString(),
            is_text=False,
        )
        for field, cursor in cursors
    ]
    written = [
        ("seq", {"seq": "-1", "lineage": LINEAGE}),
        ("seq", {"seq": str(2**63), "lineage": LINEAGE}),
        ("seq", {"seq": "1.5", "lineage": LINEAGE}),
        ("lineage", {"seq": "1"}),
    ]
    return binary + [
        _Malformed(
            field,
            json.dumps({"subscribe": {"topics": [{"topic": topic, "cursor": cursor}]}}).encode(),
            is_text=True,
        )
        for field, cursor in written
    ]


async def test_cursors_that_are_none_read_nothing(runtime_database: Database) -> None:
    """KH-35: malformed_message with the field and close 4500, twenty times on each node; no frame, no read."""
    log = TopicLog()
    dsn = runtime_database.dsn("khala_reader")
    # These clients do not answer a close.
    limits = attrs.evolve(LIMITS, admission_burst=10_000, close_timeout_s=0.02)
    async with (
        open_asyncio_loop(),
        open_rig(runtime_database.superuser_dsn, dsn, nodes=NODES, limits=limits) as rig,
    ):
        await rig.authority.commit(log, 5)

        async def ask(node: int, wrong: _Malformed) -> None:
            client = await rig.connect(log.topic, node=node, is_text=wrong.is_text)
            await client.say_raw(wrong.payload)
            await client.wait(lambda: client.is_over, within_s=30)
            (error,) = client.of(ErrorMessage)
            assert error.code == "malformed_message"
            assert error.details["field"] == f"subscribe.topics[0].cursor.{wrong.field}", wrong
            assert client.transcript.closed_with == 4500
            assert client.of(FramesMessage) == client.of(Subscribed) == []

        for _ in range(REPEATS):
            async with trio.open_nursery() as nursery:
                for number in range(NODES):
                    for wrong in _malformed(log.topic.name):
                        nursery.start_soon(ask, number, wrong)
        for node in rig.nodes:
            assert node.counters.subscribes == {}
            assert node.counters.topics_live == 0


def _judge(asked: CursorStart, answer: object, log: TopicLog) -> None:
    """Compare an answer with the observation that it carries: that alone decides."""
    if isinstance(answer, Subscribed):
        assert answer.floor_seq <= asked.seq + 1 <= answer.head_seq + 1
        assert answer.head_seq - asked.seq <= BUDGET_FRAMES
        assert log.bytes_totals[answer.head_seq] - log.bytes_totals[asked.seq] <= BUDGET_BYTES
        return
    assert isinstance(answer, StaleCursor), answer
    match answer.reason:
        case StaleReason.LINEAGE_MISMATCH:
            assert asked.seq > answer.head_seq
        case StaleReason.RETENTION_EXPIRED:
            assert asked.seq + 1 < answer.floor_seq
        case _:
            assert answer.reason is StaleReason.REPLAY_BUDGET_EXCEEDED
            assert asked.seq + 1 >= answer.floor_seq
            size_bytes = log.bytes_totals[answer.head_seq] - log.bytes_totals[asked.seq]
            assert answer.head_seq - asked.seq > BUDGET_FRAMES or size_bytes > BUDGET_BYTES
    assert answer.floor_chain == log.chains[answer.floor_seq - 1]


@pytest.mark.parametrize("rounds", [150])
async def test_while_head_and_floor_move(runtime_database: Database, rounds: int) -> None:
    """KH-06: each answer follows from the observation that it carries, on both nodes, while both ends move."""
    rng, log = Random(16), _worker_log(1)
    dsn = runtime_database.dsn("khala_reader")
    limits = attrs.evolve(LIMITS, window_max_frames=16, page_max_frames=8)
    async with (
        open_asyncio_loop(),
        open_rig(runtime_database.superuser_dsn, dsn, nodes=NODES, limits=limits) as rig,
    ):
        await rig.authority.commit(log, 30)
        clients = [await rig.connect(log.topic, node=number) for number in range(NODES)]

        async def ask(client: BareClient) -> None:
            for _ in range(rounds):
                edges = (log.floor_seq, log.head_seq, log.head_seq - BUDGET_FRAMES)
                seq = max(0, rng.choice(edges) + rng.randrange(-3, 3))
                known = log.chains[seq] if seq <= log.head_seq and rng.random() < 0.5 else b""
                asked = CursorStart(seq, LINEAGE, known)
                before = len(_answers(client))
                await client.subscribe(log.topic, start=asked)
                await _wait_answers(client, before + 1)
                _judge(asked, _answers(client)[before], log)
                # Until this is answered the floor may end what was just served.
                acks = len(client.of(Unsubscribed)) + 1
                await client.say(Unsubscribe((log.topic.name,)))
                await _wait_acks(client, acks)

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(ask, client)
            for turn in range(rounds):
                await rig.authority.commit(log, rng.randrange(1, 4), is_said=turn % 3 > 0)
                floor_seq = min(log.head_seq + 1, max(log.floor_seq, log.head_seq - rng.randrange(0, 60)))
                await rig.authority.move_floor(log, floor_seq, is_pruned=turn % 2 == 0)
        for node in rig.nodes:
            assert node.counters.subscribes["served"] > 0
            assert set(node.counters.stale_cursors) >= {"retention_expired", "lineage_mismatch"}
            assert node.counters.task_restarts == {}
