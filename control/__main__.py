"""`python -m control serve | migrate | add-signing-key`; `khala control` is the same service.

The nodes are other processes: the fan-out driver (section `fanout`) must be one that leaves this one.
Exit status, signals and options: `khala_service.service_process`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from control.adapters.signing_keys import KEYS_MAX, add_signing_key
from control.app import SECTION, ControlConfig, ControlEndpoints, migrate, serve_control
from fanout_drivers.opening import SECTION as FANOUT_SECTION
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_service.config import ConfigRefused, ConfigSections
from khala_service.database_roles import foreign_role_error
from khala_service.service_commands import run_commands
from khala_service.service_process import LoggingConfig, Serve, report_failure, run_service, service_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import trio

__all__ = ["main", "serve"]

ADD_SIGNING_KEY: Final = "add-signing-key"


def serve(config_file: Path | None, is_leashed: bool) -> int:
    """Run control until it is asked to end; return the exit status."""

    def read() -> tuple[LoggingConfig, ControlConfig, FanoutConfig]:
        sections = ConfigSections(config_file, service_environ())
        logging = sections.find(LoggingConfig, "logging")
        config = sections.find(ControlConfig, SECTION)
        fanout = sections.find(FanoutConfig, FANOUT_SECTION)
        if config is not None:
            sections.add_error(foreign_role_error(SECTION, config.database_dsn, "khala_control"))
        sections.refuse_errors()
        assert logging is not None
        assert config is not None
        assert fanout is not None
        return logging, config, fanout

    def prepare() -> tuple[LoggingConfig, Serve[ControlEndpoints]]:
        logging, config, fanout = read()
        return logging, partial(_serve_apart, config, fanout, lambda: read()[1])

    return run_service("control", prepare, ports_of=lambda started: (started.port,), is_leashed=is_leashed)


async def _serve_apart(
    config: ControlConfig,
    fanout: FanoutConfig,
    reread: Callable[[], ControlConfig],
    *,
    drain: trio.Event,
    task_status: trio.TaskStatus[ControlEndpoints],
) -> None:
    context = DriverContext(
        config=fanout, database_dsn=config.database_dsn, component="control", mode=config.mode
    )
    async with open_driver(context, is_one_process=False) as driver:
        await serve_control(config, driver=driver, drain=drain, reread=reread, task_status=task_status)


def _add_signing_key(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m control {ADD_SIGNING_KEY}",
        description="Put a new key in front of a key ring; control signs with it after its next start.",
    )
    parser.add_argument("file", type=Path, help="what signing_keys_file names; made if it is missing")
    parser.add_argument(
        "--keep", type=int, choices=range(KEYS_MAX), default=1, help="keys before it that go on verifying"
    )
    options = parser.parse_args(arguments)
    try:
        kid = add_signing_key(options.file, keep=options.keep)
    except ConfigRefused as refused:
        return report_failure(refused)
    sys.stdout.write(f"{kid}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == [ADD_SIGNING_KEY]:
        return _add_signing_key(given[1:])
    return run_commands("control", serve=serve, migrate=migrate, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
