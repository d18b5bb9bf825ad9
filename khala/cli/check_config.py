"""``khala check-config``: is this file, with these variables, one that the services take?

What is judged: every section that the file names, and every one that a variable names; a file for ``khala up``
as ``khala up`` judges it, with what it fills in. Nothing is started, made or connected to. Every error at once,
one a line; exit status 78 if there is one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from khala.cli.config_example import example_document
from khala.cli.services import SERVICE_SECTIONS, judge_section
from khala.cli.terminal import json_option, open_terminal
from khala.cli.up import judge
from khala.cli.up_settings import UpSettings
from khala_service.config import CONFIG_SECTIONS, ConfigRefused, ConfigSections
from khala_service.config_fields import env_name
from khala_service.service_process import LoggingConfig, service_environ

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SECTIONS", "check_config_command", "check_file"]

SECTIONS: Final[Mapping[str, type]] = {"up": UpSettings, **SERVICE_SECTIONS}


@click.command("check-config")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="KHALA_CONFIG",
    help="TOML file; KHALA_* variables are judged with it.",
)
@click.option(
    "--print-defaults", is_flag=True, help="Print a commented example with every key, and check nothing."
)
@click.option(
    "--section",
    "chosen",
    type=click.Choice(list(SECTIONS)),
    multiple=True,
    help="With --print-defaults: only this one; may be repeated.",
)
@json_option
def check_config_command(
    config_file: Path | None, *, print_defaults: bool, chosen: tuple[str, ...], is_json: bool
) -> None:
    """Say every error of a configuration file and of KHALA_* variables, or print an example of one."""
    terminal = open_terminal(is_json=is_json)
    if print_defaults:
        wanted = {name: cls for name, cls in SECTIONS.items() if not chosen or name in chosen}
        text = example_document(wanted)
        terminal.data({"type": "config_example", "toml": text})
        terminal.line(text.rstrip("\n"))
        return
    judged = check_file(config_file, service_environ(os.environ))
    if not judged:
        raise click.UsageError("nothing to check: name a file with --config, or set KHALA_* variables")
    terminal.data({"type": "config_checked", "sections": list(judged)})
    terminal.show(Text.assemble(("✓ ", "green"), f"Nothing is wrong in {', '.join(judged)}."))


def check_file(config_file: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sections that were judged, and found right; none if nothing is said anywhere.

    Raises:
        ConfigRefused: with every error.
    """
    named = _named_sections(config_file, environ)
    sections = ConfigSections(config_file, environ)
    for error in _strange_variables(environ):
        sections.add_error(error)
    # Also says what is wrong with the file as a whole: not TOML, unknown sections.
    sections.find(LoggingConfig, "logging")
    if "up" in named:
        try:
            judge(config_file, {}, environ=environ)
        except ConfigRefused as refused:
            for error in refused.errors:
                sections.add_error(error)
    for section in SERVICE_SECTIONS:
        if section in named and ("up" not in named or section == "migrate"):
            judge_section(sections, section)
    sections.refuse_errors()
    return named


def _named_sections(config_file: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the known sections that the file or a variable names; a file that cannot be read names all it can."""
    document: Mapping[str, object] = {}
    if config_file is not None:
        try:
            document = tomllib.loads(config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # The reader says what is wrong with it.
            return ("logging",)
    prefixes = {name: env_name(name, ()) + "_" for name in SECTIONS}
    return tuple(
        name
        for name in SECTIONS
        if name in document or any(variable.startswith(prefixes[name]) for variable in environ)
    ) or (("logging",) if document else ())


def _strange_variables(environ: Mapping[str, str]) -> list[str]:
    """Return an error for each variable that looks like one of a section with its name misspelt."""
    errors = []
    for name in sorted(environ):
        word, has_key, key = name.removeprefix("KHALA_").partition("_")
        if not name.startswith("KHALA_") or not has_key or word.lower() in CONFIG_SECTIONS:
            continue
        close = difflib.get_close_matches(word.lower(), CONFIG_SECTIONS, n=1, cutoff=0.8)
        if close:
            errors.append(f"{name}: unknown variable; did you mean KHALA_{close[0].upper()}_{key}?")
    return errors
