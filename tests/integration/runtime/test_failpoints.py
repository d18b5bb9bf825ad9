"""RT-06, ARC-14: kill -9 of a real runtime at each of its failpoints; the retry finds exactly one event."""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from khala_service.failpoints import FAILPOINTS
from tests.integration.runtime.process import ADMIN_TOKEN, runtime_process
from tests.integration.runtime.rig import StubControl

if TYPE_CHECKING:
    from pathlib import Path

    from khala_service.adapters.postgres import PostgresPool
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

# What a crash at the point leaves in the database. The projector's point has its own test.
COMMITTED = {
    "runtime.before_lock": 0,
    "runtime.after_insert": 0,
    "runtime.before_commit": 0,
    "runtime.committed": 1,
    "runtime.after_hint": 1,
}
USER = {"Authorization": "Bearer user"}
OPERATOR = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


def test_every_point_of_the_runtime_is_here() -> None:
    """A point that is added is killed at, here or in the projectors' tests."""
    points = {name for name in FAILPOINTS if name.startswith("runtime.")}
    assert points == COMMITTED.keys() | {"runtime.before_checkpoint"}


async def test_kill_at_every_point(runtime_database: Database, tmp_path: Path) -> None:
    """The process dies of SIGKILL at the point; restarted, it answers the same key with the same event."""
    hit_file = tmp_path / "hits.jsonl"
    async with open_asyncio_loop(), trio.open_nursery() as nursery:
        control_drain = trio.Event()
        control_port = await nursery.start(partial(StubControl().serve, drain=control_drain))
        async with (
            open_pool(runtime_database.superuser_dsn, application_name="khala-test", max_size=2) as pool,
            runtime_process(
                runtime_database,
                tmp_path,
                control_port=control_port,
                KHALA_FANOUT_DRIVER="none",
                KHALA_RUNTIME_MODE="dev",
                KHALA_RUNTIME_FAILPOINT_FILE=str(hit_file),
                KHALA_RUNTIME_ADMIN_TOKEN=ADMIN_TOKEN,
            ) as process,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{process.port}", trust_env=False, timeout=20
            ) as http,
        ):
            await process.start()
            made = await http.post("/v1/runs", json={}, headers=USER)
            run_id = made.json()["run"]["run_id"]
            path = f"/v1/runs/{run_id}/events"
            acked: dict[str, tuple[str, str]] = {}
            for point, is_committed in COMMITTED.items():
                try:
                    armed = await http.post(
                        "/internal/v1/failpoints", json={"arm": f"{point}=kill"}, headers=OPERATOR
                    )
                except httpx.TransportError:
                    # A projector's summary of an earlier event was told, and the process died of it.
                    assert point == "runtime.after_hint"
                else:
                    assert armed.status_code == 200, armed.text
                send = partial(
                    http.post,
                    path,
                    json={"events": [{"kind": "thought", "data": {"text": point}}]},
                    headers=USER | {"Idempotency-Key": point},
                )
                try:
                    # After the hint the answer may come before the end does.
                    answer = await send()
                except httpx.TransportError:
                    answer = None
                assert await process.wait() == -signal.SIGKILL
                assert answer is None or point == "runtime.after_hint"
                # The record that was taken may have been the summary of an earlier event.
                is_ours = point != "runtime.after_hint" or answer is not None
                assert not is_ours or await _count(pool, run_id, point) == is_committed, point
                await process.start()
                again = await send()
                assert again.status_code == 200, again.text
                (ack,) = again.json()["acks"]
                acked[point] = (ack["event_id"], ack["seq"])
                if answer is not None and answer.status_code == 200:
                    assert answer.json()["acks"] == [ack]
                assert await _count(pool, run_id, point) == 1, point
            rows = await pool.fetch(
                "SELECT event_id, seq FROM runtime.events WHERE topic = $1 AND seq > 1 ORDER BY seq",
                f"run:{run_id}:events",
            )
            assert [(row["event_id"], str(row["seq"])) for row in rows] == list(acked.values())
        hits = [json.loads(line) for line in hit_file.read_text(encoding="utf-8").splitlines()]
        assert [(hit["failpoint"], hit["action"]) for hit in hits] == [(name, "kill") for name in COMMITTED]
        assert len({hit["pid"] for hit in hits}) == len(COMMITTED)
        control_drain.set()


async def _count(pool: PostgresPool, run_id: str, text: str) -> int:
    row = await pool.fetchrow(
        "SELECT count(*) FROM runtime.events WHERE topic = $1 AND position($2::bytea IN payload) > 0",
        f"run:{run_id}:events",
        text.encode(),
    )
    assert row is not None
    return int(row[0])
