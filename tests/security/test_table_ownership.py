"""Two authority planes and one writer per table: the map against the catalog, and each role against the map."""

import asyncio
from collections.abc import Coroutine
from typing import Final, TypeVar, cast

import asyncpg
import pytest

from tests.ci.table_ownership import (
    SERVICE_ROLES,
    CatalogTable,
    find_ownership_problems,
    read_ownership,
)
from tests.ci.tree import ROOT
from tests.postgres_cluster import Database, Role

T = TypeVar("T")
# What has_any_column_privilege does not know are the rights on whole tables only.
_CATALOG: Final = """
SELECT n.nspname AS schema, coalesce(parent.relname, c.relname) AS name, owner.rolname AS owner,
       array(SELECT r FROM unnest($1::text[]) AS r WHERE has_any_column_privilege(r, c.oid, 'SELECT')) AS readers,
       array(SELECT r FROM unnest($1::text[]) AS r
             WHERE has_any_column_privilege(r, c.oid, 'INSERT, UPDATE')
                OR has_table_privilege(r, c.oid, 'DELETE, TRUNCATE')) AS writers,
       parent.oid IS NOT NULL AS is_partition
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_roles AS owner ON owner.oid = c.relowner
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition
LEFT JOIN pg_class AS parent ON parent.oid = i.inhparent
WHERE c.relkind IN ('r', 'p', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY 1, 2
"""
_INSUFFICIENT_PRIVILEGE: Final = "42501"


def run(work: Coroutine[object, object, T]) -> T:
    """Run one exchange with the server; these tests need no trio."""
    return asyncio.run(work)


async def read_catalog(dsn: str) -> list[tuple[CatalogTable, bool]]:
    """Return every table with whether it is a partition."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(_CATALOG, list(SERVICE_ROLES))
    finally:
        await connection.close()
    return [
        (
            CatalogTable(
                row["schema"], row["name"], row["owner"], frozenset(row["readers"]), frozenset(row["writers"])
            ),
            row["is_partition"],
        )
        for row in rows
    ]


async def refused_statements(dsn: str, statements: list[str]) -> dict[str, str]:
    """Return the SQLSTATE of each statement, empty if it was allowed; nothing is kept."""
    connection = await asyncpg.connect(dsn)
    states = {}
    try:
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
    finally:
        await connection.close()
    return states


def test_catalog_equals_the_ownership_map(fresh_database: Database) -> None:
    """Every table has one plane, one owner and one writer, exactly as the map says."""
    catalog = [
        table for table, is_partition in run(read_catalog(fresh_database.superuser_dsn)) if not is_partition
    ]
    assert find_ownership_problems(read_ownership(ROOT), catalog) == []


def test_partitions_give_no_right_of_their_own(fresh_database: Database) -> None:
    """A partition is reached through its parent only: no role has a right on it."""
    partitions = [
        table for table, is_partition in run(read_catalog(fresh_database.superuser_dsn)) if is_partition
    ]
    assert len(partitions) == 8
    assert all(not table.readers and not table.writers for table in partitions)


@pytest.mark.parametrize("role", SERVICE_ROLES)
def test_each_role_is_refused_what_the_map_does_not_give(fresh_database: Database, role: str) -> None:
    """Reading, writing, truncating and locking a table without the right fails with 42501, as this very role."""
    forbidden = []
    for (schema, name), rule in read_ownership(ROOT).items():
        table = f"{schema}.{name}"
        if role not in rule.readers:
            forbidden += [f"SELECT FROM {table}", f"LOCK TABLE {table} IN ACCESS SHARE MODE"]
        if role != rule.writer or rule.is_written_through_functions:
            forbidden += [f"INSERT INTO {table} DEFAULT VALUES", f"DELETE FROM {table}"]
        forbidden += [f"TRUNCATE {table}", f"ALTER TABLE {table} ADD COLUMN extra int", f"DROP TABLE {table}"]
    forbidden += [
        "CREATE TABLE control.mine (x int)",
        "CREATE TABLE runtime.mine (x int)",
        "CREATE TABLE public.mine (x int)",
    ]
    # khala_reader is read-only by default (25006 would hide the missing right): take that away first.
    dsn = fresh_database.dsn(cast("Role", role))
    states = run(refused_statements(dsn + "?default_transaction_read_only=off", forbidden))
    assert {statement: state for statement, state in states.items() if state != _INSUFFICIENT_PRIVILEGE} == {}
