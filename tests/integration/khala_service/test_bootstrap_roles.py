"""Roles and schemas of a bootstrapped database: the closed door between the planes."""

from contextlib import AsyncExitStack
from importlib import resources

import pytest

from khala_service.adapters.postgres import DatabaseError, PostgresPool, open_asyncio_loop, open_pool
from tests.postgres_cluster import Database, PostgresTestCluster, Role

_BOOTSTRAP = resources.files("khala_service").joinpath("sql", "bootstrap_roles.sql").read_text("utf-8")
_TABLES = """
    CREATE TABLE control.secrets (id int);
    CREATE TABLE runtime.events (id int);
    ALTER TABLE control.secrets OWNER TO khala_control_owner;
    ALTER TABLE runtime.events OWNER TO khala_runtime_owner;
"""


async def _refused(pool: PostgresPool, sql: str) -> str:
    """Return the SQLSTATE with which a statement fails, "" if it does not."""
    try:
        await pool.execute(sql)
    except DatabaseError as error:
        return error.sqlstate
    return ""


_FORBIDDEN_TO_ALL = (
    "CREATE TABLE public.x (id int)",
    "CREATE TEMPORARY TABLE x (id int)",
    "CREATE SCHEMA x",
    "CREATE ROLE x",
    "CREATE DATABASE x",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE khala_reader SUPERUSER",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
)
_FORBIDDEN_TO: dict[Role, tuple[str, ...]] = {
    "khala_control": ("SELECT * FROM runtime.events", "CREATE TABLE control.x (id int)"),
    "khala_control_owner": ("SELECT * FROM runtime.events", "CREATE TABLE runtime.x (id int)"),
    "khala_runtime": (
        "SELECT * FROM control.secrets",
        "CREATE TABLE runtime.x (id int)",
        "SELECT * FROM runtime.events",
    ),
    "khala_runtime_owner": ("SELECT * FROM control.secrets", "CREATE TABLE control.x (id int)"),
    "khala_reader": (
        "SELECT * FROM control.secrets",
        "SELECT * FROM runtime.events",
        "INSERT INTO runtime.events VALUES (1)",
    ),
}


@pytest.mark.parametrize("role", _FORBIDDEN_TO)
async def test_forbidden_statements(empty_database: Database, role: Role) -> None:
    """DB-02, DB-09: nothing crosses a plane, nothing is granted by default, nobody is more than a role."""
    async with open_asyncio_loop():
        async with open_pool(empty_database.superuser_dsn, application_name="t") as pool:
            await pool.execute(_TABLES)
        async with open_pool(empty_database.dsn(role), application_name="t", max_size=1) as pool:
            answers = {sql: await _refused(pool, sql) for sql in (*_FORBIDDEN_TO_ALL, *_FORBIDDEN_TO[role])}
    assert set(answers.values()) == {"42501"}, answers


async def test_owners_own_their_schema_alone(empty_database: Database) -> None:
    """An owner may build its own schema; a new function is executable by nobody else."""
    dsn = empty_database.dsn
    async with (
        open_asyncio_loop(),
        open_pool(dsn("khala_runtime_owner"), application_name="t", max_size=1) as owner,
        open_pool(dsn("khala_runtime"), application_name="t", max_size=1) as service,
    ):
        await owner.execute("CREATE FUNCTION runtime.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        assert await _refused(owner, "SELECT runtime.f()") == ""
        assert await _refused(service, "SELECT runtime.f()") == "42501"


async def test_only_our_roles_may_connect(
    empty_database: Database, postgres_cluster: PostgresTestCluster
) -> None:
    """A role of somebody else on the same server does not get in."""
    dsn = postgres_cluster.server.dsn(user="stranger", password="x", database=empty_database.name)
    async with (
        open_asyncio_loop(),
        open_pool(empty_database.superuser_dsn, application_name="t") as pool,
        AsyncExitStack() as exit_stack,
    ):
        await pool.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
        exit_stack.push_async_callback(pool.execute, "DROP ROLE stranger")
        async with open_pool(dsn, application_name="t", min_size=0) as strangers:
            with pytest.raises(DatabaseError) as caught:
                await strangers.fetch("SELECT 1")
        assert caught.value.sqlstate == "42501"


async def test_bootstrap_again_changes_nothing(empty_database: Database) -> None:
    """DB-01: idempotent, and there are exactly the two schemas and nothing in public."""
    snapshot = """
        SELECT n.nspname AS name, n.nspowner::regrole::text AS owner, n.nspacl::text AS acl
          FROM pg_namespace n WHERE n.nspname !~ '^(pg_|information_schema)' ORDER BY 1
    """
    roles = "SELECT * FROM pg_roles WHERE rolname LIKE 'khala%' ORDER BY rolname"
    async with (
        open_asyncio_loop(),
        open_pool(empty_database.superuser_dsn, application_name="t") as pool,
    ):
        before = await pool.fetch(snapshot), await pool.fetch(roles)
        await pool.execute(_BOOTSTRAP)
        assert (await pool.fetch(snapshot), await pool.fetch(roles)) == before
        owners = {row["name"]: row["owner"] for row in before[0]}
        assert owners == {
            "control": "khala_control_owner",
            "runtime": "khala_runtime_owner",
            "public": "pg_database_owner",
        }
        assert await pool.fetch("SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


async def test_statements_can_be_read_by_role(empty_database: Database) -> None:
    """The fixture tells what each role has sent, several lines included."""
    async with open_asyncio_loop():
        async with open_pool(empty_database.dsn("khala_runtime"), application_name="t") as pool:
            await pool.fetch("SELECT 1\n  AS one")
            await pool.fetch("SELECT $1::int AS two", 2)
        assert "SELECT 1\n  AS one" in empty_database.statements("khala_runtime")
        assert "SELECT $1::int AS two" in empty_database.statements("khala_runtime")
        assert empty_database.statements("khala_reader") == []
