"""Where things are on this machine: data directory, profile, configuration file; options that name them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import attrs
import click

from khala_client.errors import SettingsRefused
from khala_client.settings import Settings, load_settings

__all__ = [
    "data_dir_option",
    "default_data_dir",
    "default_login_profile",
    "find_profile",
    "find_settings",
    "profile_of",
    "profile_option",
]

F = TypeVar("F", bound=Callable[..., object])
PROFILE_FOLDER: Final = "profile"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory of ``khala up`` where none is named: ``~/.local/share/khala``."""
    named = environ.get("KHALA_UP_DATA_DIR")
    if named:
        return Path(named)
    base = environ.get("XDG_DATA_HOME", "")
    # The XDG base directory specification: a relative path counts as absent.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "khala"


def default_login_profile(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where ``khala login --url`` keeps its session if nothing is named: ``~/.config/khala/profile``."""
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "khala" / PROFILE_FOLDER


def profile_of(data_dir: Path) -> Path:
    """Return the profile that the ``khala up`` of a data directory keeps signed in."""
    return data_dir / PROFILE_FOLDER


def find_profile(
    profile: Path | None, *, has_default: bool = False, environ: Mapping[str, str] = os.environ
) -> Path | None:
    """Return the profile that was named, by option or variable; None if none was.

    With ``has_default`` also one that nobody named: that of ``khala login``, else that of ``khala up``, if
    there is one.
    """
    named = environ.get("KHALA_PROFILE")
    if profile is None and named:
        return Path(named)
    if profile is None and has_default:
        defaults = (default_login_profile(environ), profile_of(default_data_dir(environ)))
        return next((path for path in defaults if (path / "profile.json").exists()), None)
    return profile


def find_settings(
    profile: Path | None, *, has_store: bool = False, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return where to connect and as whom; without the store of followers unless ``has_store``.

    ``--profile`` wins, then the environment, then the profile of ``khala login``, then the one that
    ``khala up`` keeps signed in on this machine.

    Raises:
        SettingsRefused: Nothing of that is there, or what is there contradicts itself.
        ProfileRefused: The profile cannot be used.
    """
    if profile is None and not environ.get("KHALA_PROFILE") and not environ.get("KHALA_KEY"):
        profile = find_profile(None, has_default=True, environ=environ)
        if profile is None:
            raise SettingsRefused(
                "nobody is signed in here: start `khala up`, or run `khala login --url https://...`, or name a "
                "profile with --profile or KHALA_PROFILE"
            )
    settings = load_settings(environ, profile=profile)
    return settings if has_store else attrs.evolve(settings, store_path=None)


def data_dir_option(command: F) -> F:
    """Add ``--data-dir``, passed as ``data_dir``."""
    option = click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_data_dir,
        show_default="~/.local/share/khala",
        help="Directory of one khala up: database, secrets, profile.",
    )
    return option(command)


def profile_option(command: F) -> F:
    """Add ``--profile``, passed as ``profile``."""
    option = click.option(
        "--profile",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Signed-in profile directory; default: KHALA_PROFILE, else that of khala login, else of khala up.",
    )
    return option(command)
