"""The migrator against a real server, also in processes that race and die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from khala_service.adapters.postgres import Row, Unavailable, open_asyncio_loop, open_pool
from khala_service.adapters.postgres_migrations import (
    MigrationDrift,
    MigrationFailed,
    MigrationReport,
    check_revision,
    run_migrations,
)
from tests.integration.khala_service import migrate_process
from tests.postgres_cluster import ROOT, Database

_Process: TypeAlias = "subprocess.Popen[str]"

_FIRST = "CREATE TABLE runtime.first (id int);\nCREATE TABLE runtime.also_first (id int);\n"
_SECOND = "CREATE TABLE runtime.second (id int);\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two migrations."""
    (tmp_path / "0001_first.sql").write_text(_FIRST)
    (tmp_path / "0002_second.sql").write_text(_SECOND)
    return tmp_path


@pytest.fixture
def start_process(empty_database: Database, directory: Path) -> Iterator[Callable[[], _Process]]:
    """Starts a migrator in a process of its own; none outlives the test."""
    with ExitStack() as exit_stack:

        def start() -> _Process:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    migrate_process.__name__,
                    empty_database.dsn("khala_runtime_owner"),
                    str(directory),
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            exit_stack.enter_context(process)  # closes the pipes and waits
            exit_stack.callback(process.kill)
            return process

        yield start


async def _migrate(database: Database, directory: Path, *, lock_wait_s: float = 10) -> MigrationReport:
    return await run_migrations(
        database.dsn("khala_runtime_owner"),
        plane="runtime",
        directory=directory,
        lock_wait_s=lock_wait_s,
    )


async def _query(database: Database, sql: str) -> list[Row]:
    async with open_pool(database.superuser_dsn, application_name="t", max_size=1) as pool:
        return await pool.fetch(sql)


async def _tables(database: Database) -> list[str]:
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'runtime' ORDER BY 1"
    return [str(row["tablename"]) for row in await _query(database, sql)]


async def _revision_reason(database: Database, directory: Path) -> str | None:
    dsn = database.dsn("khala_runtime")
    async with open_pool(dsn, application_name="t", max_size=1) as pool:
        return await check_revision(pool, plane="runtime", directory=directory)


async def test_migrations_are_applied_once(empty_database: Database, directory: Path) -> None:
    """DB-01: a second run finds nothing to do; the service role may read the revision only."""
    async with open_asyncio_loop():
        assert await _revision_reason(empty_database, directory) == "migration_required"
        first = await _migrate(empty_database, directory)
        assert first.applied == ("0001_first", "0002_second")
        assert first.revision == 2
        assert (await _migrate(empty_database, directory)).applied == ()
        assert await _revision_reason(empty_database, directory) is None
        assert await _tables(empty_database) == ["also_first", "first", "schema_migrations", "second"]


async def test_readiness_names_the_direction_of_a_mismatch(empty_database: Database, directory: Path) -> None:
    """RT-17: a database behind the build needs a migration, one ahead of it needs another build."""
    async with open_asyncio_loop():
        await _migrate(empty_database, directory)
        (directory / "0003_third.sql").write_text("CREATE TABLE runtime.third (id int);")
        assert await _revision_reason(empty_database, directory) == "migration_required"
        await _migrate(empty_database, directory)
        (directory / "0003_third.sql").unlink()
        assert await _revision_reason(empty_database, directory) == "migration_ahead"
        with pytest.raises(MigrationDrift, match="revision 3 is applied, this build knows 2"):
            await _migrate(empty_database, directory)


async def test_old_builds_stay_ready_on_a_schema_that_only_grew(
    empty_database: Database, directory: Path
) -> None:
    """RT-17, a rolling upgrade: ready iff every unknown migration names a build as old as this one."""
    third, fourth = directory / "0003_third.sql", directory / "0004_fourth.sql"
    async with open_asyncio_loop():
        third.write_text("-- oldest build: 0002\nCREATE TABLE runtime.third (id int);")
        await _migrate(empty_database, directory)
        third.unlink()
        assert await _revision_reason(empty_database, directory) is None
        (directory / "0002_second.sql").rename(directory / "0002_second.txt")
        assert await _revision_reason(empty_database, directory) == "migration_ahead"
        (directory / "0002_second.txt").rename(directory / "0002_second.sql")
        third.write_text("-- oldest build: 0002\nCREATE TABLE runtime.third (id int);")
        fourth.write_text("CREATE TABLE runtime.fourth (id int);")
        await _migrate(empty_database, directory)
        fourth.unlink()
        assert await _revision_reason(empty_database, directory) == "migration_ahead"


async def test_a_table_of_version_0_1_is_extended(empty_database: Database, directory: Path) -> None:
    """Until the migration job of this build ran, a build asks for it; what was applied stays applied."""
    async with open_asyncio_loop():
        await _migrate(empty_database, directory)
        async with open_pool(
            empty_database.dsn("khala_runtime_owner"), application_name="t", max_size=1
        ) as owner:
            await owner.execute("ALTER TABLE runtime.schema_migrations DROP COLUMN oldest_build")
        assert await _revision_reason(empty_database, directory) == "migration_required"
        assert (await _migrate(empty_database, directory)).applied == ()
        assert await _revision_reason(empty_database, directory) is None


