"""One transaction of a projector on a real database: what it applies, tells and remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala_service.errors import DatabaseError
from runtime.adapters.postgres.rows import to_us
from runtime.core import summary_pace
from runtime.core.projections import ProjectionFailed
from runtime.core.run_state_machine import RunState
from runtime.ports import Superseded
from tests.actors.runtime.rig import ORG, USER, topic_of, transition
from tests.projectors.rig import ORG_RUNS, STEP, THOUGHT, USER_RUNS, open_bench, title_event

if TYPE_CHECKING:
    from tests.postgres_cluster import Database
    from tests.projectors.rig import Bench

pytestmark = pytest.mark.slow


async def test_a_run_becomes_a_row_and_a_frame(bench: Bench) -> None:
    """The row is the fold of the events; the list of the owner is told once, under the run's key."""
    run = await bench.make_run("fix-1867", attributes={"title": "Fix the parser"})
    await bench.write(run, STEP, THOUGHT, STEP)
    step = await bench.step(run)
    (row,) = await bench.rows()
    assert (row.run_id, row.owner_user_id, row.org_id, row.name) == (run.run_id, USER, None, "fix-1867")
    assert (row.title, row.state, row.event_count, row.step_count, row.applied_seq) == (
        "Fix the parser", RunState.RUNNING, 4, 2, 4,
    )  # fmt: skip
    (frame,) = await bench.frames()
    assert frame["key"] == frame["run_id"] == run.run_id
    assert (frame["head_seq"], frame["state"], frame["name"], frame["title"]) == (
        "4", "RUN_STATE_RUNNING", "fix-1867", "Fix the parser",
    )  # fmt: skip
    assert [(commit.topic, commit.first_seq, commit.topic_class) for commit in step.committed] == [
        (USER_RUNS, 1, "user_runs")
    ]
    assert await bench.stored_hash() == await bench.clean_hash()


async def test_a_run_of_an_org_is_told_to_both_lists_and_each_head_says_whose_it_is(bench: Bench) -> None:
    """Rights of the lists: the user's head names the user alone, the org's head the org alone."""
    run = await bench.make_run(org_id=ORG)
    await bench.step(run)
    assert [frame["run_id"] for frame in await bench.frames(ORG_RUNS)] == [run.run_id]
    assert [frame["run_id"] for frame in await bench.frames(USER_RUNS)] == [run.run_id]
    heads = await bench.journal.read_topics([USER_RUNS, ORG_RUNS])
    assert (heads[USER_RUNS].owner_user_id, heads[USER_RUNS].org_id) == (USER, None)
    assert (heads[ORG_RUNS].owner_user_id, heads[ORG_RUNS].org_id) == (None, ORG)


async def test_a_title_with_a_character_that_cannot_be_stored(bench: Bench) -> None:
    """What an agent may send stops no list: NUL is left out, and row, frame and rebuild agree."""
    run = await bench.make_run()
    await bench.write(run, title_event("Fix\x00 it"))
    await bench.step(run)
    assert [row.title for row in await bench.rows()] == ["Fix it"]
    assert [frame["title"] for frame in await bench.frames()] == ["Fix it"]
    assert await bench.stored_hash() == await bench.clean_hash()


async def test_checkpoints_are_per_source_topic(bench: Bench) -> None:
    """Two runs, one of them ahead: each has its own checkpoint, and a step moves those it was given."""
    one, two = await bench.make_run(), await bench.make_run()
    await bench.write(two, THOUGHT, THOUGHT)
    await bench.step(two)
    assert await bench.checkpoints() == {two.topic: 3}
    await bench.step(one, two)
    assert await bench.checkpoints() == {one.topic: 1, two.topic: 3}


async def test_applying_again_changes_nothing(bench: Bench) -> None:
    """RT-08: a step that finds nothing new writes nothing, commits nothing, tells nothing."""
    run = await bench.make_run()
    await bench.step(run)
    before = await bench.rows(), await bench.frames(), await bench.checkpoints()
    for _ in range(3):
        step = await bench.step(run)
        assert step.committed == []
        assert [result.applied_count for result in step.results()] == [0]
    assert (await bench.rows(), await bench.frames(), await bench.checkpoints()) == before


async def test_a_page_at_a_time(runtime_database: Database) -> None:
    """A long backlog is applied in bounded steps; what is left is said by the checkpoint."""
    async with open_bench(runtime_database, page_events_max=4) as bench:
        run = await bench.make_run()
        await bench.write(run, *[THOUGHT] * 9)
        applied = []
        while (await bench.checkpoints()).get(run.topic, 0) < 10:
            (result,) = (await bench.step(run)).results()
            applied.append(result.applied_count)
        assert applied == [4, 4, 2]
        assert await bench.stored_hash() == await bench.clean_hash()


