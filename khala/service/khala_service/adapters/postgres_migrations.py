"""Brings one plane's schema to the revision of this build; safe to run twice, or two at once.

Invariants:
1. One migrator per plane at a time: a session advisory lock, waited for at most `lock_wait_s`. It
   dies with the connection, so a killed migrator blocks nobody.
2. A file and its row in ``<plane>.schema_migrations`` commit together: there is no partial revision.
3. A file that was applied never changes: another checksum, or a revision unknown to this build, is
   refused before anything is written.
Runs as the plane's owner role; the services' roles cannot change a schema.
"""

import hashlib
from typing import Final, Literal, TypeAlias

import asyncpg
import attrs

from khala_service.adapters.asyncio_bridge import run_in_asyncio
from khala_service.adapters.postgres import PostgresPool
from khala_service.adapters.postgres_errors import translated
from khala_service.errors import DatabaseError
from khala_service.logs import get_logger
from khala_service.migration_files import (
    Directory,
    Migration,
    MigrationFilesInvalid,
    expected_revision,
    read_migrations,
)
from khala_service.secret import Secret

__all__ = [
    "MigrationDrift",
    "MigrationFailed",
    "MigrationFilesInvalid",
    "MigrationReport",
    "Plane",
    "check_revision",
    "expected_revision",
    "run_migrations",
]

Plane: TypeAlias = Literal["control", "runtime"]

CONNECT_TIMEOUT_S: Final = 10.0
# Another migrator may be rewriting a table; a deploy job waits, a person would look.
LOCK_WAIT_S: Final = 60.0
# A migration that waits for a table lock blocks everybody who comes after it: give up soon.
TABLE_LOCK_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 300.0

_log = get_logger(__name__)


class MigrationDrift(Exception):
    """The database and this build disagree about what was applied; a person must look."""


class MigrationFailed(Exception):
    """A file was refused by PostgreSQL and rolled back; the revision is the one before it.

    The message quotes PostgreSQL: schema files contain no user data.
    """


@attrs.frozen
class MigrationReport:
    """What one run did: the files applied now, and the revision reached."""

    plane: str
    applied: tuple[str, ...]
    revision: int


async def run_migrations(
    owner_dsn: Secret | str,
    *,
    plane: Plane,
    directory: Directory,
    lock_wait_s: float = LOCK_WAIT_S,
) -> MigrationReport:
    """Apply every file that is not applied yet. Must run inside `open_asyncio_loop`.

    Args:
        owner_dsn: DSN of the plane's owner role.
        plane: Which schema; names its lock and its revision table.
        directory: Folder of the ``NNNN_name.sql`` files.
        lock_wait_s: Longest wait for another migrator, seconds.

    Raises:
        MigrationDrift, MigrationFilesInvalid, MigrationFailed: nothing or whole files were applied;
            running again without a change gives the same.
        Unavailable: database away, or another migrator held the lock too long. Run again.
    Cancellation: the current file is rolled back; those before it stay.
    """
    migrations = read_migrations(directory)
    dsn = owner_dsn.reveal() if isinstance(owner_dsn, Secret) else owner_dsn
    with translated(may_have_committed=False):
        return await run_in_asyncio(_migrate, dsn, plane, migrations, lock_wait_s)


async def check_revision(pool: PostgresPool, *, plane: Plane, directory: Directory) -> str | None:
    """Return None if this build works on the database's schema, else the reason for not ready.

    A newer schema is fine if every migration that this build does not know names a build as old as this
    one (``oldest build``, see `migration_files`).

    Reasons: ``migration_required`` (database behind, or never migrated), ``migration_ahead`` (newer, and
    not made for this build).

    Raises:
        Unavailable: the database did not answer.
    """
    expected = expected_revision(directory)
    try:
        row = await pool.fetchrow(
            f"""
            SELECT max(version) AS revision,
                   max(coalesce(oldest_build, version)) FILTER (WHERE version > $1) AS oldest_build
            FROM {plane}.schema_migrations
            """,  # noqa: S608  # plane is a Literal
            expected,
        )
    except DatabaseError as error:
        # undefined table, schema or column, no right on either: never migrated by our owner role, or
        # not by one of this build
        if error.sqlstate in {"42P01", "3F000", "42703", "42501"}:
            return "migration_required"
        raise
    assert row is not None  # an aggregate always has one
    if row["revision"] is None or row["revision"] < expected:
        return "migration_required"
    return "migration_ahead" if (row["oldest_build"] or 0) > expected else None


