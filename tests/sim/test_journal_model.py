"""What the simulated database does that the suites of its stores do not ask for: waits, crashes, unknown outcomes."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from chaos.sim.gates import DatabaseFaults, Latency, PortGate
from chaos.sim.journal_model import JournalModel
from chaos.sim.row_locks import Holder, RowLocks
from khala.core.limits import NodeLimits
from khala.ports import JournalUnavailableError
from khala_contracts.topics import Lineage
from khala_service.errors import SerializationTrouble, Unavailable
from runtime.core.batch_commit import BatchCommit
from runtime.core.outcomes import Answered, Appended, Refused
from runtime.core.rate_limit import RateLimiter
from runtime.core.run_transfer import RunTransfer, TransferOrder
from runtime.ports import Superseded
from tests.actors.runtime.memory_journal_store import calm_faults, open_gate
from tests.actors.runtime.rig import (
    LINEAGE,
    OTHER_USER,
    USER,
    CountingIds,
    alone,
    append,
    create,
    facts,
    key,
    person,
    thoughts,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from chaos.sim.journal_model import ModelStore
    from runtime.core.commands import Request
    from runtime.core.outcomes import Outcome

# -- locks -------------------------------------------------------------------------------------------

ROW, OTHER_ROW = ("head", "a"), ("head", "b")


async def test_sharers_share_and_nobody_overtakes(autojump_clock: MockClock) -> None:
    """A writer waits for all who share; who comes to share after it waits behind it."""
    del autojump_clock
    locks, order = RowLocks(), []
    first, second, writer, late = (Holder() for _ in range(4))
    await locks.lock(first, ROW, timeout_s=1, is_shared=True)
    await locks.lock(second, ROW, timeout_s=1, is_shared=True)

    async def take(name: str, holder: Holder, *, is_shared: bool) -> None:
        await locks.lock(holder, ROW, timeout_s=10, is_shared=is_shared)
        order.append((name, trio.current_time()))
        await trio.sleep(1)
        locks.release_all(holder)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: take("writer", writer, is_shared=False))
        await trio.sleep(0.1)
        nursery.start_soon(lambda: take("late", late, is_shared=True))
        await trio.sleep(0.9)
        locks.release_all(first)
        await trio.sleep(1)
        locks.release_all(second)
    assert order == [("writer", 2.0), ("late", 3.0)]
    assert locks.holders(ROW) == []


@pytest.mark.parametrize(("held_s", "outcome"), [(1.9, "locked"), (2.1, "database_lock_timeout")])
async def test_waiting_ends(autojump_clock: MockClock, held_s: float, outcome: str) -> None:
    """A lock that is not to be had in time is no lock; whoever waited behind is not held up by it."""
    del autojump_clock
    locks, holder, waiter = RowLocks(), Holder(), Holder()
    await locks.lock(holder, ROW, timeout_s=1)
    seen: list[str] = []

    async def wait() -> None:
        try:
            await locks.lock(waiter, ROW, timeout_s=2)
        except Unavailable as error:
            seen.append(error.reason)
        else:
            seen.append("locked")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(held_s)
        locks.release_all(holder)
    assert seen == [outcome]
    assert locks.holders(ROW) == ([waiter] if outcome == "locked" else [])


async def test_a_circle_of_waiters_is_found(autojump_clock: MockClock) -> None:
    """Two that lock two rows in opposite orders: the second is rolled back, the first goes on."""
    del autojump_clock
    locks, one, two = RowLocks(), Holder(), Holder()
    await locks.lock(one, ROW, timeout_s=1)
    await locks.lock(two, OTHER_ROW, timeout_s=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: locks.lock(one, OTHER_ROW, timeout_s=5))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SerializationTrouble) as met:
            await locks.lock(two, ROW, timeout_s=5)
        assert met.value.sqlstate == "40P01"
        locks.release_all(two)
    assert locks.holders(OTHER_ROW) == [one]
    assert locks.deadlocks == 1


# -- transactions --------------------------------------------------------------------------------------


@attrs.define
class Runtime:
    """One process with a writer of its own."""

    gate: PortGate
    store: ModelStore
    generation: int

    @classmethod
    async def start(cls, model: JournalModel, name: str) -> Runtime:
        gate = open_gate(name)
        store = model.open_store(gate)
        authority = await store.take_authority(holder=name, lineage_candidate=LINEAGE)
        return cls(gate, store, authority.generation)

    async def commit(self, *requests: Request) -> list[Outcome]:
        batch = BatchCommit(alone(*requests), limiter=RateLimiter({}), now=0.0, lineage=Lineage(LINEAGE))
        async with self.store.open_writer(self.generation) as writer:
            await writer.commit_batch(batch)
        return [outcome for (outcome,) in batch.outcomes()]


def open_model(faults: DatabaseFaults | None = None, *, seed: int = 0) -> JournalModel:
    """Return an empty database."""
    return JournalModel(rng=Random(seed), faults=faults or calm_faults())


RUN = facts(1, name="n")


async def test_a_take_over_waits_for_the_writer_and_then_refuses_it(autojump_clock: MockClock) -> None:
    """ARC: a commit that was under way ends before the next generation begins; none ends after it."""
    del autojump_clock
    model = open_model(attrs.evolve(calm_faults(), commit=Latency(0.5, 0.5)))
    old = await Runtime.start(model, "old")
    await old.commit(create(RUN))
    seen: list[tuple[str, int]] = []

    async def write() -> None:
        await old.commit(append(RUN, thoughts("under way")))
        seen.append(("committed", model.tables.generation))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(0.1)
        new = await Runtime.start(model, "new")
        seen.append(("taken", new.generation))
    assert seen == [("committed", 1), ("taken", 2)]
    with pytest.raises(Superseded):
        await old.commit(append(RUN, thoughts("late")))
    assert len(model.lines()[RUN.topic]) == 2


async def test_two_writers_of_one_topic_wait_and_of_two_do_not(autojump_clock: MockClock) -> None:
    """Locks are those of rows: only a shared head makes one commit wait for the other."""
    del autojump_clock
    model = open_model(attrs.evolve(calm_faults(), lock_timeout_s=5))
    runtime = await Runtime.start(model, "one")
    other = facts(2)
    await runtime.commit(create(RUN), create(other))
    model.database.faults.commit = Latency(1.0, 1.0)
    for second, duration_s in ((RUN, 2.0), (other, 1.0)):
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.commit, append(RUN, thoughts("a")))
            nursery.start_soon(runtime.commit, append(second, thoughts("b")))
        assert trio.current_time() - begun == duration_s
    assert [line.seq for line in model.lines()[RUN.topic]] == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(6))
async def test_a_crash_in_commit_is_decided_by_a_coin(autojump_clock: MockClock, seed: int) -> None:
    """The process learns nothing; the server decides, and holds the locks until it has."""
    del autojump_clock
    faults = attrs.evolve(calm_faults(), commit=Latency(1.0, 1.0), linger=Latency(0.5, 0.5), lock_timeout_s=5)
    model = open_model(faults, seed=seed)
    dead = await Runtime.start(model, "dead")
    await dead.commit(create(RUN))
    returned = False

    async def write() -> None:
        nonlocal returned
        await dead.commit(append(RUN, thoughts("maybe"), "k"))
        returned = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(0.5)
        dead.gate.sever()
        nursery.cancel_scope.cancel()
    assert not returned
    assert len(model.lines()[RUN.topic]) == 1
    heir_gate = open_gate("heir")
    heir = model.open_store(heir_gate)
    model.database.faults.commit = Latency()
    begun = trio.current_time()
    await heir.take_authority(holder="heir", lineage_candidate=LINEAGE)
    assert trio.current_time() - begun == 0.5
    is_there = len(model.lines()[RUN.topic]) == 2
    assert (await heir.read_key("scope", "k") is not None) is is_there
    assert model.database.open == {}


def test_both_sides_of_the_coin_fall() -> None:
    """Of a crash in COMMIT, both outcomes occur among few seeds."""
    seen = {Random(seed).random() < 0.5 for seed in range(6)}
    assert seen == {True, False}


@pytest.mark.parametrize(("fault", "is_there"), [("lost_before_commit", False), ("lost_after_commit", True)])
async def test_an_answer_that_is_lost(autojump_clock: MockClock, fault: str, is_there: bool) -> None:
    """Either way the outcome is unknown, and the key tells."""
    del autojump_clock
    model = open_model()
    runtime = await Runtime.start(model, "one")
    await runtime.commit(create(RUN))
    setattr(model.database.faults, fault, 1.0)
    with pytest.raises(Unavailable) as lost:
        await runtime.commit(append(RUN, thoughts("a"), "k"))
    assert lost.value.outcome_unknown
    assert (await runtime.store.read_key("scope", "k") is not None) is is_there
    assert len(model.lines()[RUN.topic]) == 1 + is_there


async def test_a_restart_loses_every_connection(autojump_clock: MockClock) -> None:
    """Also those that wait for a lock and those that are idle; the next ones are fine."""
    del autojump_clock
    model = open_model()
    runtime = await Runtime.start(model, "one")
    await runtime.commit(create(RUN))
    async with runtime.store.open_writer(runtime.generation) as idle:
        model.restart()
        batch = BatchCommit(
            alone(append(RUN, thoughts("a"))), limiter=RateLimiter({}), now=0.0, lineage=Lineage(LINEAGE)
        )
        with pytest.raises(Unavailable) as lost:
            await idle.commit_batch(batch)
    assert (lost.value.reason, lost.value.outcome_unknown) == ("database_connection_lost", False)
    assert isinstance((await runtime.commit(append(RUN, thoughts("b"))))[0], Appended)


async def test_a_restore_puts_the_copy_back_and_a_floor_moves() -> None:
    """The rest never happened; the copy may be used again; a locked head's floor does not move."""
    model = open_model()
    runtime = await Runtime.start(model, "one")
    await runtime.commit(create(RUN), append(RUN, thoughts("a")))
    copy = model.snapshot()
    await runtime.commit(append(RUN, thoughts("b", "c")))
    assert model.move_floor(RUN.topic, 4, "retention_expired")
    assert not model.move_floor(RUN.topic, 6, "retention_expired")
    assert (model.floors()[RUN.topic], len(model.lines()[RUN.topic])) == (4, 4)
    for lineage in (None, Lineage("lin_2")):
        model.restore(copy, lineage=lineage)
        assert (model.floors()[RUN.topic], len(model.lines()[RUN.topic])) == (1, 2)
        assert model.tables.lineage == (lineage or LINEAGE)
        await runtime.commit(append(RUN, thoughts("other")))
        assert len(model.lines()[RUN.topic]) == 3


