"""``khala node``: the service as a process of its own. What it does with signals: `khala_service.service_process`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from fanout_drivers.opening import SECTION as FANOUT_SECTION
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala.app import SECTION as NODE_SECTION
from khala.app import NodeConfig, NodeEndpoints, serve_node
from khala.cli.service_options import service_options
from khala_service.config import ConfigSections
from khala_service.database_roles import foreign_role_error
from khala_service.service_process import LoggingConfig, Serve, run_service, service_environ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import trio

__all__ = ["node_command", "serve_node_process"]


@click.command("node")
@service_options
def node_command(config_file: Path | None, *, is_leashed: bool) -> int:
    """Run a node: live delivery and replay. Sections [node] and [fanout]."""
    return serve_node_process(config_file, is_leashed)


def serve_node_process(config_file: Path | None, is_leashed: bool) -> int:
    """Run a node until it is asked to end; return the exit status."""

    def read() -> tuple[LoggingConfig, NodeConfig, FanoutConfig]:
        sections = ConfigSections(config_file, service_environ())
        logging = sections.find(LoggingConfig, "logging")
        config = sections.find(NodeConfig, NODE_SECTION)
        fanout = sections.find(FanoutConfig, FANOUT_SECTION)
        if config is not None:
            sections.add_error(foreign_role_error(NODE_SECTION, config.database_dsn, "khala_reader"))
        sections.refuse_errors()
        assert logging is not None
        assert config is not None
        assert fanout is not None
        return logging, config, fanout

    def prepare() -> tuple[LoggingConfig, Serve[NodeEndpoints]]:
        logging, config, fanout = read()
        return logging, partial(_serve_node_apart, config, fanout, lambda: read()[1])

    return run_service(
        "node",
        prepare,
        ports_of=lambda started: (started.port, started.admin_port),
        is_leashed=is_leashed,
    )


async def _serve_node_apart(
    config: NodeConfig,
    fanout: FanoutConfig,
    reread: Callable[[], NodeConfig],
    *,
    drain: trio.Event,
    task_status: trio.TaskStatus[NodeEndpoints],
) -> None:
    context = DriverContext(
        config=fanout, database_dsn=config.database_dsn, component="node", mode=config.mode
    )
    async with open_driver(context, is_one_process=False) as driver:
        await serve_node(config, driver=driver, drain=drain, reread=reread, task_status=task_status)
