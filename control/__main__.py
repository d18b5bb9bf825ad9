"""`python -m control serve | migrate`: the service and its migration job, without the `khala` command.

Exit codes: 0, 1 for a failure, 2 for wrong usage, 78 for refused configuration.
"""

import argparse
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from control.app import SECTION, ControlConfig, migrate, serve_control
from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.adapters.postgres_migrations import (
    MigrationDrift,
    MigrationFailed,
    MigrationFilesInvalid,
)
from khala_service.config import ConfigRefused, Secret, described, load_config
from khala_service.errors import Unavailable
from khala_service.logs import configure_logging

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h
# A section of its own: the owner's credential is not for the service to know.
MIGRATE_SECTION: Final = "migrate_control"
_FAILURES: Final = (
    MigrationDrift, MigrationFailed, MigrationFilesInvalid, Unavailable, OSError,
)  # fmt: skip


@attrs.frozen(kw_only=True)
class MigrateConfig:
    """What the migration job is told, by KHALA_MIGRATE_CONTROL_OWNER_DSN or .._OWNER_DSN_FILE."""

    owner_dsn: Secret = attrs.field(metadata=described("URL of the database, role khala_control_owner."))


async def run_service(config: ControlConfig) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in flight."""
    drain = trio.Event()
    async with open_asyncio_loop(), trio.open_nursery() as nursery:
        endpoints = await nursery.start(partial(serve_control, config, drain=drain))
        # The one line on standard output, for whoever asked for port 0; logs go to standard error.
        sys.stdout.write(f"{endpoints.port}\n")
        sys.stdout.flush()
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                drain.set()
                break


async def run_migration(config: MigrateConfig) -> None:
    """Bring the schema to this build's revision."""
    async with open_asyncio_loop():
        await migrate(config.owner_dsn)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m control", description=__doc__)
    parser.add_argument("command", choices=("serve", "migrate"))
    parser.add_argument("--config", type=Path, default=None, help="TOML file with [control]")
    options = parser.parse_args(arguments)
    configure_logging("control")
    try:
        if options.command == "serve":
            config = load_config(ControlConfig, section=SECTION, file=options.config, environ=os.environ)
            trio.run(run_service, config)
        else:
            trio.run(
                run_migration,
                load_config(MigrateConfig, section=MIGRATE_SECTION, environ=os.environ),
            )
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