async def test_a_changed_file_is_refused_before_anything_is_written(
    empty_database: Database, directory: Path
) -> None:
    """Invariant 3: an applied file is history."""
    async with open_asyncio_loop():
        await _migrate(empty_database, directory)
        (directory / "0001_first.sql").write_text(_FIRST + "-- a comment\n")
        (directory / "0003_third.sql").write_text("CREATE TABLE runtime.third (id int);")
        with pytest.raises(MigrationDrift, match="0001 was changed"):
            await _migrate(empty_database, directory)
        assert "third" not in await _tables(empty_database)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("CREATE TABLE runtime.third (id int); SELECT 1/0;", "division by zero"),
        ("CREATE TABLE runtime.third (id int); CREATE TABLE control.stolen (id int);", "control"),
        ("CREATE TABLE runtime.third (id int); SELEC 1;", "syntax error"),
        ("CREATE TABLE runtime.third (id int); COMMIT;", "ends the transaction"),
    ],
)
async def test_a_failing_file_leaves_the_revision_before_it(
    empty_database: Database, directory: Path, sql: str, reason: str
) -> None:
    """Invariant 2: there is no partial revision; what was wrong is said."""
    (directory / "0003_third.sql").write_text(sql)
    async with open_asyncio_loop():
        with pytest.raises(MigrationFailed, match=reason):
            await _migrate(empty_database, directory)
        rows = await _query(empty_database, "SELECT max(version) AS v FROM runtime.schema_migrations")
        assert rows[0]["v"] == 2
        if "COMMIT" not in sql:
            assert "third" not in await _tables(empty_database)


async def test_a_migrator_that_holds_the_lock_is_waited_for_in_bounded_time(
    empty_database: Database, directory: Path
) -> None:
    """Invariant 1: the wait for another migrator ends, and nothing was done."""
    (directory / "0003_slow.sql").write_text("SELECT pg_sleep(2);")
    async with open_asyncio_loop(), trio.open_nursery() as nursery:
        nursery.start_soon(_migrate, empty_database, directory)
        await _wait_for_query(empty_database, "pg_sleep(2)")
        with pytest.raises(Unavailable, match="database_lock_timeout"):
            await _migrate(empty_database, directory, lock_wait_s=0.1)


async def test_the_other_plane_does_not_wait(empty_database: Database, directory: Path) -> None:
    """The lock is per plane: control migrates while runtime does."""
    (directory / "0003_slow.sql").write_text("SELECT pg_sleep(1);")
    control = directory / "control"
    control.mkdir()
    (control / "0001_first.sql").write_text("CREATE TABLE control.first (id int);")
    dsn = empty_database.dsn("khala_control_owner")
    async with open_asyncio_loop(), trio.open_nursery() as nursery:
        nursery.start_soon(_migrate, empty_database, directory)
        await _wait_for_query(empty_database, "pg_sleep(1)")
        report = await run_migrations(dsn, plane="control", directory=control, lock_wait_s=0.2)
        assert report.applied == ("0001_first",)


async def test_two_processes_at_once_and_one_is_killed(
    empty_database: Database, directory: Path, start_process: Callable[[], _Process]
) -> None:
    """DB-10: the one left finishes; each file is applied exactly once and whole."""
    (directory / "0003_slow.sql").write_text(
        "CREATE TABLE runtime.third (id int);\nSELECT pg_sleep(1.5);\nCREATE TABLE runtime.last (id int);\n"
    )
    async with open_asyncio_loop():
        victim = start_process()
        await _wait_for_query(empty_database, "pg_sleep(1.5)")
        survivor = start_process()
        victim.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(victim.communicate)
        assert victim.returncode == -signal.SIGKILL
        assert await trio.to_thread.run_sync(_finish, survivor) == "0003_slow"
        assert await _tables(empty_database) == [
            "also_first",
            "first",
            "last",
            "schema_migrations",
            "second",
            "third",
        ]
        rows = await _query(empty_database, "SELECT version FROM runtime.schema_migrations ORDER BY version")
        assert [row["version"] for row in rows] == [1, 2, 3]


async def test_two_processes_at_once(start_process: Callable[[], _Process]) -> None:
    """DB-10: of two that start together one applies everything and the other nothing."""
    processes = [start_process() for _ in range(2)]
    said = [await trio.to_thread.run_sync(_finish, process) for process in processes]
    assert sorted(said) == ["", "0001_first,0002_second"]


def _finish(process: _Process) -> str:
    """Return what a process printed; it must have ended well."""
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out.strip()


async def _wait_for_query(database: Database, text: str) -> None:
    """Return when another connection runs a statement that contains `text`."""
    deadline = time.monotonic() + 20
    sql = (
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        " AND datname = current_database() AND query LIKE $1"
    )
    async with open_pool(database.superuser_dsn, application_name="t", max_size=1) as pool:
        while not await pool.fetch(sql, f"%{text}%"):
            assert time.monotonic() < deadline
            await trio.sleep(0.02)
