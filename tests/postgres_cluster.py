"""A real PostgreSQL for tests: one server per session, one database per test.

The server is the product's own embedded one, told to forget durability and to log every statement
with its role. A template database per set of planes is bootstrapped and migrated once; each test gets
a copy of it (about 0.1 s), which is dropped afterwards.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import asyncpg
import attrs
import trio
from sniffio import thread_local

from khala.adapters.embedded_postgres import PostgresServer, init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_roles import ROLES, bootstrap_roles
from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.adapters.postgres_migrations import run_migrations

Plane: TypeAlias = Literal["control", "runtime"]
Role: TypeAlias = Literal[
    "khala_control_owner", "khala_runtime_owner", "khala_control", "khala_runtime", "khala_reader"
]
PLANES: Final[tuple[Plane, ...]] = ("control", "runtime")

ROOT: Final = Path(__file__).resolve().parent.parent
_SETTINGS: Final = """
# Tests kill backends and processes, never the machine: nothing has to survive a power cut.
fsync = off
full_page_writes = off
max_connections = 200
log_statement = all
log_line_prefix = '%m [%p] user=%u db=%d '
"""
# A statement of the extended protocol is logged as "execute <name>: ...".
_LOGGED: Final = re.compile(
    r"user=(?P<user>\S*) db=(?P<database>\S*) LOG:  (?:statement|execute [^:]*): (?P<sql>.*)"
)


@attrs.frozen
class Database:
    """One database of a test, with a connection URL for every role."""

    name: str
    dsns: Mapping[str, str] = attrs.field(repr=False)
    superuser_dsn: str = attrs.field(repr=False)
    cluster: "PostgresTestCluster" = attrs.field(repr=False)

    def dsn(self, role: Role) -> str:
        """Return the URL with which a service role connects."""
        return self.dsns[role]

    def statements(self, role: str) -> list[str]:
        """Return the statements that a role has sent to this database, oldest first."""
        return self.cluster.statements(role=role, database=self.name)


class PostgresTestCluster:
    """The server of one test session. Made by `running_cluster`."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._passwords = {
            role: unquote(urlsplit(dsn).password or "")
            for role, dsn in bootstrap_roles(server, database="bootstrap").items()
        }
        self._bootstrap_sql = (
            resources.files("khala_service").joinpath("sql", "bootstrap_roles.sql").read_text("utf-8")
        )
        self._templates: dict[tuple[Plane, ...], str] = {}
        self._made = 0
        # Kept open: a login costs as much as making a database.
        self._runner = asyncio.Runner()
        self._admin = self._runner.run(_connect(server.superuser_dsn()))

    def close(self) -> None:
        """Close the administrator's connection."""
        self._admin.terminate()
        self._runner.close()

    @contextmanager
    def database(self, *planes: Plane) -> Iterator[Database]:
        """Yield a new database in which `planes` are migrated; drop it afterwards.

        Without planes: roles, schemas and grants only.
        """
        template = self._template(planes)
        self._made += 1
        database = self._describe(f"test_{self._made}")
        self._administer(f"CREATE DATABASE {database.name} TEMPLATE {template}")
        try:
            # A copy has the template's tables and schemas, but not its list of who may connect.
            self._administer(
                f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC;"
                f"GRANT CONNECT ON DATABASE {database.name} TO {', '.join(ROLES)}"
            )
            yield database
        finally:
            self._administer(f"DROP DATABASE {database.name} WITH (FORCE)")

    def _administer(self, sql: str) -> None:
        """Run SQL as superuser, from code that is not in an event loop."""
        self._runner.run(_execute(self._admin, sql))

    def statements(self, *, role: str, database: str) -> list[str]:
        """Return the statements that the server has logged for a role in a database."""
        log = self.server.cluster.log_file.read_text(encoding="utf-8", errors="replace")
        found: list[str] = []
        is_wanted = False
        for line in log.splitlines():
            if line.startswith("\t"):
                if is_wanted:
                    found[-1] += "\n" + line[1:]
                continue
            matched = _LOGGED.search(line)
            is_wanted = matched is not None and matched["user"] == role and matched["database"] == database
            if is_wanted and matched is not None:
                found.append(matched["sql"])
        return found

    def _template(self, planes: tuple[Plane, ...]) -> str:
        if planes not in self._templates:
            template = self._describe("_".join(("template", *planes)))
            self._administer(f"CREATE DATABASE {template.name}")
            self._runner.run(_execute_once(template.superuser_dsn, self._bootstrap_sql))
            for plane in planes:
                trio.run(migrate, plane, template.dsn(cast("Role", f"khala_{plane}_owner")))
            # trio-asyncio leaves its mark on the thread, and anyio would refuse to begin another loop in it.
            thread_local.name = None
            self._templates[planes] = template.name
        return self._templates[planes]

    def _describe(self, name: str) -> Database:
        dsns = {
            role: self.server.dsn(user=role, password=self._passwords[role], database=name) for role in ROLES
        }
        return Database(name, dsns, self.server.superuser_dsn(name), self)


async def migrate(plane: Plane, owner_dsn: str) -> None:
    """Bring one plane to the revision of this tree."""
    directory = ROOT / plane / "adapters" / "postgres" / "migrations"
    async with open_asyncio_loop():
        await run_migrations(owner_dsn, plane=plane, directory=directory)


@contextmanager
def running_cluster(data_dir: Path) -> Iterator[PostgresTestCluster]:
    """Yield a running server below `data_dir`; stop it (by its pid) when the block is left."""
    cluster = init_cluster(data_dir)
    with (cluster.home.cluster / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write(_SETTINGS)
    running = PostgresTestCluster(start_server(cluster))
    try:
        yield running
    finally:
        running.close()
        # Whichever server a test has put in its place.
        stop_server(running.server)


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(dsn)


async def _execute(connection: "asyncpg.Connection[asyncpg.Record]", sql: str) -> None:
    await connection.execute(sql)


async def _execute_once(dsn: str, sql: str) -> None:
    async with AsyncExitStack() as exit_stack:
        connection = await asyncpg.connect(dsn)
        exit_stack.push_async_callback(connection.close)
        await connection.execute(sql)
