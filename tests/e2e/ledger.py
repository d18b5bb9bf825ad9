"""What PostgreSQL holds, read past every service: the witness that a refusal wrote nothing."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from tests.e2e.wire import database_dsn, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.system import System

# Lists of runs are left out everywhere: a projector writes them when it gets to it, which may be later.
_IS_NO_LIST: Final = "{0} NOT LIKE 'user:%:runs' AND {0} NOT LIKE 'org:%:runs'"
# Tables of the authority by what names their subject; a stranger's row is counted wherever it is.
_SUBJECTS: Final = {
    "runtime.events": "topic",
    "runtime.journal": "topic",
    "runtime.runs": "run_id",
    "runtime.idempotency_keys": "scope",
}
_HEADS: Final = (
    "SELECT topic, head_seq, encode(head_chain, 'hex') AS chain, floor_seq FROM runtime.topic_heads"
)
# What a hello may write: that the token is spent, and the refusals of control.
_HELLO_WRITES: Final = frozenset({"token_redemptions", "audit_log"})

State = dict[str, object]


class Ledger:
    """A superuser's connection for a module of tests. Reads take a few milliseconds."""

    def __init__(self, runner: asyncio.Runner, connection: asyncpg.Connection[Any]) -> None:
        self._runner = runner
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, system: System) -> Iterator[Self]:
        """Connect for one block."""
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(database_dsn(system, "postgres")))
            yield cls(runner, connection)
            runner.run(connection.close())

    def rows(self, sql: str, *arguments: object) -> list[Mapping[str, Any]]:
        """Return rows as mappings."""
        found = self._runner.run(self._connection.fetch(sql, *arguments))
        return [dict(row) for row in found]

    def state(self, *, besides: str = "") -> State:
        """Return counts of all tables, and every head.

        Args:
            besides: Topic of a run to which somebody writes meanwhile; it is left out with its run.
        """
        state = self.authority_state(besides=besides)
        for table in self._tables("control"):
            if table not in _HELLO_WRITES:
                state[f"control.{table}"] = self.rows(f"SELECT count(*) AS count FROM control.{table}")
        return state

    def authority_state(self, *, besides: str = "") -> State:
        """Return the same of the runtime's tables alone."""
        run_id = run_of(besides) if besides else "none"
        state: State = {}
        for table, subject in _SUBJECTS.items():
            sql = (
                f"SELECT count(*) AS count FROM {table} WHERE {subject} NOT LIKE '%' || $1 || '%'"
                f" AND {_IS_NO_LIST.format(subject)}"
            )
            state[table] = self.rows(sql, run_id)[0]["count"]
        heads = self.rows(f"{_HEADS} WHERE topic <> $1 AND {_IS_NO_LIST.format('topic')}", besides)
        state["runtime.topic_heads"] = {row["topic"]: tuple(row.values())[1:] for row in heads}
        return state

    def _tables(self, schema: str) -> list[str]:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"
        return [row["tablename"] for row in self.rows(sql, schema)]

    def every_row(self, *schemas: str) -> Iterator[tuple[str, str]]:
        """Yield (table, row as text) of every table; byte columns are hexadecimal."""
        for schema in schemas:
            for table in self._tables(schema):
                for row in self.rows(f"SELECT t::text AS text FROM {schema}.{table} AS t"):
                    yield f"{schema}.{table}", row["text"]

    def run(self, sql: str, *arguments: object) -> None:
        """Change something behind the services' backs."""
        self._runner.run(self._connection.execute(sql, *arguments))
