"""The projector on virtual time: what is told when, and what trouble costs whom."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala_contracts import kinds
from khala_contracts.chain import CHAIN_BYTES, chain_start
from khala_contracts.topics import Lineage, format_user_runs
from khala_service.readiness import Degraded
from runtime.actors.projector import PACE_S, SWEEP_EVERY_S, Projector
from runtime.core.batch_commit import CommittedTopic
from runtime.core.projection_queue import RETRY_FIRST_S
from runtime.ports import Authority
from tests.actors.runtime.rig import LINEAGE, OTHER_USER, USER, CountingIds, topic_of
from tests.projectors.memory_projection_store import MemoryProjectionStore
from tests.projectors.rig import HeadsTold, Recorded, Reported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from khala_contracts.topics import TopicName

MINE = format_user_runs(USER)
STARTED = ("run.started", kinds.encode_payload("run_events", "run.started", {"name": "a"}))
THOUGHT = ("thought", b"")
FINISHED = (
    "run.finished",
    kinds.encode_payload("run_events", "run.finished", {"state": "RUN_STATE_SUCCEEDED"}),
)
POISON = ("run.state_changed", b"\xff")


@attrs.define
class World:
    """A projector beside a store in memory."""

    store: MemoryProjectionStore = attrs.field(factory=MemoryProjectionStore)
    relay: Recorded = attrs.field(factory=Recorded)
    metrics: Reported = attrs.field(factory=Reported)
    heads: HeadsTold = attrs.field(factory=HeadsTold)
    superseded: int = 0
    queue_sources: int = 100
    projector: Projector = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        def supersede() -> None:
            self.superseded += 1

        self.projector = Projector(
            self.store, self.relay, ids=CountingIds(), metrics=self.metrics, supersede=supersede,
            queue_sources=self.queue_sources, tell_heads=self.heads.tell,
        )  # fmt: skip

    def commit(
        self, topic: TopicName, *given: tuple[str, bytes], is_heard: bool = True, owner: str = USER
    ) -> None:
        """Commit events, and tell the projector unless the news is lost."""
        head_seq = self.store.write(topic, *given, owner=owner)
        if is_heard:
            self.projector.offer([news(topic, head_seq, len(given))], lineage=Lineage(LINEAGE))

    def told(self, topic: TopicName = MINE) -> list[tuple[float, str, str]]:
        """Return time, head and state of each frame of the user's list."""
        found = []
        for _, payload, at_us in self.store.frames.get(topic, []):
            data = kinds.decode_payload("run.summarised", payload)
            at = (at_us - self.store.now_us()) / 1e6 + trio.current_time()
            found.append((round(at, 3), str(data["head_seq"]), str(data["state"])[len("RUN_STATE_") :]))
        return found

    def applied(self, topic: TopicName) -> int:
        """Return the checkpoint of a source."""
        return self.store.sources[topic].applied_seq


def news(topic: TopicName, head_seq: int, count: int, topic_class: str = "run_events") -> CommittedTopic:
    """Return what the relay hears of a commit."""
    return CommittedTopic(
        topic, topic_class, head_seq - count + 1, ["thought"] * count, [b""] * count, [1] * count,
        bytes(CHAIN_BYTES * count), chain_start(topic), 0,
    )  # fmt: skip


