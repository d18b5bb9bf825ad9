"""The options that the command of every service has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

__all__ = ["service_options"]

F = TypeVar("F", bound=Callable[..., object])


def service_options(command: F) -> F:
    """Add ``--config`` and ``--until-stdin-closes``, which every service has."""
    config = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        envvar="KHALA_CONFIG",
        help="TOML file; KHALA_* variables win over it.",
    )
    leash = click.option(
        "--until-stdin-closes", "is_leashed", is_flag=True, help="End, too, when standard input does."
    )
    return config(leash(command))