async def _migrate(
    dsn: str, plane: Plane, migrations: tuple[Migration, ...], lock_wait_s: float
) -> MigrationReport:
    """Do the work of `run_migrations`; an asyncio coroutine, as everything below."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_S,
        server_settings={
            "application_name": f"khala-migrate-{plane}",
            "timezone": "UTC",
            "lock_timeout": str(round(lock_wait_s * 1000)),
            "statement_timeout": str(round(STATEMENT_TIMEOUT_S * 1000)),
        },
    )
    try:
        # lock_timeout bounds the wait for advisory locks too.
        await connection.execute("SELECT pg_catalog.pg_advisory_lock($1)", _lock_key(plane))
        await connection.execute(f"SET lock_timeout = {round(TABLE_LOCK_TIMEOUT_S * 1000)}")
        await _ensure_table(connection, plane)
        applied = await _read_applied(connection, plane)
        _refuse_drift(plane, migrations, applied)
        new = [migration for migration in migrations if migration.version not in applied]
        for migration in new:
            await _apply(connection, plane, migration)
            _log.info("migration_applied", plane=plane, version=migration.version)
    finally:
        # Closing also gives the advisory lock back; terminate() cannot wait or fail.
        connection.terminate()
    return MigrationReport(
        plane=plane,
        applied=tuple(f"{migration.version:04d}_{migration.name}" for migration in new),
        revision=migrations[-1].version,
    )


async def _ensure_table(connection: "asyncpg.Connection[asyncpg.Record]", plane: Plane) -> None:
    await connection.execute(
        f"""
        CREATE TABLE IF NOT EXISTS {plane}.schema_migrations (
            version integer PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
            oldest_build integer
        );
        GRANT SELECT ON {plane}.schema_migrations TO khala_{plane};
        """
    )
    has_column = await connection.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_attribute
            WHERE attrelid = $1::pg_catalog.regclass AND attname = 'oldest_build'
        )
        """,
        f"{plane}.schema_migrations",
    )
    if not has_column:
        # Made by version 0.1. Not asked for each time: ALTER TABLE waits for whoever reads the table.
        await connection.execute(f"ALTER TABLE {plane}.schema_migrations ADD COLUMN oldest_build integer")


async def _read_applied(connection: "asyncpg.Connection[asyncpg.Record]", plane: Plane) -> dict[int, str]:
    rows = await connection.fetch(f"SELECT version, checksum FROM {plane}.schema_migrations")  # noqa: S608  # plane is a Literal
    return {row["version"]: row["checksum"] for row in rows}


def _refuse_drift(plane: Plane, migrations: tuple[Migration, ...], applied: dict[int, str]) -> None:
    known = {migration.version: migration for migration in migrations}
    for version, checksum in sorted(applied.items()):
        if version not in known:
            raise MigrationDrift(f"{plane}: revision {version} is applied, this build knows {len(known)}")
        if known[version].checksum != checksum:
            raise MigrationDrift(f"{plane}: file {version:04d} was changed after it had been applied")


async def _apply(
    connection: "asyncpg.Connection[asyncpg.Record]", plane: Plane, migration: Migration
) -> None:
    label = f"{plane} {migration.version:04d}_{migration.name}"
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            if not connection.is_in_transaction():
                raise MigrationFailed(f"{label}: the file ends the transaction it runs in")
            await connection.execute(
                f"""
                INSERT INTO {plane}.schema_migrations (version, name, checksum, oldest_build)
                VALUES ($1, $2, $3, $4)
                """,  # noqa: S608  # plane is a Literal
                migration.version,
                migration.name,
                migration.checksum,
                migration.oldest_build,
            )
    except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError) as error:
        raise MigrationFailed(f"{label}: {error}") from error
    except (asyncpg.DataError, asyncpg.FeatureNotSupportedError, asyncpg.RaiseError) as error:
        raise MigrationFailed(f"{label}: {error}") from error


def _lock_key(plane: Plane) -> int:
    """Return the advisory lock's key: the same for every build, different per plane."""
    digest = hashlib.sha256(f"khala.migrations.{plane}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
