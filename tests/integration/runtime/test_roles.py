"""What no role may do, statement by statement: every table, every function, both planes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.integration.runtime.raw_append import APPEND, RawEvent, append_args, connected

if TYPE_CHECKING:
    from tests.postgres_cluster import Database, Role

TABLES = (
    "lineage",
    "generation",
    "events",
    "journal",
    "journal_0",
    "topic_heads",
    "runs",
    "idempotency_keys",
    "projector_checkpoints",
    "run_summaries",
    "schema_migrations",
)
# A column of each table that an UPDATE can name.
COLUMNS = {
    "lineage": "reason",
    "generation": "holder",
    "events": "payload",
    "journal": "entry",
    "journal_0": "entry",
    "topic_heads": "head_seq",
    "runs": "state",
    "idempotency_keys": "response",
    "projector_checkpoints": "applied_seq",
    "run_summaries": "title",
    "schema_migrations": "name",
}
MAY_READ: dict[str, frozenset[str]] = {
    "khala_runtime": frozenset(TABLES) - {"journal_0"},
    "khala_reader": frozenset({"lineage", "journal", "topic_heads"}),
    "khala_control": frozenset(),
    "khala_control_owner": frozenset(),
}
MAY_CALL = {
    "khala_runtime": frozenset(
        {
            "append_v1",
            "lock_heads_v1",
            "lock_batch_v1",
            "finish_batch_v1",
            "take_generation_v1",
            "hold_generation_v1",
            "ensure_lineage_v1",
            "delete_expired_keys_v1",
            "lock_checkpoints_v1",
            "lock_checkpoints_v2",
            "transfer_run_v1",
            "transfer_heads_v1",
            "apply_run_summaries_v1",
            "write_checkpoints_v1",
        }
    )
}
ROLES: tuple[Role, ...] = ("khala_runtime", "khala_reader", "khala_control", "khala_control_owner")
_INSUFFICIENT_PRIVILEGE = "42501"


def statements_forbidden_to(role: str) -> list[str]:
    """Return every statement on the plane's tables that this role must be refused."""
    forbidden: list[str] = []
    for table in TABLES:
        column = COLUMNS[table]
        if table not in MAY_READ[role]:
            forbidden += [f"SELECT FROM runtime.{table}", f"COPY runtime.{table} TO STDOUT"]
        forbidden += [
            f"INSERT INTO runtime.{table} DEFAULT VALUES",
            f"UPDATE runtime.{table} SET {column} = {column}",
            f"DELETE FROM runtime.{table}",
            f"TRUNCATE runtime.{table}",
            f"SELECT FROM runtime.{table} FOR UPDATE",
            f"LOCK TABLE runtime.{table} IN EXCLUSIVE MODE",
            f"ALTER TABLE runtime.{table} ADD COLUMN mine int",
            f"CREATE INDEX ON runtime.{table} ({column})",
            f"DROP TABLE runtime.{table}",
        ]
    forbidden += [
        "CREATE TABLE runtime.mine (x int)",
        "CREATE FUNCTION runtime.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE public.mine (x int)",
        "ALTER FUNCTION runtime.hold_generation_v1(bigint) SECURITY INVOKER",
        "DROP FUNCTION runtime.hold_generation_v1(bigint)",
        "SET ROLE khala_runtime_owner",
    ]
    return forbidden


async def states_of(connection: asyncpg.Connection[asyncpg.Record], statements: list[str]) -> dict[str, str]:
    """Return the SQLSTATE of each statement, "" if it was allowed; nothing is kept."""
    states: dict[str, str] = {}
    for statement in statements:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
            states[statement] = ""
        except asyncpg.PostgresError as error:
            states[statement] = str(error.sqlstate)
        finally:
            await transaction.rollback()
    return states


def dsn_of(database: Database, role: Role) -> str:
    """Return a URL without the reader's read-only default, which would hide a missing right."""
    return database.dsn(role) + "?default_transaction_read_only=off"


@pytest.mark.parametrize("role", ROLES)
def test_every_forbidden_statement_is_refused(fresh_database: Database, role: Role) -> None:
    """DB-02, RT-04: whatever a role was not given fails with 42501."""

    async def scenario() -> None:
        async with connected(dsn_of(fresh_database, role)) as connection:
            states = await states_of(connection, statements_forbidden_to(role))
        assert {sql: state for sql, state in states.items() if state != _INSUFFICIENT_PRIVILEGE} == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("role", ["khala_runtime", "khala_reader"])
def test_what_is_given_works(runtime_database: Database, role: Role) -> None:
    """The other side of the table: what a role may read, it reads."""

    async def scenario() -> None:
        async with connected(dsn_of(runtime_database, role)) as connection:
            states = await states_of(connection, [f"SELECT FROM runtime.{table}" for table in MAY_READ[role]])
        assert set(states.values()) == {""}

    asyncio.run(scenario())


@pytest.mark.parametrize("role", ROLES)
def test_functions_are_open_to_the_service_only(fresh_database: Database, role: Role) -> None:
    """EXECUTE is granted function by function; a new one is closed until a migration opens it."""

    async def scenario() -> None:
        async with connected(fresh_database.superuser_dsn) as connection:
            rows = await connection.fetch(
                "SELECT p.proname, has_function_privilege($1, p.oid, 'EXECUTE') AS may, p.prosecdef,"
                " coalesce('search_path=pg_catalog' = ANY (p.proconfig), false) AS is_pinned"
                " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'runtime'",
                role,
            )
        assert {row["proname"] for row in rows if row["may"]} == MAY_CALL.get(role, frozenset())
        # A definer's function without a pinned search_path runs whatever its caller puts in front.
        assert all(row["is_pinned"] for row in rows if row["prosecdef"])
        assert {row["proname"] for row in rows if row["prosecdef"]} == MAY_CALL["khala_runtime"]

    asyncio.run(scenario())


@pytest.mark.parametrize("role", ["khala_reader", "khala_control"])
def test_append_is_refused_to_others(fresh_database: Database, role: Role) -> None:
    """Calling the append primitive without the right fails with 42501 and writes nothing."""

    async def scenario() -> None:
        async with connected(dsn_of(fresh_database, role)) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchrow(APPEND, *append_args([("run:x:events", [RawEvent("e")])]))

    asyncio.run(scenario())


def test_the_service_reads_nothing_of_control(fresh_database: Database) -> None:
    """DB-02: as khala_runtime and khala_reader every table of control is closed."""

    async def scenario() -> None:
        async with connected(fresh_database.superuser_dsn) as owner:
            rows = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'control'")
        tables = [row["tablename"] for row in rows]
        assert tables
        statements = [f"SELECT FROM control.{table}" for table in tables]
        statements += [f"DELETE FROM control.{table}" for table in tables]
        for role in ("khala_runtime", "khala_reader", "khala_runtime_owner"):
            async with connected(dsn_of(fresh_database, role)) as connection:
                states = await states_of(connection, statements)
            assert set(states.values()) == {_INSUFFICIENT_PRIVILEGE}

    asyncio.run(scenario())


def test_public_has_nothing(fresh_database: Database) -> None:
    """DB-01: two schemas of ours, and no table in public."""

    async def scenario() -> None:
        async with connected(fresh_database.superuser_dsn) as owner:
            schemas = await owner.fetch(
                "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
            )
            public = await owner.fetchval(
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            )
        assert {row["nspname"] for row in schemas} == {"control", "runtime", "public"}
        assert public == 0

    asyncio.run(scenario())
