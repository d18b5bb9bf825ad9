"""RT-08: whatever dies between applying and the checkpoint, each event is applied once and told in order."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from khala_service import failpoints
from khala_service.adapters.postgres import open_pool
from khala_service.failpoints import FailpointError
from runtime.actors.projector import Projector
from runtime.adapters.postgres.projection_store import PostgresProjectionStore
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.rig import ORG, transition
from tests.integration.runtime.cutting_proxy import CuttingProxy
from tests.postgres_cluster import ROOT
from tests.projectors.rig import (
    ORG_RUNS,
    STEP,
    THOUGHT,
    USER_RUNS,
    HeadsTold,
    Recorded,
    Reported,
    title_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.projectors.rig import Bench

pytestmark = pytest.mark.slow

POINT = "runtime.before_checkpoint"
KILLS = 20


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No point stays armed."""
    failpoints.disarm()
    yield
    failpoints.disarm()


async def check_applied_once(bench: Bench) -> None:
    """The read model is a clean rebuild, and each list was told each run's positions in order."""
    assert await bench.stored_hash() == await bench.clean_hash()
    rows = {row.run_id: row for row in await bench.rows()}
    assert await bench.checkpoints() == {
        f"run:{run_id}:events": row.applied_seq for run_id, row in rows.items()
    }
    for topic in (USER_RUNS, ORG_RUNS):
        told: dict[str, list[int]] = {}
        for frame in await bench.frames(topic):
            assert frame["key"] == frame["run_id"]
            told.setdefault(frame["run_id"], []).append(int(frame["head_seq"]))
        # Strictly ascending: a summary that was told twice would repeat its position.
        assert all(heads == sorted(set(heads)) for heads in told.values())
        wanted = [row for row in rows.values() if topic == USER_RUNS or row.org_id]
        assert {run_id: heads[-1] for run_id, heads in told.items()} == {
            row.run_id: row.applied_seq for row in wanted
        }


@pytest.mark.parametrize("at", range(1, KILLS + 1))
async def test_an_error_before_the_checkpoint_leaves_nothing_applied(bench: Bench, at: int) -> None:
    """Twenty points: the read model, the lists and the checkpoints are as before the step that failed."""
    runs = [await bench.make_run(org_id=ORG if number % 2 else None) for number in range(3)]
    failpoints.arm(f"{POINT}=raise@{at}")
    source = random.Random(at)
    failures = 0
    for _ in range(KILLS + 2):
        run = source.choice(runs)
        await bench.write(run, STEP, *[THOUGHT] * source.randrange(3), title_event(str(source.random())))
        before = await bench.rows(), await bench.frames(), await bench.checkpoints()
        try:
            await bench.step(*runs)
        except FailpointError:
            failures += 1
            assert (await bench.rows(), await bench.frames(), await bench.checkpoints()) == before
    assert failures == 1
    await bench.step(*runs)
    await check_applied_once(bench)


def kill_child(dsn: str, hit_file: Path, at: int) -> None:
    """Start a child that dies by SIGKILL at its n-th checkpoint, and see that it did."""
    hits_before = hit_file.read_text().count("\n") if hit_file.exists() else 0
    child = start_child(dsn, f"{POINT}=kill@{at}", hit_file)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, errors.decode()
    last = json.loads(hit_file.read_text().splitlines()[-1])
    assert (last["failpoint"], last["pid"]) == (POINT, child.pid)
    assert hit_file.read_text().count("\n") == hits_before + 1


def start_child(dsn: str, spec: str, hit_file: Path) -> subprocess.Popen[bytes]:
    """Start projecting_process.py."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.projectors.projecting_process", dsn, spec, str(hit_file)],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


# Twenty interpreters are started one after the other.
@pytest.mark.timeout(300)
async def test_kill_9_at_twenty_points_between_apply_and_checkpoint(bench: Bench, tmp_path: Path) -> None:
    """Twenty processes die by SIGKILL before their n-th checkpoint; the next goes on where COMMIT left it."""
    dsn = bench.database.dsn("khala_runtime")
    runs = [await bench.make_run(org_id=ORG if number % 2 else None) for number in range(4)]
    hit_file = tmp_path / "hits.jsonl"
    for kill in range(KILLS):
        # More than `at` pages for one run, so that the point is reached; the others get a little.
        at = 1 + kill % 5
        busy = runs[kill % len(runs)]
        await retake(bench)
        await bench.write(busy, *[STEP, THOUGHT] * (2 * at + 2))
        await bench.write(runs[(kill + 1) % len(runs)], THOUGHT)
        await trio.to_thread.run_sync(kill_child, dsn, hit_file, at)
    await retake(bench)
    for run in runs[:2]:
        await bench.commit(transition(run, RunState.FAILED))
    last = start_child(dsn, "", hit_file)
    _, errors = await trio.to_thread.run_sync(lambda: last.communicate(timeout=60))
    assert last.returncode == 0, errors.decode()
    assert hit_file.read_text().count("\n") == KILLS
    await check_applied_once(bench)
    assert sum(row.step_count for row in await bench.rows()) == sum(2 * (1 + k % 5) + 2 for k in range(KILLS))


async def retake(bench: Bench) -> None:
    """Become the writer again, after a child was."""
    bench.authority = await bench.journal.take_authority(holder="test", lineage_candidate="lin_unused")


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_connection_lost_in_commit_applies_nothing_twice(bench: Bench, cut: str) -> None:
    """Cut before the server sees COMMIT, or after it answered: the projector runs on and all is once."""
    direct = bench.database.dsn("khala_runtime")
    proxy = CuttingProxy(int(direct.rpartition(":")[2].partition("/")[0]))
    runs = [await bench.make_run(org_id=ORG) for _ in range(3)]
    metrics, heads = Reported(), HeadsTold()
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        async with open_pool(proxy.dsn(direct), application_name="khala-test-cut", max_size=2) as pool:
            store = PostgresProjectionStore(pool)
            projector = Projector(
                store,
                Recorded(),
                ids=bench.ids,
                metrics=metrics,
                supersede=lambda: None,
                tell_heads=heads.tell,
            )
            await nursery.start(projector.serve, bench.authority)
            for _ in range(5):
                proxy.cut, proxy.cuts_left = cut, 1  # type: ignore[assignment]
                for run in runs:
                    projector.offer(await bench.write(run, STEP, THOUGHT), lineage=bench.authority.lineage)
                with trio.fail_after(20):
                    while proxy.cuts_left or await bench.projections.find_behind(after_topic="", limit=1):
                        await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    assert metrics.failures.count("database") >= 5
    # Told if, and only if, it cannot be known whether the lists' frames were committed.
    assert heads.topics <= {USER_RUNS, ORG_RUNS}
    assert heads.topics or cut == "before"
    await check_applied_once(bench)
