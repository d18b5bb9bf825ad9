"""``khala up``: the whole system on an embedded PostgreSQL. The one composition root.

Here is the command, and the form in one process; with ``--split`` the same system is a supervisor and
child processes (up_split.py). Start order is dependency order, stop order its reverse: data directory
held > PostgreSQL > schema > control and runtime > node. The services meet at the same seams as in a
deployment: three database roles with pools of their own, credentials of their own, sealed records over a
driver. Everything listens on 127.0.0.1.

Ctrl-C: clients leave within ``DRAIN_S``, then services, then PostgreSQL; within 5 s nothing is left.
A second Ctrl-C skips the waiting: within 2 s, with status 1. kill -9 loses nothing that was acknowledged; the next start ends
what it left behind.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import attrs
import click
import trio

from control.app import ControlConfig, serve_control
from fanout_drivers.opening import DriverContext, FanoutConfig, find_driver, open_driver
from khala.adapters.embedded_postgres import EmbeddedPostgresFailed, PostgresServer, open_embedded_postgres
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from khala.app import NodeConfig, serve_node
from khala.cli.failures import EXIT_FAILED
from khala.cli.first_run import refuse_bad_machine
from khala.cli.log_file import BoundedLog
from khala.cli.services import migrate_plane
from khala.cli.terminal import open_terminal
from khala.cli.up_life import UpLife
from khala.cli.up_origin import serve_origin
from khala.cli.up_ports import PORT_BASE, UpPorts
from khala.cli.up_record import remove_record
from khala.cli.up_report import UpReport
from khala.cli.up_secrets import UpSecrets
from khala.cli.up_settings import SECTION, UpSettings
from khala.cli.up_split import SplitUp
from khala.cli.up_values import UpValues, UserConfig
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.config import ConfigRefused, ConfigSections, Secret, load_config
from khala_service.garbage import collect_by_the_clock, settle_collector
from khala_service.identifiers import SystemClock
from khala_service.logs import configure_logging
from khala_service.service_process import LoggingConfig, service_environ
from runtime.app import RuntimeConfig, serve_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fanout_drivers.base import FanoutDriver

__all__ = ["judge", "up_command"]

# SPEC section 6. Clients reconnect by themselves, so nobody is served by waiting longer.
DRAIN_S: Final = 2.0
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
    help="Everything at this port, services above it; 0 takes a free block.  [default: 8470]",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write URLs and the profile's path here, as JSON, once everything is ready.",
)
@click.option("--split", is_flag=True, default=None, help="Every service in a process of its own, watched.")
@click.option("--nodes", type=int, default=None, help="How many nodes, with --split.  [default: 1]")
@click.option("--shared-port", is_flag=True, default=None, help="All nodes on one port, with --split.")
@click.option("--nats", is_flag=True, default=None, help="With a NATS server as the broker, with --split.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="KHALA_CONFIG",
    help="TOML file; sections up, control, runtime, node, fanout.",
)
def up_command(
    data_dir: Path | None,
    port_base: int | None,
    ready_file: Path | None,
    split: bool | None,
    nodes: int | None,
    shared_port: bool | None,
    nats: bool | None,
    config_file: Path | None,
) -> int:
    """Start the whole system here, with a real PostgreSQL inside; Ctrl-C stops it."""
    given = {
        "data_dir": data_dir, "port_base": port_base, "ready_file": ready_file,
        "split": split, "nodes": nodes, "shared_port": shared_port, "nats": nats,
    }  # fmt: skip
    settings, driver = judge(config_file, {name: value for name, value in given.items() if value is not None})
    report = UpReport(open_terminal(is_json=False))
    with ExitStack() as held:
        directory = make_data_dir(settings.data_dir)
        held.enter_context(hold_data_dir(directory))
        refuse_bad_machine(directory, now_s=SystemClock().now())
        if settings.ready_file is not None:
            # Whoever waits for it must not meet the one of an earlier life.
            settings.ready_file.unlink(missing_ok=True)
            held.callback(partial(settings.ready_file.unlink, missing_ok=True))
        log = held.enter_context(BoundedLog(directory / "logs" / "khala.log"))
        configure_logging("khala", level=settings.log_level, stream=log, human=False)
        life = UpLife(attrs.evolve(settings, data_dir=directory), report)
        held.callback(remove_record, directory)
        user = UserConfig.read(config_file, service_environ())
        if settings.split:
            trio.run(SplitUp(life, user, driver).run)
        else:
            trio.run(Up(life, config_file, driver).run)
    report.stopped()
    return EXIT_FAILED if life.is_hurried else 0


def judge(
    config_file: Path | None, given: Mapping[str, object], *, environ: Mapping[str, str] | None = None
) -> tuple[UpSettings, str]:
    """Return the settings and the name of the fan-out driver, if everything that will be read is right.

    Nothing is made on disk: the services' sections are read with secrets of a folder that is gone again.

    Raises:
        ConfigRefused: with every error of every section.
    """
    environ = service_environ() if environ is None else environ
    sections = ConfigSections(config_file, environ)
    user = UserConfig.read(config_file, environ)
    settings = sections.find(UpSettings, SECTION, overrides=given)
    is_split = given.get("split") is True
    trial = settings or UpSettings(split=is_split, nats=is_split and given.get("nats") is True)
    driver = _decide_driver(trial, user, sections)
    sections.find(LoggingConfig, "logging")
    with TemporaryDirectory() as folder:
        parts = UpSecrets.read_or_make(Path(folder), has_nats=trial.nats)
        ports = UpPorts(trial.port_base or PORT_BASE, trial.nodes, trial.nats, trial.shared_port)
        values = UpValues(ports, parts, user)
        database = {"database_dsn": Secret("postgresql://trial")}
        sections.find(ControlConfig, "control", overrides=values.control() | database)
        sections.find(RuntimeConfig, "runtime", overrides=values.runtime() | database)
        sections.find(NodeConfig, "node", overrides=values.node() | database)
        sections.find(FanoutConfig, "fanout", overrides=values.fanout(driver, "runtime"))
    for section in ("control", "runtime", "node"):
        if user.find(section, "mode") == "production":
            sections.add_error(
                f"{section}.mode: khala up runs the services for development only; "
                "for production run khala control, khala runtime and khala node"
            )
    sections.refuse_errors()
    assert settings is not None
    return settings, driver


def _decide_driver(settings: UpSettings, user: UserConfig, sections: ConfigSections) -> str:
    named = user.find("fanout", "driver")
    # faulty goes around another driver, which may well be the broker of our own.
    if settings.nats and named not in (None, "nats", "faulty"):
        sections.add_error(f"up.nats: fanout.driver is {named}; give one of the two")
    if settings.split and named == "memory":
        sections.add_error(
            "fanout.driver: memory cannot leave its process, and with split the runtime is another one; "
            "choose postgres or nats"
        )
    if not isinstance(named, str):
        named = "nats" if settings.nats else "postgres" if settings.split else "memory"
    try:
        find_driver(named)
    except ConfigRefused as refused:
        for error in refused.errors:
            sections.add_error(error)
    return named


class Up:
    """One life of the system in one process."""

    def __init__(self, life: UpLife, config_file: Path | None, driver: str) -> None:
        self._life = life
        self._report = life.report
        self._config_file = config_file
        self._driver = driver

    async def run(self) -> None:
        """Start, serve until a signal, stop.

        Raises:
            EmbeddedPostgresRefused, ConfigRefused, CommandFailed: Nothing was started.
            EmbeddedPostgresFailed: PostgreSQL did not start, or ended by itself.
        """
        life = self._life
        user = UserConfig.read(self._config_file, service_environ())
        values = attrs.evolve(await life.begin(), user=user)
        async with trio.open_nursery() as root:
            root.start_soon(life.watch_signals, root.cancel_scope)
            root.start_soon(collect_by_the_clock)
            self._report.step("Starting PostgreSQL")
            async with open_embedded_postgres(life.data_dir) as server:
                life.update(postgres_port=server.port)
                dsns = await trio.to_thread.run_sync(bootstrap_roles, server, abandon_on_cancel=True)
                async with open_asyncio_loop():
                    self._report.step("Bringing the schema up to date")
                    for plane in ("control", "runtime"):
                        await migrate_plane(plane, dsns[f"khala_{plane}_owner"])
                    self._report.step("Starting control, runtime and node")
                    await self._serve(server, dsns, values)
            root.cancel_scope.cancel()

    async def _serve(self, server: PostgresServer, dsns: Mapping[str, str], values: UpValues) -> None:
        stop_services, stop_node = trio.Event(), trio.Event()
        control = self._load(ControlConfig, "control", values.control(), dsns["khala_control"])
        runtime = self._load(RuntimeConfig, "runtime", values.runtime(), dsns["khala_runtime"])
        node = self._load(NodeConfig, "node", values.node(), dsns["khala_reader"])
        fanout = self._load(FanoutConfig, "fanout", values.fanout(self._driver, "runtime"))
        async with trio.open_nursery() as watching, AsyncExitStack() as drivers:
            watching.start_soon(_fail_when_ended, server)
            hinting, publishing, subscribing = await _open_drivers(drivers, fanout, control, runtime, node)
            async with trio.open_nursery() as services:
                await services.start(partial(serve_control, control, driver=hinting, drain=stop_services))
                await services.start(partial(serve_runtime, runtime, driver=publishing, drain=stop_services))
                async with trio.open_nursery() as nodes:
                    await nodes.start(partial(serve_node, node, driver=subscribing, drain=stop_node))
                    # Outlives what is behind it: clients of a draining node are told so through here.
                    await watching.start(serve_origin, values.ports, self._life.stop)
                    await self._life.announce(values)
                    settle_collector()
                    await self._life.stop.wait()
                    self._report.stopping()
                    stop_node.set()
                    nodes.cancel_scope.deadline = trio.current_time() + DRAIN_S
                stop_services.set()
                services.cancel_scope.deadline = trio.current_time() + SERVICES_STOP_S
            watching.cancel_scope.cancel()

    def _load(self, cls: type[C], section: str, values: Mapping[str, object], dsn: str | None = None) -> C:
        database = {} if dsn is None else {"database_dsn": Secret(dsn)}
        return load_config(
            cls,
            section=section,
            file=self._config_file,
            environ=service_environ(),
            overrides={**values, **database},
        )


async def _open_drivers(
    drivers: AsyncExitStack,
    fanout: FanoutConfig,
    control: ControlConfig,
    runtime: RuntimeConfig,
    node: NodeConfig,
) -> tuple[FanoutDriver, FanoutDriver, FanoutDriver]:
    """Return the ends of control, runtime and node: one object if it cannot leave the process."""

    async def opened(
        component: Literal["control", "runtime", "node"], config: ControlConfig | RuntimeConfig | NodeConfig
    ) -> FanoutDriver:
        context = DriverContext(
            config=fanout, database_dsn=config.database_dsn, component=component, mode=config.mode
        )
        return await drivers.enter_async_context(open_driver(context, is_one_process=True))

    publishing = await opened("runtime", runtime)
    if not publishing.guarantees.crosses_processes:
        return publishing, publishing, publishing
    return await opened("control", control), publishing, await opened("node", node)


async def _fail_when_ended(server: PostgresServer) -> None:
    await server.wait_ended()
    raise EmbeddedPostgresFailed(f"PostgreSQL ended by itself; its log is {server.cluster.log_file}")