@asynccontextmanager
async def projecting(world: World) -> AsyncIterator[World]:
    """Serve the projector for the length of a block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(world.projector.serve, Authority(1, Lineage(LINEAGE)))
        yield world
        nursery.cancel_scope.cancel()


async def test_a_change_is_told_at_once_and_positions_once_a_second(autojump_clock: MockClock) -> None:
    """The policy in time: started at once, progress each second with the latest, the end at once."""
    world = World()
    run = topic_of(1)
    async with projecting(world):
        await trio.sleep(5)
        world.commit(run, STARTED)
        for _ in range(24):
            await trio.sleep(0.1)
            world.commit(run, THOUGHT)
        await trio.sleep(0.05)
        world.commit(run, FINISHED)
        await trio.sleep(5)
    times, heads, states = zip(*world.told(), strict=True)
    assert times == pytest.approx((5.0, 6.0, 7.0, 7.45), abs=0.06)
    assert (heads[0], heads[-1]) == ("1", "26")
    assert states == ("RUNNING", "RUNNING", "RUNNING", "SUCCEEDED")
    assert len(world.projector.queue) == 0


async def test_the_last_position_before_silence_is_told(autojump_clock: MockClock) -> None:
    """Nothing follows, no sweep comes: what was held back is told when its second is over."""
    world = World()
    async with projecting(world):
        world.commit(topic_of(1), STARTED)
        await trio.sleep(0.3)
        world.commit(topic_of(1), THOUGHT)
        await trio.sleep(2)
    assert [(at, head) for at, head, _ in world.told()] == [(0.0, "1"), (1.0, "2")]


async def test_commits_that_come_close_share_a_transaction(autojump_clock: MockClock) -> None:
    """A busy run costs a transaction for each pause, not for each of its commits."""
    world = World()
    async with projecting(world):
        world.commit(topic_of(1), STARTED)
        for _ in range(200):
            await trio.sleep(0.005)
            world.commit(topic_of(1), THOUGHT)
        await trio.sleep(1)
    assert world.applied(topic_of(1)) == 201
    assert len(world.store.tries) <= 1 / PACE_S + 3


async def test_what_is_appended_goes_to_the_relay(autojump_clock: MockClock) -> None:
    """Followers of a list see summaries live, like any commit; other classes are no source."""
    world = World()
    async with projecting(world):
        world.commit(topic_of(1), STARTED)
        world.projector.offer([news(MINE, 1, 1, "user_runs")], lineage=Lineage(LINEAGE))
        await trio.sleep(0.1)
        assert len(world.projector.queue) == 0
    assert [(commit.topic, commit.first_seq) for commit in world.relay.committed] == [(MINE, 1)]


async def test_the_sweep_finds_what_the_news_lost(autojump_clock: MockClock) -> None:
    """At the start, and every SWEEP_EVERY_S: heads ahead of checkpoints, and summaries that were held."""
    world = World()
    world.commit(topic_of(1), STARTED, THOUGHT, is_heard=False)
    async with projecting(world):
        await trio.sleep(0.1)
        assert world.applied(topic_of(1)) == 2
        world.commit(topic_of(1), THOUGHT, is_heard=False)
        world.commit(topic_of(2), STARTED, is_heard=False)
        await trio.sleep(SWEEP_EVERY_S)
        assert (world.applied(topic_of(1)), world.applied(topic_of(2))) == (3, 1)
        await trio.sleep(SWEEP_EVERY_S)
    assert world.store.sweeps == pytest.approx([0, SWEEP_EVERY_S, 2 * SWEEP_EVERY_S], abs=0.2)


async def test_a_restart_tells_what_the_crash_held_back(autojump_clock: MockClock) -> None:
    """The process dies between applying and telling: its successor finds the summary by the sweep."""
    world = World()
    async with projecting(world):
        world.commit(topic_of(1), STARTED)
        await trio.sleep(0.1)
        world.commit(topic_of(1), THOUGHT)
        await trio.sleep(0.1)
    assert [head for _, head, _ in world.told()] == ["1"]
    successor = World(store=world.store)
    async with projecting(successor):
        await trio.sleep(1)
    assert [head for _, head, _ in successor.told()] == ["1", "2"]


async def test_news_beyond_the_queue_is_found_by_the_sweep(autojump_clock: MockClock) -> None:
    """INV-7: the queue is bounded; what it refuses costs delay, not events."""
    world = World(queue_sources=4)
    async with projecting(world):
        await trio.sleep(1)
        for number in range(20):
            world.commit(topic_of(number), STARTED)
        assert len(world.projector.queue) == 4
        await trio.sleep(2)
        assert [world.applied(topic_of(number)) for number in range(20)] == [1] * 20
    assert len(world.told()) == 20


async def test_a_poison_event_sets_its_run_aside_and_no_other(autojump_clock: MockClock) -> None:
    """INV-9: the others of the same transaction go on at once; the poison is tried again with backoff."""
    world = World()
    async with projecting(world):
        await trio.sleep(1)
        for number in range(5):
            world.commit(topic_of(number), STARTED, *([POISON] if number == 2 else []))
        await trio.sleep(0.2)
        assert [world.applied(topic_of(number)) for number in range(5)] == [1, 1, 0, 1, 1]
        assert world.projector.queue.set_aside_count == 1
        assert world.metrics.failures == ["poison"]
        world.commit(topic_of(2), THOUGHT)
        world.commit(topic_of(3), THOUGHT)
        await trio.sleep(0.2)
        assert world.applied(topic_of(3)) == 2
        assert world.metrics.failures == ["poison"]
        await trio.sleep(60)
        tries = [at for at, topics in world.store.tries if topics == (topic_of(2),)]
        gaps = [round(b - a, 1) for a, b in itertools.pairwise(tries)]
        assert gaps[0] == RETRY_FIRST_S
        assert sorted(gaps) == gaps
        assert len(gaps) <= 6
        assert world.metrics.failures.count("poison") == len(tries)


async def test_a_run_that_was_set_aside_comes_back(autojump_clock: MockClock) -> None:
    """A bug that goes away: everything is applied once, and nothing remembers that it failed."""
    world = World()
    world.store.crashing.add(topic_of(1))
    async with projecting(world):
        world.commit(topic_of(1), STARTED, THOUGHT)
        await trio.sleep(0.5)
        assert world.metrics.failures == ["crash"]
        world.store.crashing.clear()
        await trio.sleep(2)
        assert world.applied(topic_of(1)) == 2
        assert world.projector.queue.set_aside_count == 0
    assert world.metrics.events == 2


async def test_a_lock_that_somebody_holds_stops_its_run_alone(autojump_clock: MockClock) -> None:
    """A stuck checkpoint costs its own run a delay, and the others one more transaction."""
    world = World()
    world.store.held.add(topic_of(1))
    async with projecting(world):
        for number in (1, 2):
            world.commit(topic_of(number), STARTED)
        await trio.sleep(0.2)
        assert (world.applied(topic_of(1)), world.applied(topic_of(2))) == (0, 1)
        assert world.metrics.failures == ["locked"]
        world.store.held.clear()
        await trio.sleep(2)
        assert world.applied(topic_of(1)) == 1


async def test_a_stuck_list_stops_its_own_runs_alone(autojump_clock: MockClock) -> None:
    """Somebody holds the head of one list: no transaction waits for it twice before others have their turn."""
    world = World(store=MemoryProjectionStore(lock_wait_s=2))
    world.store.held_lists.add(MINE)
    stuck, others = [topic_of(number) for number in range(20)], [topic_of(number) for number in range(20, 23)]
    async with projecting(world):
        await trio.sleep(1)
        for topic in stuck:
            world.commit(topic, STARTED)
        for topic in others:
            world.commit(topic, STARTED, owner=OTHER_USER)
        # Together, alone, and then the others.
        await trio.sleep(4.5)
        assert [world.applied(topic) for topic in others] == [1, 1, 1]
        assert world.metrics.failures == ["locked"]
        # Steady now: one retry, one transaction, one alone, at the most.
        world.commit(others[0], FINISHED, owner=OTHER_USER)
        await trio.sleep(8.5)
        assert world.applied(others[0]) == 2
        world.store.held_lists.clear()
        await trio.sleep(90)
    assert [world.applied(topic) for topic in stuck] == [1] * 20


async def test_what_failed_before_is_tried_alone(autojump_clock: MockClock) -> None:
    """A poisoned run's next tries make no transaction of healthy runs fail, however busy those are."""
    world = World(store=MemoryProjectionStore(step_s=0.3))
    async with projecting(world):
        world.commit(topic_of(0), STARTED, POISON)
        await trio.sleep(0.5)
        for _ in range(80):
            world.commit(topic_of(1), THOUGHT)
            world.commit(topic_of(2), THOUGHT)
            await trio.sleep(0.1)
        await trio.sleep(1)
    tries = [topics for _, topics in world.store.tries if topic_of(0) in topics]
    assert tries == [(topic_of(0),)] * 4
    assert (world.applied(topic_of(1)), world.applied(topic_of(2))) == (80, 80)


