"""`python -m runtime`: the migration job and the service, as processes."""

from __future__ import annotations

import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from khala_service.service_process import EXIT_FAILED, EXIT_REFUSED
from tests.integration.runtime.open_stream import open_stream
from tests.integration.runtime.process import BASE, command, environ_of, runtime_process
from tests.integration.runtime.rig import StubControl, thought
from tests.postgres_cluster import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        env=BASE | environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_migrating_twice_and_at_once(empty_database: Database) -> None:
    """DB-01, DB-10: two jobs at once both succeed, one of them applies; a third finds nothing to do."""
    environ = BASE | {"KHALA_MIGRATE_RUNTIME_OWNER_DSN": empty_database.dsn("khala_runtime_owner")}
    jobs = [
        subprocess.Popen(command("migrate"), env=environ, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    logs = [job.communicate(timeout=60)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], logs
    assert sum("migration_applied" in log for log in logs) == 1
    third = run("migrate", KHALA_MIGRATE_RUNTIME_OWNER_DSN=empty_database.dsn("khala_runtime_owner"))
    assert (third.returncode, "migration_applied" in third.stderr) == (0, False)


def test_migration_needs_the_owner(empty_database: Database) -> None:
    """As the service's own role nothing can be migrated, and the job says so with a failure."""
    failed = run("migrate", KHALA_MIGRATE_RUNTIME_OWNER_DSN=empty_database.dsn("khala_runtime"))
    assert failed.returncode != 0


def test_refused_configuration(runtime_database: Database) -> None:
    """Missing or wrong configuration ends with 78 and names every key."""
    nothing = run("serve")
    assert nothing.returncode == EXIT_REFUSED
    assert "runtime.database_dsn" in nothing.stderr
    assert "runtime.fanout_key" in nothing.stderr
    armed = run("serve", **environ_of(runtime_database, KHALA_RUNTIME_FAILPOINTS="runtime.committed=kill"))
    assert (armed.returncode, "failpoints: accepted in mode dev only" in armed.stderr) == (EXIT_REFUSED, True)
    away = run("migrate", KHALA_MIGRATE_RUNTIME_OWNER_DSN="postgresql://x:y@127.0.0.1:1/x")
    assert away.returncode == EXIT_FAILED


async def test_service_until_it_is_asked_to_stop(runtime_database: Database, tmp_path: Path) -> None:
    """RT-01: ready once control is there; SIGTERM ends a stream with its acks, then the process with 0."""
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        control = await nursery.start(partial(StubControl().serve, drain=drain))
        async with (
            runtime_process(
                runtime_database, tmp_path, control_port=control, KHALA_FANOUT_DRIVER="none"
            ) as process,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{process.port}", trust_env=False, timeout=20
            ) as http,
        ):
            await process.start()
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (200, True)
            made = await http.post("/v1/runs", json={}, headers={"Authorization": "Bearer user"})
            async with open_stream(process.port, made.json()["run"]["run_id"]) as stream:
                await stream.send(thought("a"))
                assert "committed" in await stream.line()
                process.send_signal(signal.SIGTERM)
                assert (await stream.line())["failed"]["code"] == "draining"
                await stream.wait_end()
            assert await process.wait() == 0, process.log_file.read_text(encoding="utf-8")
        drain.set()
    assert runtime_database.dsn("khala_runtime") not in process.log_file.read_text(encoding="utf-8")