async def test_only_a_change_of_status_or_title_is_told_within_the_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions are held back; status and title are not; the latest is told, and only once."""
    run = await bench.make_run()
    await bench.step(run)
    bench.hold_back(monkeypatch)
    await bench.write(run, THOUGHT)
    (held,) = (await bench.step(run)).results()
    assert held.wait_us is not None
    assert 0 < held.wait_us <= summary_pace.PUBLISH_EVERY_US
    assert len(await bench.frames()) == 1
    await bench.write(run, title_event("Another name"))
    await bench.step(run)
    await bench.commit(transition(run, RunState.SUCCEEDED))
    (told,) = (await bench.step(run)).results()
    assert told.wait_us is None
    frames = await bench.frames()
    assert [(frame["head_seq"], frame["title"], frame["state"]) for frame in frames] == [
        ("1", "", "RUN_STATE_RUNNING"),
        ("3", "Another name", "RUN_STATE_RUNNING"),
        ("4", "Another name", "RUN_STATE_SUCCEEDED"),
    ]


async def test_the_time_of_a_frame_is_when_it_was_told(bench: Bench) -> None:
    """The throttle measures from the frame that readers have, by the clock that is written on it."""
    run = await bench.make_run()
    await bench.step(run)
    (frame,) = await bench.frames()
    row = await bench.admin.fetchrow("SELECT published_at FROM runtime.projector_checkpoints")
    assert row is not None
    assert to_us(row["published_at"]) == frame["at_us"]


async def test_what_was_held_back_is_told_without_another_event(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latest wins: the last position before silence is told once its second is over, in one frame."""
    run = await bench.make_run()
    await bench.step(run)
    bench.hold_back(monkeypatch)
    for _ in range(3):
        await bench.write(run, THOUGHT)
        (held,) = (await bench.step(run)).results()
        assert held.wait_us is not None
    assert [source.topic for source in await bench.projections.find_behind(after_topic="", limit=9)] == [
        run.topic
    ]
    await bench.let_go()
    for _ in range(2):
        await bench.step(run)
    assert [frame["head_seq"] for frame in await bench.frames()] == ["1", "4"]
    assert await bench.projections.find_behind(after_topic="", limit=9) == []


async def test_two_projectors_at_once_apply_each_event_once(bench: Bench) -> None:
    """Steps of the same runs that race wait for each other's checkpoints: nothing counts twice."""
    runs = [await bench.make_run() for _ in range(4)]
    applied: list[int] = []

    async def race() -> None:
        step = await bench.step(*runs)
        applied.extend(result.applied_count for result in step.results())

    # In the first round the checkpoints are made, in the others they are there.
    for _ in range(4):
        for run in runs:
            await bench.write(run, *[STEP] * 5)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(race)
    assert sum(applied) == 4 * 21
    assert [row.step_count for row in await bench.rows()] == [20] * 4
    assert await bench.stored_hash() == await bench.clean_hash()
    heads: dict[str, list[int]] = {}
    for frame in await bench.frames():
        heads.setdefault(frame["run_id"], []).append(int(frame["head_seq"]))
    assert all(told == sorted(set(told)) for told in heads.values())


async def test_a_superseded_projector_writes_nothing(bench: Bench) -> None:
    """INV-17 holds for projectors too."""
    run = await bench.make_run()
    await bench.journal.take_authority(holder="another", lineage_candidate="lin_unused")
    with pytest.raises(Superseded):
        await bench.step(run)
    assert await bench.rows() == []
    assert await bench.checkpoints() == {}


async def test_a_topic_without_a_head_is_no_source(bench: Bench) -> None:
    """News of a run that was never committed makes no checkpoint."""
    run = await bench.make_run()
    ghost = attrs.evolve(run, topic=topic_of(999))
    step = await bench.step(ghost)
    assert step.results() == []
    assert await bench.checkpoints() == {}


async def test_a_row_that_is_not_where_its_checkpoint_is_stops_its_run_alone(bench: Bench) -> None:
    """Never fold on top of a row of another position: that would count events twice, or skip some."""
    run = await bench.make_run()
    await bench.step(run)
    await bench.write(run, THOUGHT)
    await bench.admin.execute("DELETE FROM runtime.run_summaries")
    with pytest.raises(ProjectionFailed, match="row=none"):
        await bench.step(run)
    assert await bench.checkpoints() == {run.topic: 1}


async def test_the_database_refuses_a_checkpoint_that_was_not_held(bench: Bench) -> None:
    """write_checkpoints_v1 moves a checkpoint only from where its caller found it."""
    run = await bench.make_run()
    await bench.step(run)
    with pytest.raises(DatabaseError) as refused:
        await bench.pool.execute(
            "SELECT runtime.write_checkpoints_v1('run_summaries', $1, $2, $3, $4, $5, $6, now())",
            [run.topic], [0], [9], [None], [None], [None],
        )  # fmt: skip
    assert refused.value.sqlstate == "KH003"


async def test_the_database_refuses_an_event_that_counts_twice(bench: Bench) -> None:
    """RT-08, no double-applied counter: the count of a row is its position, or the row is not written."""
    run = await bench.make_run()
    await bench.step(run)
    with pytest.raises(DatabaseError) as refused:
        await bench.admin.execute("UPDATE runtime.run_summaries SET event_count = event_count + 1")
    assert refused.value.sqlstate == "23514"