async def test_runs_set_aside_leave_the_room_to_others(autojump_clock: MockClock) -> None:
    """INV-7: as many poisoned runs as the queue holds, and more; healthy ones beside them are told at once."""
    world = World(queue_sources=4)
    async with projecting(world):
        for number in range(7):
            world.commit(topic_of(number), POISON)
            await trio.sleep(0.1)
        for number in range(10, 14):
            world.commit(topic_of(number), STARTED)
        await trio.sleep(0.2)
        assert [world.applied(topic_of(number)) for number in range(10, 14)] == [1] * 4
        assert world.projector.queue.set_aside_count == 4
        # Those that were forgotten are found again once they can be applied.
        for number in range(7):
            del world.store.sources[topic_of(number)].events[:]
            world.store.write(topic_of(number), STARTED, owner=USER)
        await trio.sleep(60 + SWEEP_EVERY_S)
        assert [world.applied(topic_of(number)) for number in range(7)] == [1] * 7


async def test_a_sweep_that_succeeds_ends_the_patience(autojump_clock: MockClock) -> None:
    """Two absences with nothing to project between them: the second is met with short pauses again."""
    world = World()
    async with projecting(world):
        for _ in range(2):
            world.store.unreachable_until = trio.current_time() + 30
            await trio.sleep(50)
    second = [at for at in world.store.sweeps if at > 50]
    assert second[1] - second[0] == pytest.approx(0.1)


