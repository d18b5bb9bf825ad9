"""Whatever is cancelled, and however: nothing is lost, nothing repeated, nothing left behind."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest

from khala_client import Khala as AsyncioKhala
from khala_client.errors import KhalaError, StoreFailed, Unavailable
from khala_client.store import SqliteStore
from khala_contracts import http_messages as m
from khala_contracts.topics import TopicName
from tests.actors.khala_client.loops import LOOPS, Halves, LoopKind, eventually, on_both_loops
from tests.actors.khala_client.world import World, open_world
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from pathlib import Path

    from khala_client.events import Event
    from khala_client.ring.khala import Khala
    from khala_client.ring.run import Run
    from khala_client.ring.subscription import Subscription

TOPIC = topic_number(1)
LAST_SEQ = 120


@attrs.define
class Gate:
    """A fold that can hold up the commit of one seq, in its worker thread, until it is let through."""

    at_seq: int
    reached: threading.Event = attrs.field(factory=threading.Event)
    opened: threading.Event = attrs.field(factory=threading.Event)
    calls: list[int] = attrs.field(factory=list)
    error: Exception | None = None

    def fold(self, _connection: sqlite3.Connection, event: Event) -> None:
        """Note the event; wait at the gate."""
        self.calls.append(event.seq)
        if event.seq == self.at_seq:
            self.reached.set()
            assert self.opened.wait(20)
            if self.error is not None:
                raise self.error


@pytest.fixture
def gate() -> Gate:
    """A closed gate."""
    return Gate(at_seq=2)


@pytest.fixture
def store(tmp_path: Path, gate: Gate) -> SqliteStore:
    """A store whose commits pass the gate."""
    return SqliteStore.open(tmp_path / "store.sqlite3", namespace="n", fold=gate.fold)


def client(world: World) -> Khala:
    """Return a client of the world."""
    return world.front(world.settings, rng=Halves(), wall_clock=lambda: 0.0)


async def take(events: Subscription, count: int) -> list[int]:
    """Return the seqs of the next events."""
    with anyio.fail_after(20):
        return [(await events.__anext__()).seq for _ in range(count)]


def kept(store: SqliteStore) -> list[int]:
    """Return what the store holds."""
    return [event.seq for event in store.read_history(TOPIC)]


@on_both_loops(real_time=True)
async def test_a_commit_outlives_its_cancelled_caller(
    world: World, loop: LoopKind, gate: Gate, store: SqliteStore
) -> None:
    """The cursor moves once: the next call finds the commit done instead of making it again."""
    world.add(TOPIC, 2)
    async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
        assert await take(events, 2) == [1, 2]
        await loop.cancel(events.__anext__, when=gate.reached.is_set)
        gate.opened.set()
        await world.append(TOPIC, 2)
        assert await take(events, 2) == [3, 4]
    assert kept(store) == gate.calls == [1, 2, 3, 4]
    store.close()


@on_both_loops(real_time=True)
async def test_a_commit_that_failed_unseen_is_told_next(
    world: World, loop: LoopKind, gate: Gate, store: SqliteStore
) -> None:
    """Its caller was gone: the next call raises it, nothing was written, and the one after it commits."""
    world.add(TOPIC, 2)
    gate.error = sqlite3.OperationalError("disk I/O error")

    async def follow() -> None:
        async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
            assert await take(events, 2) == [1, 2]
            await loop.cancel(events.__anext__, when=gate.reached.is_set)
            gate.opened.set()
            with pytest.raises(StoreFailed, match="disk I/O error"):
                await take(events, 1)
            assert kept(store) == []
            gate.error = None
            await world.append(TOPIC)
            assert await take(events, 1) == [3]

    await follow()
    assert kept(store) == [1, 2, 3]
    store.close()


@on_both_loops(real_time=True)
async def test_leaving_commits_though_it_is_cancelled(
    world: World, loop: LoopKind, gate: Gate, store: SqliteStore
) -> None:
    """What was processed is kept; what was being processed comes again."""
    world.add(TOPIC, 3)
    taken: list[int] = []

    async def follow() -> None:
        async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
            taken.extend(await take(events, 3))
            await anyio.sleep_forever()

    async def open_gate() -> None:
        await eventually(gate.reached.is_set)
        gate.opened.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_gate)
        await loop.cancel(follow, when=lambda: len(taken) == 3)
    assert kept(store) == [1, 2]
    async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
        assert await take(events, 1) == [3]
    assert kept(store) == [1, 2, 3]
    store.close()


@pytest.mark.parametrize("seed", range(3))
@on_both_loops(real_time=True)
async def test_cancelled_anywhere_each_event_is_applied_once(
    world: World, loop: LoopKind, seed: int, tmp_path: Path
) -> None:
    """Calls and whole subscriptions are cancelled at random moments; the store ends as the log."""
    log = world.add(TOPIC, LAST_SEQ)
    store = SqliteStore.open(tmp_path / "store.sqlite3", namespace="n")
    rng = random.Random(seed)
    given: list[int] = []

    async def follow() -> None:
        async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
            while True:
                event = await events.__anext__()
                assert event.seq <= (given[-1] + 1 if given else 1), "an event was skipped"
                given.append(event.seq)
                await anyio.sleep(rng.choice([0, 0.001]))

    rounds = 0
    while given[-1:] != [LAST_SEQ]:
        until, rounds = len(given) + rng.randrange(12), rounds + 1
        await loop.cancel(
            follow,
            when=lambda until=until: len(given) >= until or given[-1:] == [LAST_SEQ],  # type: ignore[misc]
        )
    await loop.cancel(follow, when=lambda: kept(store)[-1:] == [LAST_SEQ])
    assert rounds > 1
    assert kept(store) == list(range(1, LAST_SEQ + 1))
    assert [event.chain for event in store.read_history(TOPIC)] == log.chains[1:]
    store.close()


@on_both_loops
async def test_a_cancelled_emit_goes_on_its_way(world: World, khala: Khala, loop: LoopKind) -> None:
    """Once: neither lost nor repeated."""
    async with khala.run() as run:
        world.append_gate = anyio.Event()
        await loop.cancel(lambda: run.emit("thought", text="x"), when=lambda: bool(world.calls("/events")))
        world.append_gate.set()
        await run.flush()
        assert (await run.emit("thought", text="y")).seq == 3
    assert [frame.kind for frame in world.logs[TopicName(run.topic)].frames] == [
        "run.started", "thought", "thought", "run.finished",
    ]  # fmt: skip


@on_both_loops
async def test_a_cancelled_run_is_told_so(world: World, khala: Khala, loop: LoopKind) -> None:
    """Also if the cancellation is repeated while the runtime is being told; what was sent comes first."""
    world.transition_gate = anyio.Event()
    runs: list[Run] = []

    async def work() -> None:
        async with khala.run() as run:
            runs.append(run)
            await run.send("thought", {"text": "x"})
            await anyio.sleep_forever()

    async def open_gate() -> None:
        await eventually(lambda: bool(world.calls("/transitions")))
        assert world.transition_gate is not None
        world.transition_gate.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_gate)
        await loop.cancel(work, when=lambda: bool(world.calls("/events")))
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "cancelled"
    assert [frame.kind for frame in world.logs[TopicName(runs[0].topic)].frames] == [
        "run.started", "thought", "run.finished",
    ]  # fmt: skip


@on_both_loops
async def test_a_cancelled_client_leaves_nothing_open(world: World, loop: LoopKind) -> None:
    """No socket, no task: neither while connected nor while connecting."""
    world.add(TOPIC, 1)
    await anyio.wait_all_tasks_blocked()
    before = len(asyncio.all_tasks()) if loop.name == "asyncio" else 0

    async def follow() -> None:
        async with client(world) as khala, khala.subscribe(TOPIC) as events:
            while True:
                await events.__anext__()

    await loop.cancel(follow, when=lambda: bool(world.open_connections))
    await eventually(lambda: not world.open_connections)
    assert world.connections[0].socket.close_code == 1000
    await loop.cancel(follow, when=lambda: len(world.calls("/api/sync/token")) == 2)
    await eventually(lambda: not world.open_connections)
    if loop.name == "asyncio":
        await eventually(lambda: len(asyncio.all_tasks()) == before)


@on_both_loops
async def test_followers_that_outlive_their_client_are_told(world: World) -> None:
    """Used after the block was left, by mistake: an error, not a wait for ever."""
    world.add(TOPIC, 1)
    khala = client(world)
    await khala.__aenter__()
    following = khala.subscribe(TOPIC)
    events = await following.__aenter__()
    assert await take(events, 1) == [1]
    await khala.__aexit__(None, None, None)
    with pytest.raises(Unavailable, match="closed"), anyio.fail_after(5):
        await events.__anext__()
    await following.__aexit__(None, None, None)
    with pytest.raises(Unavailable, match="closed"):
        async with khala.subscribe(TOPIC):
            pytest.fail("followed by nobody")


def on_asyncio(scenario: object) -> None:
    """Run a scenario of asyncio alone."""
    assert callable(scenario)

    async def main() -> None:
        async with open_world() as world:
            world.front = AsyncioKhala
            await scenario(world)

    LOOPS[1].run(main, real_time=False)


def test_another_task_may_leave_the_block() -> None:
    """Fixtures, notebooks and lifespans enter in one task and leave in another."""

    async def scenario(world: World) -> None:
        world.add(TOPIC, 2)
        khala = client(world)
        await asyncio.create_task(khala.__aenter__())
        following = khala.subscribe(TOPIC)
        events = await asyncio.create_task(following.__aenter__())
        assert await asyncio.create_task(take(events, 2)) == [1, 2]
        await asyncio.create_task(following.__aexit__(None, None, None))
        await asyncio.create_task(khala.__aexit__(None, None, None))
        await eventually(lambda: not world.open_connections)

    on_asyncio(scenario)


def test_asyncios_own_timeouts_and_groups() -> None:
    """A time-out inside and around, and a sibling that fails: the blocks end, and are what they are."""

    async def scenario(world: World) -> None:
        world.add(TOPIC, 1)

        async def follow(seconds: float) -> None:
            head_seq = world.logs[TOPIC].head_seq
            async with client(world) as khala, khala.subscribe(TOPIC) as events:
                await take(events, head_seq)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(events.__anext__(), 0.1)
                await world.append(TOPIC)
                assert await take(events, 1) == [head_seq + 1]
                async with asyncio.timeout(seconds):
                    await events.__anext__()

        with pytest.raises(TimeoutError):
            await follow(0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await follow(60)
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

        async def fail() -> None:
            await eventually(lambda: bool(world.open_connections))
            raise ZeroDivisionError

        async def follow_beside_a_failure() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow(60))
                tasks.create_task(fail())

        with pytest.raises(ExceptionGroup) as group:
            await asyncio.create_task(follow_beside_a_failure())
        assert [type(error) for error in group.value.exceptions] == [ZeroDivisionError]
        await eventually(lambda: not world.open_connections)

    on_asyncio(scenario)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_the_wrong_loop_is_named(loop: LoopKind) -> None:
    """Each front says which import fits."""
    (other,) = [each for each in LOOPS if each is not loop]

    async def main() -> None:
        async with open_world() as world:
            with pytest.raises(RuntimeError, match="from khala_client"):
                async with loop.khala(world.settings):
                    pytest.fail("opened")

    other.run(main, real_time=False)


@on_both_loops
async def test_a_crash_of_the_client_reaches_its_users(
    world: World, loop: LoopKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in our own task: followers and emitters are told, and leaving the block raises it."""
    world.add(TOPIC, 1)

    def break_down(*_arguments: object) -> None:
        raise ZeroDivisionError

    async def follow() -> None:
        async with client(world) as khala, khala.subscribe(TOPIC) as events:
            assert await take(events, 1) == [1]
            monkeypatch.setattr(khala._link._machine, "receive_untrusted", break_down)
            await world.append(TOPIC)
            with pytest.raises(KhalaError, match="closed"):
                await take(events, 1)

    with anyio.fail_after(20), pytest.raises((ZeroDivisionError, BaseExceptionGroup)) as raised:
        await follow()
    error = raised.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, ZeroDivisionError)
