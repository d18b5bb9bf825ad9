"""What ``khala up`` can be told: section ``up``, variables ``KHALA_UP_*``, options of the command."""

import os
from pathlib import Path
from typing import Final, Literal

import attrs
from attrs.validators import ge, in_, le

from khala.cli.locations import default_data_dir
from khala.cli.up_ports import PORT_BASE
from khala_service.config import described, load_config

SECTION: Final = "up"
# The base and four ports above it must exist.
PORT_BASE_MAX: Final = 65_535 - 4
# What clients are told (khala_client.settings) is not an unknown key of the services of that name.
_CLIENT_VARIABLES: Final = frozenset({"KHALA_CONTROL_URL", "KHALA_RUNTIME_URL"})


@attrs.frozen(kw_only=True)
class UpSettings:
    """Configuration of the one-process system."""

    data_dir: Path = attrs.field(
        factory=default_data_dir, metadata=described("Directory of database, secrets and profile.")
    )
    port_base: int = attrs.field(
        default=PORT_BASE,
        validator=[ge(0), le(PORT_BASE_MAX)],
        metadata=described("Services listen on the four ports above it; 0 takes any free block."),
    )
    ready_file: Path | None = attrs.field(
        default=None, metadata=described("File that is written, as JSON, once everything is ready.")
    )
    login: str = attrs.field(default="dev", metadata=described("The development user of the profile."))
    log_level: Literal["debug", "info", "warning", "error"] = attrs.field(
        default="info",
        validator=in_(("debug", "info", "warning", "error")),
        metadata=described("What goes into logs/khala.log."),
    )


def server_environ() -> dict[str, str]:
    """Return the variables that the services read: a shell set up for clients may start a system, too."""
    return {name: value for name, value in os.environ.items() if name not in _CLIENT_VARIABLES}


def load_up_settings(
    *, config_file: Path | None, data_dir: Path | None, port_base: int | None, ready_file: Path | None
) -> UpSettings:
    """Return the settings of one ``khala up``; what was given on the command line wins.

    Raises:
        ConfigRefused: with every error found.
    """
    given = {"data_dir": data_dir, "port_base": port_base, "ready_file": ready_file}
    return load_config(
        UpSettings,
        section=SECTION,
        file=config_file,
        environ=os.environ,
        overrides={name: value for name, value in given.items() if value is not None},
    )
