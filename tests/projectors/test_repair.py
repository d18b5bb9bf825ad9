"""INV-19: rebuild equals live, drift names what differs, and nobody is told anything twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from khala_service.errors import Unavailable
from runtime.actors.command_path import CommandRefused
from runtime.actors.projection_repair import ProjectionRepair
from runtime.core.projections import hash_summaries
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.rig import ORG, transition
from tests.integration.runtime.raw_append import APPEND, RawEvent, append_args
from tests.postgres_cluster import Database  # noqa: TC001  # used in a signature that pytest reads
from tests.projectors.rig import STEP, THOUGHT, Recorded, open_bench, title_event

if TYPE_CHECKING:
    from runtime.core.commands import RunFacts
    from tests.projectors.rig import Bench

pytestmark = pytest.mark.slow


def repair_of(bench: Bench, relay: Recorded | None = None) -> ProjectionRepair:
    """Return what the routes call."""
    return ProjectionRepair(
        bench.projections, relay or Recorded(), ids=bench.ids, authority=lambda: bench.authority
    )


async def live_history(bench: Bench, count: int = 6) -> list[RunFacts]:
    """Make runs and project them live, in steps that fall between their events."""
    source = random.Random(count)
    runs = [await bench.make_run(org_id=ORG if number % 2 else None) for number in range(count)]
    for number in range(5 * count):
        run = source.choice(runs)
        await bench.write(run, *source.choices([STEP, THOUGHT, title_event(f"title {number}")], k=3))
        if source.random() < 0.4:
            await bench.step(*source.sample(runs, k=min(2, count)))
    for run, state in zip(runs, (RunState.SUCCEEDED, RunState.FAILED, RunState.PAUSED), strict=False):
        await bench.commit(transition(run, state))
    await bench.step(*runs)
    await bench.let_go()
    await bench.step(*runs)
    return runs


async def test_rebuild_equals_live_by_hash(bench: Bench) -> None:
    """RT-08: from zero the same rows, byte for byte; no frame is written for what was told already."""
    await live_history(bench)
    live, frames = await bench.stored_hash(), await bench.frames()
    report = await repair_of(bench).rebuild(after="", limit=100)
    assert (report.rebuilt, report.changed, report.summaries, report.failures) == (6, 0, 0, [])
    assert report.hash == live == await bench.stored_hash() == await bench.clean_hash()
    assert await bench.frames() == frames


async def test_rebuild_of_an_empty_read_model_equals_live(bench: Bench) -> None:
    """All rows are gone: the rebuild brings back exactly those that were there."""
    await live_history(bench)
    live, frames = await bench.stored_hash(), await bench.frames()
    await bench.admin.execute("DELETE FROM runtime.run_summaries")
    report = await repair_of(bench).rebuild(after="", limit=100)
    assert (report.rebuilt, report.changed, report.summaries) == (6, 6, 0)
    assert report.hash == live == await bench.stored_hash()
    assert await bench.frames() == frames


async def test_rebuild_applies_and_tells_what_live_projection_had_not(bench: Bench) -> None:
    """A rebuild ends at the head: what it finds beyond the checkpoint is told by the same policy."""
    (run,) = await live_history(bench, 1)
    other = await bench.make_run()
    relay = Recorded()
    report = await repair_of(bench, relay).rebuild(after="", limit=100)
    assert (report.rebuilt, report.summaries) == (2, 1)
    assert [commit.topic_class for commit in relay.committed] == ["user_runs"]
    assert (await bench.frames())[-1]["run_id"] == other.run_id
    assert await bench.checkpoints() == {run.topic: 17, other.topic: 1}
    assert await bench.stored_hash() == await bench.clean_hash()


async def test_drift_is_silent_while_nothing_differs(bench: Bench) -> None:
    """Events that are not applied yet are lag, not drift."""
    runs = await live_history(bench)
    await bench.write(runs[-1], THOUGHT)
    report = await repair_of(bench).drift(after="", limit=100)
    assert (report.checked, report.differences, report.next_after) == (6, [], "")
    assert report.stored_hash == report.folded_hash == hash_summaries(await bench.rows())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE runtime.run_summaries SET title = 'x' WHERE run_id = $1", "differs in title"),
        ("UPDATE runtime.run_summaries SET step_count = step_count + 1 WHERE run_id = $1", "differs in step_count"),
        ("UPDATE runtime.run_summaries SET state = 'paused' WHERE run_id = $1", "differs in state"),
        ("DELETE FROM runtime.run_summaries WHERE run_id = $1", "missing"),
        (
            "UPDATE runtime.projector_checkpoints SET applied_seq = 99 WHERE topic = 'run:' || $1 || ':events'",
            "its checkpoint 99 is beyond the log 2",
        ),
    ],
)  # fmt: skip
async def test_drift_names_the_run_and_rebuild_repairs_it(bench: Bench, damage: str, problem: str) -> None:
    """VER-07: one damaged row of three is named with what is wrong; the hashes differ until the rebuild."""
    runs = [await bench.make_run() for _ in range(3)]
    for run in runs:
        await bench.write(run, STEP)
    await bench.step(*runs)
    await bench.admin.execute(damage, runs[1].run_id)
    repair = repair_of(bench)
    report = await repair.drift(after="", limit=100)
    assert [(found.run_id, found.problem) for found in report.differences] == [(runs[1].run_id, problem)]
    if "checkpoint" in problem:
        # What the log does not have cannot be folded: a matter for people, not for a rebuild.
        failed = await repair.rebuild(after="", limit=100)
        assert [found.run_id for found in failed.failures] == [runs[1].run_id]
        return
    assert report.stored_hash != report.folded_hash
    assert (await repair.rebuild(after="", limit=100)).changed == 1
    report = await repair.drift(after="", limit=100)
    assert report.differences == []
    assert report.stored_hash == report.folded_hash


async def test_a_title_that_was_told_wrong_is_told_again(bench: Bench) -> None:
    """The list heard something that the fold does not give: the rebuild tells it, once."""
    run = await bench.make_run(attributes={"title": "right"})
    await bench.step(run)
    await bench.admin.execute("UPDATE runtime.projector_checkpoints SET published_title = 'wrong'")
    repair = repair_of(bench)
    assert (await repair.rebuild(after="", limit=10)).summaries == 1
    assert (await repair.rebuild(after="", limit=10)).summaries == 0
    assert [frame["title"] for frame in await bench.frames()] == ["right", "right"]


async def test_rebuild_and_drift_go_page_by_page(runtime_database: Database) -> None:
    """Pages of runs, and pages of events inside a run, together are everything, each once."""
    async with open_bench(runtime_database, page_events_max=3) as bench:
        runs = [await bench.make_run() for _ in range(5)]
        await bench.write(runs[2], *[STEP] * 20)
        repair = repair_of(bench)
        after, rebuilt = "", []
        while True:
            report = await repair.rebuild(after=after, limit=2)
            rebuilt.append(report.rebuilt)
            after = report.next_after
            if not after:
                break
        assert rebuilt == [2, 2, 1]
        assert await bench.stored_hash() == await bench.clean_hash()
        pages = [await repair.drift(after="", limit=3)]
        pages.append(await repair.drift(after=pages[0].next_after, limit=3))
        assert [page.checked for page in pages] == [3, 2]
        assert pages[1].next_after == ""


async def test_rebuild_beside_live_writing(bench: Bench) -> None:
    """While a run is written and projected live it is rebuilt again and again: nothing is lost or doubled."""
    run = await bench.make_run()
    done = trio.Event()

    async def write() -> None:
        for _ in range(25):
            await bench.write(run, STEP, THOUGHT)
            await bench.step(run)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while not done.is_set():
            report = await repair_of(bench).rebuild(after="", limit=10)
            assert report.failures == []
    await bench.step(run)
    (row,) = await bench.rows()
    assert (row.step_count, row.event_count) == (25, 51)
    assert await bench.stored_hash() == await bench.clean_hash()


async def test_poison_is_named_and_the_others_are_rebuilt(bench: Bench) -> None:
    """A payload that is not its kind's: that run fails, with a name; the page goes on."""
    runs = [await bench.make_run() for _ in range(3)]
    poison = RawEvent("evt_poison", kind="run.state_changed", payload=b"\xff")
    await bench.admin.fetch(
        APPEND, *append_args([(runs[1].topic, [poison])], generation=bench.authority.generation)
    )
    repair = repair_of(bench)
    report = await repair.rebuild(after="", limit=10)
    assert report.rebuilt == 2
    assert [(found.run_id, found.problem) for found in report.failures] == [
        (runs[1].run_id, "cannot be folded")
    ]
    await bench.admin.execute(
        "INSERT INTO runtime.projector_checkpoints (projector, topic, applied_seq, updated_at)"
        " VALUES ('run_summaries', $1, 2, now())",
        runs[1].topic,
    )
    drift = await repair.drift(after="", limit=10)
    assert [found.problem for found in drift.differences] == ["cannot be folded"]


