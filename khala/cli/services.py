"""The migration job, and what a configuration file may hold for all services: what knows the three of them.

Each service is a command in a module of its own (control_service.py, runtime_service.py, node_service.py),
so that its process loads no other.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs
import click
import trio
from rich.text import Text

from control.app import ControlConfig
from control.app import migrate as migrate_control
from fanout_drivers.opening import FanoutConfig, find_driver
from khala.app import NodeConfig
from khala.cli.failures import EXIT_REFUSED, CommandFailed
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.adapters.postgres_migrations import (
    MigrationDrift,
    MigrationFailed,
    MigrationFilesInvalid,
    MigrationReport,
)
from khala_service.config import ConfigRefused, ConfigSections, Secret, described, load_config
from khala_service.database_roles import foreign_role_error
from khala_service.errors import Unavailable
from khala_service.service_process import LoggingConfig
from runtime.app import RuntimeConfig
from runtime.app import migrate as migrate_runtime

__all__ = [
    "SERVICE_SECTIONS",
    "MigrateSettings",
    "judge_section",
    "migrate_command",
    "migrate_plane",
]

SECTION: Final = "migrate"
MIGRATIONS: Final = {"control": migrate_control, "runtime": migrate_runtime}


@attrs.frozen(kw_only=True)
class MigrateSettings:
    """Section ``migrate``: what the migration job may connect as."""

    control_owner_dsn: Secret | None = attrs.field(
        default=None, metadata=described("URL of control's database, role khala_control_owner.")
    )
    runtime_owner_dsn: Secret | None = attrs.field(
        default=None, metadata=described("URL of the runtime's database, role khala_runtime_owner.")
    )


# What a configuration file may hold for the services, by section.
SERVICE_SECTIONS: Final[Mapping[str, type]] = {
    "control": ControlConfig,
    "runtime": RuntimeConfig,
    "node": NodeConfig,
    "fanout": FanoutConfig,
    "logging": LoggingConfig,
    "migrate": MigrateSettings,
}
_ROLES: Final = {"control": "khala_control", "runtime": "khala_runtime", "node": "khala_reader"}


def judge_section(sections: ConfigSections, section: str) -> None:
    """Judge a section as whoever reads it does at its start; errors are added to ``sections``."""
    match sections.find(SERVICE_SECTIONS[section], section):
        case (ControlConfig() | RuntimeConfig() | NodeConfig()) as config:
            sections.add_error(foreign_role_error(section, config.database_dsn, _ROLES[section]))
        case FanoutConfig() as config:
            try:
                find_driver(config.driver)
            except ConfigRefused as refused:
                for error in refused.errors:
                    sections.add_error(error)
        case _:
            pass  # refused already, or nothing that the class itself does not know


async def migrate_plane(name: str, owner_dsn: Secret | str) -> MigrationReport:
    """Migrate ``control`` or ``runtime``; run inside ``open_asyncio_loop``.

    Raises:
        CommandFailed: An applied file was edited, a migration failed, or there is no database.
    """
    try:
        return await MIGRATIONS[name](owner_dsn)
    except MigrationDrift as error:
        # Made by a newer build, or applied files were edited: only a person can say which of the two is right.
        raise CommandFailed(
            f"the schema of {name} is not one of this build ({error}); take the newer one: "
            "`pip install --upgrade khala`",
            exit_status=EXIT_REFUSED,
        ) from error
    except (MigrationFailed, MigrationFilesInvalid, Unavailable) as error:
        raise CommandFailed(f"the schema of {name} cannot be brought up to date: {error}") from error


@click.command("migrate")
@click.argument("plane", type=click.Choice(["all", *MIGRATIONS]), default="all")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="KHALA_CONFIG",
    help="TOML file, section [migrate]: control_owner_dsn, runtime_owner_dsn (or ..._file).",
)
@json_option
def migrate_command(plane: str, config_file: Path | None, *, is_json: bool) -> None:
    """Bring the schema of PLANE to this version; repeating it changes nothing.

    Connects as the owner roles, by KHALA_MIGRATE_CONTROL_OWNER_DSN and
    KHALA_MIGRATE_RUNTIME_OWNER_DSN, or the file.
    """
    settings = load_config(MigrateSettings, section=SECTION, file=config_file, environ=os.environ)
    dsns = {"control": settings.control_owner_dsn, "runtime": settings.runtime_owner_dsn}
    wanted = {name: dsn for name, dsn in dsns.items() if plane in (name, "all")}
    missing = [name for name, dsn in wanted.items() if dsn is None]
    if missing:
        names = ", ".join(f"KHALA_MIGRATE_{name.upper()}_OWNER_DSN" for name in missing)
        raise click.UsageError(f"set {names} (a URL of the owner role), or name one plane")
    trio.run(_migrate, open_terminal(is_json=is_json), wanted)


async def _migrate(terminal: Terminal, wanted: dict[str, Secret | None]) -> None:
    async with open_asyncio_loop():
        for name, dsn in wanted.items():
            assert dsn is not None
            report = await migrate_plane(name, dsn)
            terminal.data(
                {
                    "type": "migration",
                    "plane": name,
                    "applied": list(report.applied),
                    "revision": report.revision,
                }
            )
            done = f"applied {', '.join(report.applied)}" if report.applied else "nothing to do"
            terminal.show(Text.assemble(("✓ ", "green"), f"{name} is at revision {report.revision}: {done}"))
