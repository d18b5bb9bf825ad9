"""Reads a service's configuration: one TOML file, `KHALA_*` variables, command-line overrides.

A service describes its configuration as one attrs class (nested classes are sub-tables); the default
of a value is written there and nowhere else. This module resolves where each value comes from and
reports every error at once.

Precedence: override, variable, file, default. The section `runtime`, field `limits.batch_max` is
`[runtime.limits] batch_max` in the file and `KHALA_RUNTIME_LIMITS_BATCH_MAX` in the environment. A
`Secret` may be given as `<name>_file`: the path of a file that holds it; so may each entry of a
mapping of secrets. A field's attrs validator
looks at that value alone; a rule between fields belongs into `__attrs_post_init__` (ValueError).
Error texts name the key and what is expected, never a secret's value.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from khala_service.config_fields import ConfigField, FieldReader, describe_config, described
from khala_service.secret import Secret

__all__ = [
    "CONFIG_SECTIONS",
    "ConfigField",
    "ConfigRefused",
    "ConfigSections",
    "Secret",
    "describe_config",
    "described",
    "load_config",
]

C = TypeVar("C")

# Tables that a configuration file may have; each service reads its own.
CONFIG_SECTIONS: Final = ("control", "runtime", "node", "fanout", "up", "migrate", "logging")
# A configuration is a page of text. Larger: somebody passed the wrong file.
FILE_MAX_BYTES: Final = 1 << 20


class ConfigRefused(Exception):
    """The configuration is wrong; the operator must change it. The process ends with status 78.

    Attributes:
        errors: One line per error, ``<key>: <what is expected>``, sorted by key.
    """

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def load_config(
    cls: type[C],
    *,
    section: str,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> C:
    """Return the configuration of one service.

    Args:
        cls: attrs class whose fields are the keys of the section.
        section: One of CONFIG_SECTIONS.
        file: TOML file, None if there is none. A named file must exist.
        environ: Variables; pass `os.environ`. None: no variable is looked at.
        overrides: Values by dotted key below the section (``"limits.batch_max"``), typed or text.

    Raises:
        ConfigRefused: with every error found, not only the first.
    """
    errors: list[str] = []
    table = _read_section(file, section, errors)
    reader = FieldReader(section=section, environ=environ or {}, overrides=dict(overrides or {}))
    config = reader.read(cls, table)
    errors.extend(reader.errors)
    if errors or config is None:
        raise ConfigRefused(tuple(sorted(errors)))
    return config


class ConfigSections:
    """Reads the sections of one process, so that the errors of all of them are reported at once.

    Usage: ``find`` each, then ``refuse_errors``; after it nothing that was found is None.
    """

    def __init__(self, file: Path | None, environ: Mapping[str, str] | None) -> None:
        self._file = file
        self._environ = environ
        self._errors: set[str] = set()

    def find(self, cls: type[C], section: str, *, overrides: Mapping[str, object] | None = None) -> C | None:
        """Return one section as `load_config` does; None if something in it is wrong."""
        try:
            return load_config(
                cls, section=section, file=self._file, environ=self._environ, overrides=overrides
            )
        except ConfigRefused as refused:
            self._errors.update(refused.errors)
            return None

    def add_error(self, error: str | None) -> None:
        """Report what no single section can see: ``<key>: <what is expected>``; None is no error."""
        if error is not None:
            self._errors.add(error)

    def refuse_errors(self) -> None:
        """Return if nothing was wrong.

        Raises:
            ConfigRefused: with every error of every section.
        """
        if self._errors:
            raise ConfigRefused(tuple(sorted(self._errors)))


def _read_section(file: Path | None, section: str, errors: list[str]) -> Mapping[str, object]:
    if file is None:
        return {}
    try:
        if file.stat().st_size > FILE_MAX_BYTES:
            errors.append(f"{file}: larger than {FILE_MAX_BYTES} bytes; not a configuration file")
            return {}
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        errors.append(f"{file}: cannot be read ({error.strerror})")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        errors.append(f"{file}: not TOML ({error})")
        return {}
    errors.extend(
        f"{name}: unknown section; known are {', '.join(CONFIG_SECTIONS)}"
        for name in document
        if name not in CONFIG_SECTIONS and name != section
    )
    table = document.get(section, {})
    if not isinstance(table, Mapping):
        errors.append(f"{section}: expected a table")
        return {}
    return table
