"""``python -m <service> serve | migrate``: a service and its migration job without the ``khala`` command.

Exit status: as in `service_process`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.config import Secret, described, load_config
from khala_service.logs import configure_logging
from khala_service.service_process import report_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from khala_service.adapters.postgres_migrations import MigrationReport

__all__ = ["MigrationConfig", "run_commands"]


@attrs.frozen(kw_only=True)
class MigrationConfig:
    """What the migration job is told, by KHALA_MIGRATE_<SERVICE>_OWNER_DSN or .._OWNER_DSN_FILE.

    A section of its own: the owner's credential is not for the service to know.
    """

    owner_dsn: Secret = attrs.field(metadata=described("URL of the database, role of the schema's owner."))


def run_commands(
    name: str,
    *,
    serve: Callable[[Path | None, bool], int],
    migrate: Callable[[Secret], Awaitable[MigrationReport]] | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run one command and return its exit status.

    Args:
        name: The package.
        serve: Given the configuration file and whether the end of standard input ends it.
        migrate: Brings the service's schema to this build's revision; None: it owns none.
        arguments: Those of the process if None.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("command", choices=("serve", "migrate") if migrate is not None else ("serve",))
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KHALA_CONFIG"),
        help=f"TOML file with [{name}]; default: KHALA_CONFIG",
    )
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end, too, when standard input does"
    )
    options = parser.parse_args(arguments)
    if options.command == "serve" or migrate is None:
        return serve(options.config, options.until_stdin_closes)
    return _run_migration(name, migrate)


def _run_migration(name: str, migrate: Callable[[Secret], Awaitable[MigrationReport]]) -> int:
    configure_logging(name)
    try:
        config = load_config(MigrationConfig, section=f"migrate_{name}", environ=os.environ)
        trio.run(_migrate, migrate, config.owner_dsn)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - the end of the process is its report
        return report_failure(error)
    return 0


async def _migrate(migrate: Callable[[Secret], Awaitable[MigrationReport]], owner_dsn: Secret) -> None:
    async with open_asyncio_loop():
        await migrate(owner_dsn)
