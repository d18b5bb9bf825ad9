"""`python -m runtime serve | migrate`: the service and its migration job, without the `khala` command.

Exit codes: 0, 1 for a failure, 2 for wrong usage, 78 for refused configuration.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.adapters.postgres_migrations import (
    MigrationDrift,
    MigrationFailed,
    MigrationFilesInvalid,
)
from khala_service.config import ConfigRefused, Secret, described, load_config
from khala_service.errors import Unavailable
from khala_service.logs import configure_logging
from runtime.adapters.silent_driver import SilentDriver
from runtime.app import SECTION, RuntimeConfig, migrate, serve_runtime

if TYPE_CHECKING:
    from fanout_drivers.base import FanoutDriver

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h
# A section of its own: the owner's credential is not for the service to know.
MIGRATE_SECTION: Final = "migrate_runtime"
DRIVER_GROUP: Final = "khala.fanout_drivers"
NO_DRIVER: Final = "none"
_FAILURES: Final = (MigrationDrift, MigrationFailed, MigrationFilesInvalid, Unavailable, OSError)


@attrs.frozen(kw_only=True)
class MigrateConfig:
    """What the migration job is told, by KHALA_MIGRATE_RUNTIME_OWNER_DSN or .._OWNER_DSN_FILE."""

    owner_dsn: Secret = attrs.field(metadata=described("URL of the database, role khala_runtime_owner."))


async def run_service(config: RuntimeConfig, driver: FanoutDriver) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in flight."""
    drain = trio.Event()
    async with open_asyncio_loop(), trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(_serve, config, driver, drain, nursery.cancel_scope)
            async for _ in signals:
                if drain.is_set():
                    break
                drain.set()
        # Asked twice: stop at once.
        nursery.cancel_scope.cancel()


async def _serve(
    config: RuntimeConfig, driver: FanoutDriver, drain: trio.Event, scope: trio.CancelScope
) -> None:
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(partial(serve_runtime, config, driver=driver, drain=drain))
        # The one line on standard output, for whoever asked for port 0; logs go to standard error.
        sys.stdout.write(f"{endpoints.port}\n")
        sys.stdout.flush()
    scope.cancel()


async def run_migration(config: MigrateConfig) -> None:
    """Bring the schema to this build's revision."""
    async with open_asyncio_loop():
        await migrate(config.owner_dsn)


def find_driver(name: str) -> FanoutDriver:
    """Return the fan-out driver with this name.

    Raises:
        ConfigRefused: No installed distribution registers one of that name.
    """
    if name == NO_DRIVER:
        return SilentDriver()
    found = entry_points(group=DRIVER_GROUP, name=name)
    if not found:
        known = ", ".join(sorted(point.name for point in entry_points(group=DRIVER_GROUP))) or "none"
        raise ConfigRefused((f"--driver {name}: not installed; known are {known}",))
    return cast("FanoutDriver", next(iter(found)).load()())


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime", description=__doc__)
    parser.add_argument("command", choices=("serve", "migrate"))
    parser.add_argument("--config", type=Path, default=None, help="TOML file with [runtime]")
    parser.add_argument(
        "--driver", default=NO_DRIVER, help="fan-out driver; none: nodes find commits by asking"
    )
    options = parser.parse_args(arguments)
    configure_logging("runtime")
    try:
        if options.command == "serve":
            config = load_config(RuntimeConfig, section=SECTION, file=options.config, environ=os.environ)
            trio.run(run_service, config, find_driver(options.driver))
        else:
            trio.run(run_migration, load_config(MigrateConfig, section=MIGRATE_SECTION, environ=os.environ))
    except (ConfigRefused, ExceptionGroup, *_FAILURES) as error:
        return _report(_single_cause(error))
    return 0


def _single_cause(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _report(error: Exception) -> int:
    if isinstance(error, ConfigRefused):
        sys.stderr.write("".join(f"{line}\n" for line in error.errors))
        return EXIT_CONFIG
    if isinstance(error, _FAILURES):
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return EXIT_FAILED
    raise error


if __name__ == "__main__":
    sys.exit(main())
