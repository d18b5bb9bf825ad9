"""Writes the TOML of the configuration that ``khala up --split`` hands to its child processes.

Only what ``tomllib`` returns can be written, and reading it again gives the same values.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Final

__all__ = ["toml_document", "toml_value"]

# JSON leaves it as it is; TOML wants every control character escaped.
_DELETE: Final = "\x7f"


def toml_document(sections: Mapping[str, Mapping[str, object]]) -> str:
    """Return a document with one table per section.

    Raises:
        TypeError: A value has no form in TOML.
    """
    lines: list[str] = []
    for name, table in sections.items():
        lines.append(f"[{_text(name)}]")
        lines += [f"{_text(key)} = {toml_value(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def toml_value(value: object) -> str:
    """Return a value as it stands behind the equals sign.

    Raises:
        TypeError: It has no form in TOML.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case Mapping():
            return (
                f"{{{', '.join(f'{_text(str(key))} = {toml_value(item)}' for key, item in value.items())}}}"
            )
        case _:
            raise TypeError(f"{type(value).__name__} has no form in TOML")


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace(_DELETE, "\\u007f")
