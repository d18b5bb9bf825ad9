"""`python -m runtime serve | migrate`; `khala runtime` is the same service.

The nodes are other processes: the fan-out driver (section `fanout`) must be one that leaves this one.
Exit status, signals and options: `khala_service.service_process`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from fanout_drivers.opening import SECTION as FANOUT_SECTION
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_service.config import ConfigSections
from khala_service.database_roles import foreign_role_error
from khala_service.service_commands import run_commands
from khala_service.service_process import LoggingConfig, Serve, run_service, service_environ
from runtime.app import SECTION, RuntimeConfig, RuntimeEndpoints, migrate, serve_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import trio

__all__ = ["main", "serve"]


def serve(config_file: Path | None, is_leashed: bool) -> int:
    """Run the runtime until it is asked to end; return the exit status."""

    def read() -> tuple[LoggingConfig, RuntimeConfig, FanoutConfig]:
        sections = ConfigSections(config_file, service_environ())
        logging = sections.find(LoggingConfig, "logging")
        config = sections.find(RuntimeConfig, SECTION)
        fanout = sections.find(FanoutConfig, FANOUT_SECTION)
        if config is not None:
            sections.add_error(foreign_role_error(SECTION, config.database_dsn, "khala_runtime"))
        sections.refuse_errors()
        assert logging is not None
        assert config is not None
        assert fanout is not None
        return logging, config, fanout

    def prepare() -> tuple[LoggingConfig, Serve[RuntimeEndpoints]]:
        logging, config, fanout = read()
        return logging, partial(_serve_apart, config, fanout, lambda: read()[1])

    return run_service("runtime", prepare, ports_of=lambda started: (started.port,), is_leashed=is_leashed)


async def _serve_apart(
    config: RuntimeConfig,
    fanout: FanoutConfig,
    reread: Callable[[], RuntimeConfig],
    *,
    drain: trio.Event,
    task_status: trio.TaskStatus[RuntimeEndpoints],
) -> None:
    context = DriverContext(
        config=fanout, database_dsn=config.database_dsn, component="runtime", mode=config.mode
    )
    async with open_driver(context, is_one_process=False) as driver:
        await serve_runtime(config, driver=driver, drain=drain, reread=reread, task_status=task_status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_commands("runtime", serve=serve, migrate=migrate, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
