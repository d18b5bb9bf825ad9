"""`python -m runtime`: the migration job and the service, as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from runtime.__main__ import EXIT_CONFIG, EXIT_FAILED, NO_DRIVER, find_driver
from tests.integration.runtime.rig import CONTROL_CREDENTIAL, FANOUT_KEY, RUNTIME_CREDENTIAL
from tests.postgres_cluster import ROOT

if TYPE_CHECKING:
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

BASE = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "runtime", *arguments]


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


def test_refused_configuration() -> None:
    """Missing or wrong configuration ends with 78 and names every key; an unknown driver too."""
    nothing = run("serve")
    assert nothing.returncode == EXIT_CONFIG
    assert "runtime.database_dsn" in nothing.stderr
    assert "runtime.fanout_key" in nothing.stderr
    away = run("migrate", KHALA_MIGRATE_RUNTIME_OWNER_DSN="postgresql://x:y@127.0.0.1:1/x")
    assert away.returncode == EXIT_FAILED
    assert find_driver(NO_DRIVER).name == "silent"


def test_service_until_it_is_asked_to_stop(runtime_database: Database) -> None:
    """RT-01: the service says its port, is ready, and ends cleanly at SIGTERM."""
    environ = BASE | {
        "KHALA_RUNTIME_DATABASE_DSN": runtime_database.dsn("khala_runtime"),
        "KHALA_RUNTIME_CONTROL_URL": "http://127.0.0.1:1",
        "KHALA_RUNTIME_SERVICE_CREDENTIAL": RUNTIME_CREDENTIAL.reveal(),
        "KHALA_RUNTIME_CONTROL_CREDENTIAL": CONTROL_CREDENTIAL.reveal(),
        "KHALA_RUNTIME_FANOUT_KEY": FANOUT_KEY.hex(),
        "KHALA_RUNTIME_PORT": "0",
    }
    with subprocess.Popen(
        command("serve"), env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        ready = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        unavailable = httpx.get(
            f"http://127.0.0.1:{port}/v1/runs", headers={"Authorization": "Bearer x"}, trust_env=False
        )
        assert (unavailable.status_code, unavailable.json()["code"]) == (503, "unavailable")
        service.send_signal(signal.SIGTERM)
        _, log = service.communicate(timeout=30)
    assert service.returncode == 0, log
    assert runtime_database.dsn("khala_runtime") not in log
