"""The commented example of a configuration file, from the classes that read it. Pure.

Every key is there with its meaning and its default, behind ``# ``; whoever takes one away sets the key. Keys
without a default are marked, and the file is refused until they are set. The section ``up`` is behind ``# ``
too where others are there: a file is for ``khala up`` or for the services apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from khala.cli.toml_text import toml_value
from khala_service.config import describe_config

if TYPE_CHECKING:
    from khala_service.config import ConfigField

__all__ = ["example_document"]

_ABOUT: Final = """\
# Khala's configuration. Every key is here with its default: take away the "# " before a line to set it.
# Precedence: command line, variable (KHALA_<SECTION>_<KEY>), this file, default.
# A secret may be given as <key>_file, the path of a file that holds it; then it stands in no environment.
# Check it with: khala check-config --config FILE
"""
_NOTES: Final[Mapping[str, str]] = {
    "up": "`khala up` fills in what the other sections require; a file that names [up] is judged for it.",
    "control": "`khala control`", "runtime": "`khala runtime`", "node": "`khala node`",
    "fanout": "The same for control, runtime and every node.", "logging": "Every service.",
    "migrate": "`khala migrate`",
}  # fmt: skip


def example_document(sections: Mapping[str, type]) -> str:
    """Return the example with the given sections, in their order."""
    lines = [_ABOUT]
    for section, cls in sections.items():
        before = "# " if section == "up" and len(sections) > 1 else ""
        lines += [f"# {_NOTES[section]}", f"{before}[{section}]"]
        table = section
        for field in describe_config(cls, section):
            inside, _, key = field.name.rpartition(".")
            if inside != table:
                table = inside
                lines += ["", f"{before}[{table}]"]
            lines += ["", *_comment(field), f"# {key} = {_default(field)}".rstrip()]
        lines += ["", ""]
    return "\n".join(lines).rstrip() + "\n"


def _comment(field: ConfigField) -> list[str]:
    notes = [field.doc]
    if field.is_required:
        notes.append("Required.")
    if field.is_secret:
        notes.append(f"Secret; also {field.name.rpartition('.')[2]}_file.")
    elif not field.is_required and field.value is None:
        notes.append("Not set by default.")
    return [f"# {' '.join(notes)}"]


def _default(field: ConfigField) -> str:
    """Return the default behind the equals sign; nothing where there is none."""
    match field.value:
        case None:
            return ""
        case Path():
            return toml_value(str(field.value))
        case str() | Mapping() | bool() | int() | float():
            return toml_value(field.value)
        case Sequence():
            return toml_value(list(field.value))
        case other:
            raise TypeError(f"{field.name}: {type(other).__name__} has no form in TOML")