async def test_a_transfer_moves_run_name_head_and_lists() -> None:
    """Everything that says whose run it is, in one transaction; a taken name refuses it."""
    model = open_model()
    runtime = await Runtime.start(model, "one")
    ids = CountingIds(900)

    async def transfer(run_number: int) -> RunTransfer:
        order = TransferOrder(person(USER), facts(run_number).run_id, OTHER_USER, "request", key())
        moved = RunTransfer(order, new_event_id=lambda: ids.new("evt"))
        await runtime.store.run_transfer(moved, generation=runtime.generation)
        return moved

    await runtime.commit(
        create(RUN), create(facts(2, name="m", owner=OTHER_USER)), create(facts(3, name="m"))
    )
    moved = await transfer(1)
    assert isinstance(moved.outcome, Answered)
    run = await runtime.store.read_run(RUN.run_id)
    assert run is not None
    assert (run.facts.owner_user_id, run.head_seq) == (OTHER_USER, 2)
    head = await runtime.store.read_topic(RUN.topic)
    assert head is not None
    assert head.owner_user_id == OTHER_USER
    assert {committed.topic_class for committed in moved.committed} == {"run_events", "user_runs"}
    taken = await transfer(3)
    assert isinstance(taken.outcome, Refused)
    assert taken.outcome.reason.name == "name_taken"
    # The former owner's name is free again.
    assert isinstance((await runtime.commit(create(facts(4, name="n"))))[0], Answered)


