"""``khala up --split``: the same system as child processes, started, watched, restarted and ended by this one.

Start order: PostgreSQL, roles, schema; then broker, control, runtime and nodes at once, since each waits
for what it needs. End order: nodes drain, then runtime and control, then broker and PostgreSQL.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala.adapters.embedded_nats import find_program
from khala.adapters.embedded_postgres_directory import write_private
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from khala.cli.child_logs import ChildLog, follow_file
from khala.cli.children import ProgramChild, ServiceChild
from khala.cli.engine_children import NatsChild, PostgresChild
from khala.cli.log_file import BoundedLog
from khala.cli.log_lines import parse_postgres_line
from khala.cli.reaping import reap_adopted
from khala.cli.services import migrate_plane
from khala.cli.split_witness import SplitWitness
from khala.cli.supervision import RestartPolicy
from khala.cli.supervisor import Supervisor
from khala.cli.toml_text import toml_document
from khala.cli.up_origin import serve_origin
from khala.cli.up_ports import HOST
from khala.cli.up_values import child_environ, child_sections
from khala_client.errors import KhalaError
from khala_service.adapters.asyncio_bridge import open_asyncio_loop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from khala.cli.children import Child, Ending
    from khala.cli.up_life import UpLife
    from khala.cli.up_values import UpValues, UserConfig

__all__ = ["SplitUp"]

# Together below the 5 s in which everything must be gone. A second SIGTERM makes a service leave at once.
NODE_ENDING: Final[Ending] = ((signal.SIGTERM, 2.0),)
SERVICE_ENDING: Final[Ending] = ((signal.SIGTERM, 1.0), (signal.SIGTERM, 0.3))
ANNOUNCE_RETRY_S: Final = 0.5


class SplitUp:
    """One life of the system in many processes."""

    def __init__(self, life: UpLife, user: UserConfig, driver: str) -> None:
        self._life = life
        self._user = user
        self._driver = driver
        self._files = ExitStack()
        settings = life.settings
        self._postgres = PostgresChild("postgres", life.data_dir)
        self._witness = SplitWitness(life)
        policy = RestartPolicy(max_s=settings.restart_max_s, stable_s=settings.restart_stable_s)
        self._supervisor = Supervisor(policy, self._witness)

    async def run(self) -> None:
        """Start, serve until a signal, stop.

        Raises:
            EmbeddedPostgresRefused, EmbeddedNatsRefused, CommandFailed: Something has to be changed by a
                person; nothing runs any more.
            EmbeddedPostgresFailed: PostgreSQL did not start.
        """
        life = self._life
        if life.settings.nats:
            find_program()
        values = attrs.evolve(await life.begin(), user=self._user)
        with self._files:
            self._files.callback(self._witness.close)
            async with trio.open_nursery() as root:
                root.start_soon(life.watch_signals, root.cancel_scope)
                root.start_soon(self._witness.print_lines)
                root.start_soon(reap_adopted)
                log = life.data_dir / "logs" / "postgres.log"
                root.start_soon(
                    follow_file, log, parse_postgres_line, partial(self._witness.show, "postgres")
                )
                await self._serve(values, root)
                root.cancel_scope.cancel()

    async def _serve(self, values: UpValues, root: trio.Nursery) -> None:
        life, keep = self._life, self._supervisor.keep
        stop_nodes, stop_services, stop_engines = trio.Event(), trio.Event(), trio.Event()
        async with trio.open_nursery() as engines:
            await engines.start(keep, self._watchman(), stop_engines)
            life.report.step("Starting PostgreSQL")
            await engines.start(keep, self._postgres, stop_engines)
            dsns = await self._prepare_database()
            life.report.step(f"Starting {', '.join(self._names(values))}")
            async with trio.open_nursery() as services:
                async with trio.open_nursery() as nodes:
                    async with trio.open_nursery() as starting:
                        for child in self._broker(values):
                            starting.start_soon(engines.start, keep, child, stop_engines)
                        for child in self._services(values, dsns):
                            starting.start_soon(services.start, keep, child, stop_services)
                        for child in self._nodes(values, dsns):
                            starting.start_soon(nodes.start, keep, child, stop_nodes)
                    # In the root, which is left last: clients of a draining node are told so through here.
                    await root.start(serve_origin, values.ports, life.stop)
                    await self._announce(values)
                    await life.stop.wait()
                    life.report.stopping()
                    stop_nodes.set()
                stop_services.set()
            stop_engines.set()

    async def _announce(self, values: UpValues) -> None:
        """Announce the system; a child that dies meanwhile delays it."""
        while True:
            try:
                return await self._life.announce(values)
            except KhalaError as error:
                if not error.retryable:
                    raise
            await trio.sleep(ANNOUNCE_RETRY_S)

    async def _prepare_database(self) -> Mapping[str, str]:
        server = self._postgres.server
        assert server is not None, "it was started"
        self._life.update(postgres_port=server.port)
        dsns = await trio.to_thread.run_sync(bootstrap_roles, server, abandon_on_cancel=True)
        self._life.report.step("Bringing the schema up to date")
        async with open_asyncio_loop():
            for plane in ("control", "runtime"):
                await migrate_plane(plane, dsns[f"khala_{plane}_owner"])
        return dsns

    def _names(self, values: UpValues) -> list[str]:
        broker = ["nats"] if values.ports.has_nats else []
        return [*broker, "control", "runtime", *(f"node-{n}" for n in range(1, values.ports.nodes + 1))]

    def _watchman(self) -> ProgramChild:
        arguments = ("khala.cli.orphans", str(self._life.data_dir), self._life.record.identity)
        environ = child_environ(self._user, {})
        return ProgramChild("watchman", arguments, environ, self._log("watchman"), ending=())

    def _broker(self, values: UpValues) -> list[Child]:
        if not values.ports.has_nats:
            return []
        return [NatsChild("nats", self._life.data_dir, values.ports.nats, self._log("nats"))]

    def _services(self, values: UpValues, dsns: Mapping[str, str]) -> list[Child]:
        ports = values.ports
        control = {
            "control": values.control() | self._dsn_file(dsns, "khala_control"),
            "fanout": values.fanout(self._driver, "control"),
        }
        runtime = {
            "runtime": values.runtime() | self._dsn_file(dsns, "khala_runtime"),
            "fanout": values.fanout(self._driver, "runtime"),
        }
        return [
            self._service("control", "control", control, ports.control, SERVICE_ENDING),
            self._service("runtime", "runtime", runtime, ports.runtime, SERVICE_ENDING),
        ]

    def _nodes(self, values: UpValues, dsns: Mapping[str, str]) -> list[Child]:
        database, fanout = self._dsn_file(dsns, "khala_reader"), values.fanout(self._driver, "node")
        return [
            self._service(
                f"node-{number}",
                "node",
                {"node": values.node(number) | database, "fanout": fanout},
                values.ports.admin(number),
                NODE_ENDING,
            )
            for number in range(1, values.ports.nodes + 1)
        ]

    def _service(
        self, name: str, command: str, values: Mapping[str, Mapping[str, object]], port: int, ending: Ending
    ) -> ServiceChild:
        values = {**values, "logging": {"level": self._life.settings.log_level}}
        file = run_folder(self._life.data_dir) / f"{name}.toml"
        write_private(file, toml_document(child_sections(self._user, values)))
        return ServiceChild(
            name,
            ("khala.cli", command, "--config", str(file), "--until-stdin-closes"),
            child_environ(self._user, values),
            self._log(name),
            ending,
            ready_url=f"http://{HOST}:{port}/readyz",
        )

    def _dsn_file(self, dsns: Mapping[str, str], role: str) -> dict[str, object]:
        file = run_folder(self._life.data_dir) / f"{role}.dsn"
        write_private(file, dsns[role] + "\n")
        return {"database_dsn_file": str(file)}

    def _log(self, name: str) -> ChildLog:
        path = self._life.data_dir / "logs" / f"{name}.log"
        file = self._files.enter_context(BoundedLog(path))
        return ChildLog(file, partial(self._witness.show, name), self._witness.time)


def run_folder(data_dir: Path) -> Path:
    """Return the folder of what is written for one life, made if it is not there."""
    folder = data_dir / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
