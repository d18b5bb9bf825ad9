"""``khala up``: the whole system in one process on an embedded PostgreSQL. The one composition root.

Start order is dependency order, stop order its reverse: data directory held > PostgreSQL > schema >
control and runtime > node. The services meet at the same seams as in a deployment: three database
roles with pools of their own, credentials of their own, sealed records over a driver (here one that
cannot leave the process). Everything listens on 127.0.0.1.

Ctrl-C: clients leave within ``DRAIN_S``, then services, then PostgreSQL; within 5 s nothing is left.
A second Ctrl-C skips the waiting. kill -9 loses nothing that was acknowledged; the next start ends
the orphaned PostgreSQL.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import click
import trio

from control.app import ControlConfig, serve_control
from fanout_drivers.memory import MemoryDriver
from khala.adapters.embedded_postgres import EmbeddedPostgresFailed, PostgresServer, open_embedded_postgres
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir, write_private
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from khala.app import NodeConfig, serve_node
from khala.cli.locations import PROFILE_FOLDER
from khala.cli.log_file import BoundedLog
from khala.cli.services import migrate_plane
from khala.cli.signals import taken_signals
from khala.cli.terminal import json_line, open_terminal
from khala.cli.up_ports import HOST, UpPorts, choose_ports
from khala.cli.up_record import UpRecord, own_record, remove_record, write_record
from khala.cli.up_report import UpReport
from khala.cli.up_secrets import FANOUT_KEY_ID, UpSecrets
from khala.cli.up_settings import UpSettings, load_up_settings, server_environ
from khala.cli.up_sign_in import sign_in_profile
from khala_client.settings import SYNC_PATH
from khala_client.version import VERSION
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.config import Secret, load_config
from khala_service.identifiers import SystemClock
from khala_service.logs import configure_logging
from runtime.app import RuntimeConfig, serve_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

# SPEC section 6. Clients reconnect by themselves, so nobody is served by waiting longer.
DRAIN_S: Final = 2.0
# The node's own deadline comes first, so that the last words of slow clients are still sent.
CONNECTIONS_DRAIN_S: Final = 1.5
# Requests in flight on control and runtime; a commit takes milliseconds.
SERVICES_STOP_S: Final = 0.5

C = TypeVar("C")


@click.command("up")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Directory of database, secrets and profile.  [default: ~/.local/share/khala]",
)
@click.option(
    "--port-base",
    type=int,
    default=None,
    help="Listen on the ports above it; 0 takes a free block.  [default: 8470]",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write URLs and the profile's path here, as JSON, once everything is ready.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="KHALA_CONFIG",
    help="TOML file; sections up, control, runtime, node.",
)
def up_command(
    data_dir: Path | None, port_base: int | None, ready_file: Path | None, config_file: Path | None
) -> None:
    """Start the whole system here, with a real PostgreSQL inside; Ctrl-C stops it."""
    settings = load_up_settings(
        config_file=config_file, data_dir=data_dir, port_base=port_base, ready_file=ready_file
    )
    report = UpReport(open_terminal(is_json=False))
    with ExitStack() as held:
        directory = make_data_dir(settings.data_dir)
        held.enter_context(hold_data_dir(directory))
        if settings.ready_file is not None:
            # Whoever waits for it must not meet the one of an earlier life.
            settings.ready_file.unlink(missing_ok=True)
            held.callback(partial(settings.ready_file.unlink, missing_ok=True))
        log = held.enter_context(BoundedLog(directory / "logs" / "khala.log"))
        configure_logging("khala", level=settings.log_level, stream=log, human=False)
        held.callback(remove_record, directory)
        up = Up(attrs.evolve(settings, data_dir=directory), config_file, report)
        trio.run(up.run)
    report.stopped()


class Up:
    """One life of the system."""

    def __init__(self, settings: UpSettings, config_file: Path | None, report: UpReport) -> None:
        self._settings = settings
        self._config_file = config_file
        self._report = report
        self._data_dir = settings.data_dir
        self._stop = trio.Event()
        self._is_ready = False

    async def run(self) -> None:
        """Start, serve until a signal, stop.

        Raises:
            EmbeddedPostgresRefused, ConfigRefused, CommandFailed: Nothing was started.
            EmbeddedPostgresFailed: PostgreSQL did not start, or ended by itself.
        """
        record = own_record(version=VERSION, now_s=SystemClock().now())
        write_record(self._data_dir, record)
        ports = choose_ports(self._settings.port_base)
        async with trio.open_nursery() as root:
            root.start_soon(self._watch_signals, root.cancel_scope)
            self._report.step("Starting PostgreSQL")
            async with open_embedded_postgres(self._data_dir) as server:
                record = attrs.evolve(record, postgres_port=server.port)
                dsns = await trio.to_thread.run_sync(bootstrap_roles, server, abandon_on_cancel=True)
                async with open_asyncio_loop():
                    self._report.step("Bringing the schema up to date")
                    for plane in ("control", "runtime"):
                        await migrate_plane(plane, dsns[f"khala_{plane}_owner"])
                    self._report.step("Starting control, runtime and node")
                    await self._serve(server, dsns, ports, record)
            root.cancel_scope.cancel()

    async def _serve(
        self, server: PostgresServer, dsns: Mapping[str, str], ports: UpPorts, record: UpRecord
    ) -> None:
        parts = UpSecrets.read_or_make(self._data_dir)
        driver = MemoryDriver()
        stop_services, stop_node = trio.Event(), trio.Event()
        control = self._control_config(dsns, ports, parts)
        runtime = self._runtime_config(dsns, ports, parts)
        node = self._node_config(dsns, ports, parts)
        async with trio.open_nursery() as watching:
            watching.start_soon(_fail_when_ended, server)
            async with trio.open_nursery() as services:
                await services.start(partial(serve_control, control, drain=stop_services))
                await services.start(partial(serve_runtime, runtime, driver=driver, drain=stop_services))
                async with trio.open_nursery() as nodes:
                    await nodes.start(partial(serve_node, node, driver=driver, drain=stop_node))
                    await self._announce(ports, parts, record)
                    await self._stop.wait()
                    self._report.stopping()
                    stop_node.set()
                    nodes.cancel_scope.deadline = trio.current_time() + DRAIN_S
                stop_services.set()
                services.cancel_scope.deadline = trio.current_time() + SERVICES_STOP_S
            watching.cancel_scope.cancel()

    async def _announce(self, ports: UpPorts, parts: UpSecrets, record: UpRecord) -> None:
        """Sign in the development user, then say to people and scripts that everything is there."""
        profile = self._data_dir / PROFILE_FOLDER
        record = attrs.evolve(
            record,
            is_ready=True,
            control_url=f"http://{HOST}:{ports.control}",
            runtime_url=f"http://{HOST}:{ports.runtime}",
            sync_url=f"ws://{HOST}:{ports.node}{SYNC_PATH}",
            admin_url=f"http://{HOST}:{ports.admin}",
            admin_token_file=str(parts.admin_token_file),
            profile=str(profile),
        )
        await sign_in_profile(profile, record, login=self._settings.login)
        write_record(self._data_dir, record)
        self._is_ready = True
        self._report.ready(self._data_dir, record)
        # Last: whoever waits for the file may then read what was printed.
        if self._settings.ready_file is not None:
            write_private(self._settings.ready_file, json_line(record.urls))

    async def _watch_signals(self, root: trio.CancelScope) -> None:
        with trio.open_signal_receiver(*taken_signals()) as signals:
            async for _ in signals:
                if self._stop.is_set() or not self._is_ready:
                    root.cancel()
                self._stop.set()

    def _control_config(self, dsns: Mapping[str, str], ports: UpPorts, parts: UpSecrets) -> ControlConfig:
        return self._load(
            ControlConfig,
            "control",
            {
                "mode": "dev",
                "database_dsn": Secret(dsns["khala_control"]),
                "runtime_url": f"http://{HOST}:{ports.runtime}",
                "service_credential": parts.control,
                "runtime_credential": parts.runtime,
                "node_credential": parts.node,
                "signing_keys_file": parts.signing_keys,
                "host": HOST,
                "port": ports.control,
            },
        )

    def _runtime_config(self, dsns: Mapping[str, str], ports: UpPorts, parts: UpSecrets) -> RuntimeConfig:
        return self._load(
            RuntimeConfig,
            "runtime",
            {
                "database_dsn": Secret(dsns["khala_runtime"]),
                "control_url": f"http://{HOST}:{ports.control}",
                "service_credential": parts.runtime,
                "control_credential": parts.control,
                "fanout_key_id": FANOUT_KEY_ID,
                "fanout_key": parts.fanout_key,
                "host": HOST,
                "port": ports.runtime,
            },
        )

    def _node_config(self, dsns: Mapping[str, str], ports: UpPorts, parts: UpSecrets) -> NodeConfig:
        return self._load(
            NodeConfig,
            "node",
            {
                "database_dsn": Secret(dsns["khala_reader"]),
                "control_url": f"http://{HOST}:{ports.control}",
                "service_credential": parts.node,
                "fanout_keys": {FANOUT_KEY_ID: parts.fanout_key},
                "host": HOST,
                "port": ports.node,
                "admin_host": HOST,
                "admin_port": ports.admin,
                "limits.drain_timeout_s": CONNECTIONS_DRAIN_S,
            },
        )

    def _load(self, cls: type[C], section: str, overrides: dict[str, object]) -> C:
        return load_config(
            cls, section=section, file=self._config_file, environ=server_environ(), overrides=overrides
        )


async def _fail_when_ended(server: PostgresServer) -> None:
    await server.wait_ended()
    raise EmbeddedPostgresFailed(f"PostgreSQL ended by itself; its log is {server.cluster.log_file}")