async def test_a_place_that_is_cut_off_from_the_database(autojump_clock: MockClock) -> None:
    """Only that place: its runtime and its node hear nothing, and the others go on."""
    del autojump_clock
    model = open_model()
    runtime = await Runtime.start(model, "here")
    await runtime.commit(create(RUN))
    near = model.open_reader(open_gate("here", "node"), NodeLimits())
    far = model.open_reader(open_gate("there", "node"), NodeLimits())
    model.database.faults.cut_from["here"] = None
    with pytest.raises(JournalUnavailableError):
        await near.read_heads([RUN.topic])
    with pytest.raises(Unavailable):
        await runtime.store.read_topic(RUN.topic)
    (head,) = await far.read_heads([RUN.topic])
    assert head.head_seq == 1
    assert (near.reads["read_heads"], far.reads["read_heads"]) == (1, 1)


async def test_a_slow_answer_is_an_old_one(autojump_clock: MockClock) -> None:
    """A read sees one moment, and is told later."""
    del autojump_clock
    model = open_model()
    runtime = await Runtime.start(model, "one")
    await runtime.commit(create(RUN))
    reader = model.open_reader(open_gate("node", "node"), NodeLimits())
    model.database.faults.statement = Latency(1.0, 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.commit, append(RUN, thoughts("later")))
        (seen,) = await reader.read_heads([RUN.topic])
        assert seen.head_seq == 1
    assert model.lines()[RUN.topic][-1].seq == 2