async def test_a_row_that_cannot_be_compared_is_no_equality(bench: Bench) -> None:
    """A row that was written and whose events can no longer be read: the hashes say so too."""
    run = await bench.make_run()
    await bench.step(run)
    await bench.admin.execute("UPDATE runtime.events SET payload = '\\xff' WHERE topic = $1", run.topic)
    report = await repair_of(bench).drift(after="", limit=10)
    assert [found.problem for found in report.differences] == ["cannot be folded"]
    assert report.stored_hash != report.folded_hash


async def test_only_the_writer_rebuilds(bench: Bench) -> None:
    """Superseded or not started: nothing is written."""
    await bench.make_run()
    repair = ProjectionRepair(bench.projections, Recorded(), ids=bench.ids, authority=lambda: None)
    with pytest.raises(Unavailable):
        await repair.rebuild(after="", limit=10)
    await bench.journal.take_authority(holder="another", lineage_candidate="lin_unused")
    with pytest.raises(CommandRefused):
        await repair_of(bench).rebuild(after="", limit=10)
    assert await bench.rows() == []


async def test_a_page_that_is_no_run_is_refused(bench: Bench) -> None:
    """page_token is a run id."""
    with pytest.raises(CommandRefused):
        await repair_of(bench).drift(after="nonsense", limit=10)