async def test_a_database_that_is_away_costs_delay_alone(autojump_clock: MockClock) -> None:
    """30 s unreachable: nobody is set aside, nothing is lost, and it goes on by itself."""
    world = World()
    async with projecting(world):
        world.commit(topic_of(1), STARTED)
        await trio.sleep(0.1)
        world.store.unreachable_until = trio.current_time() + 30
        world.commit(topic_of(1), THOUGHT)
        world.commit(topic_of(2), STARTED)
        await trio.sleep(29)
        assert world.projector.queue.set_aside_count == 0
        assert world.projector.queue.events_behind == 2
        assert world.projector.queue.seconds_behind(trio.current_time()) == pytest.approx(29, abs=0.1)
        await trio.sleep(7)
        assert (world.applied(topic_of(1)), world.applied(topic_of(2))) == (2, 1)
        assert world.projector.queue.events_behind == 0
    assert set(world.metrics.failures) <= {"database", "sweep"}
    assert len(world.metrics.failures) < 20


async def test_an_answer_to_commit_that_was_lost_applies_nothing_twice(autojump_clock: MockClock) -> None:
    """RT-08: committed and not told so, or not committed: the checkpoint knows, and the run is stepped again."""
    world = World()
    async with projecting(world):
        for lost in ("lost_after", "lost_before", "lost_after", "lost_before") * 3:
            setattr(world.store, lost, 1)
            world.commit(topic_of(1), *([THOUGHT] * 3 if world.store.sources else [STARTED]))
            await trio.sleep(1.5)
    (row,) = world.store.rows.values()
    assert row.event_count == row.applied_seq == len(world.store.sources[topic_of(1)].events)
    heads = [int(head) for _, head, _ in world.told()]
    assert heads == sorted(set(heads))
    assert heads[-1] == row.applied_seq


async def test_after_an_answer_to_commit_that_was_lost_heads_are_told(autojump_clock: MockClock) -> None:
    """INV-20: nobody offered those frames, so the nodes hear of the lists' heads, once, when it works again."""
    world = World()
    async with projecting(world):
        await trio.sleep(1)
        world.store.lost_before = 1
        world.commit(topic_of(1), STARTED)
        await trio.sleep(1)
        assert (len(world.relay.committed), world.heads.topics) == (1, set())
        world.store.lost_after = 1
        world.commit(topic_of(2), STARTED)
        await trio.sleep(1)
        assert (len(world.relay.committed), world.heads.topics) == (1, {MINE})
        world.heads.topics.clear()
        world.commit(topic_of(1), FINISHED)
        await trio.sleep(1)
    assert (len(world.told()), world.heads.topics) == (3, set())


async def test_readiness(autojump_clock: MockClock) -> None:
    """Not ready until it runs; later it may be away without taking the runtime out of traffic."""
    world = World()
    assert await world.projector.check() == "not_started"
    assert not isinstance(await world.projector.check(), Degraded)
    async with projecting(world):
        assert await world.projector.check() is None
    assert await world.projector.check() == "restarting"
    assert isinstance(await world.projector.check(), Degraded)
    async with projecting(world):
        assert await world.projector.check() is None


async def test_a_superseded_projector_stops(autojump_clock: MockClock) -> None:
    """It says so once, returns, and leaves the rest to its successor."""
    world = World()
    world.store.is_superseded = True
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.projector.serve, Authority(1, Lineage(LINEAGE)))
            world.commit(topic_of(1), STARTED)
    assert world.superseded == 1
    assert world.store.rows == {}


async def test_a_long_backlog_of_many_runs_is_applied_without_pauses(autojump_clock: MockClock) -> None:
    """A start beside 70 long runs: bounded transactions, one right after the other."""
    world = World(store=MemoryProjectionStore(page_events_max=10), queue_sources=1_000)
    for number in range(70):
        world.commit(topic_of(number), STARTED, *[THOUGHT] * 29, is_heard=False)
    async with projecting(world):
        await trio.sleep(2)
    assert world.metrics.events == 70 * 30
    assert max(len(topics) for _, topics in world.store.tries) == 64
    assert {row.applied_seq for row in world.store.rows.values()} == {30}
