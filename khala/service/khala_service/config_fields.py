"""Resolves the fields of a configuration class from table, environment and overrides.

Owns the naming rules (keys, variables, `_file`) that `config.py` documents. Collects errors instead
of raising, so that an operator sees all of them.
"""

import difflib
from collections.abc import Iterator, Mapping, MutableMapping
from enum import Enum
from types import UnionType
from typing import Final, TypeVar, Union, get_args, get_origin

import attrs

from khala_service.config_values import ValueRefused, parse_text, secret_from_file, structure
from khala_service.secret import Secret

C = TypeVar("C")
_FILE_SUFFIX: Final = "_file"
_DOC: Final = "khala_doc"


@attrs.frozen
class ConfigField:
    """One key as `khala check-config --print-defaults` shows it; ``value`` is the default, None without one."""

    name: str
    type_name: str
    default: str
    value: object
    env: str
    doc: str
    is_required: bool
    is_secret: bool


def described(doc: str) -> dict[str, str]:
    """Return attrs metadata with the one-line explanation of a field, unit included."""
    return {_DOC: doc}


def describe_config(cls: type, section: str) -> Iterator[ConfigField]:
    """Yield every key of a configuration class in its order, nested tables included."""
    yield from _describe(cls, section, ())


def env_name(section: str, path: tuple[str, ...]) -> str:
    """Return the variable of a key."""
    return "_".join(("khala", section, *path)).upper()


def _describe(cls: type, section: str, path: tuple[str, ...]) -> Iterator[ConfigField]:
    for field in _fields(cls):
        inner = (*path, field.name)
        nested = _nested_class(field.type)
        if nested is not None:
            yield from _describe(nested, section, inner)
            continue
        yield ConfigField(
            name=".".join((section, *inner)),
            type_name=_type_name(field.type),
            default=_default_text(field),
            value=_default_value(field),
            env=env_name(section, inner),
            doc=str(field.metadata.get(_DOC, "")),
            is_required=field.default is attrs.NOTHING,
            is_secret=_is_secret(field.type),
        )


class FieldReader:
    """Reads one section. Use once: `read`, then look at `errors`."""

    def __init__(
        self, *, section: str, environ: Mapping[str, str], overrides: MutableMapping[str, object]
    ) -> None:
        self.errors: list[str] = []
        self._section = section
        prefix = env_name(section, ()) + "_"
        # What nobody asked for at the end is unknown, and refused.
        self._environ = {k: v for k, v in environ.items() if k.startswith(prefix)}
        self._overrides = overrides

    def read(self, cls: type[C], table: Mapping[str, object]) -> C | None:
        """Return an instance, or None after adding at least one error."""
        config = self._read_class(cls, table, ())
        for name in sorted(self._environ):
            self.errors.append(f"{name}: unknown variable")
        for name in sorted(self._overrides):
            self.errors.append(f"{self._section}.{name}: unknown key")
        return config if not self.errors else None

    def _read_class(self, cls: type[C], table: Mapping[str, object], path: tuple[str, ...]) -> C | None:
        count_before = len(self.errors)
        rest = dict(table)
        values: dict[str, object] = {}
        names = [field.name for field in _fields(cls)]
        for field in _fields(cls):
            inner = (*path, field.name)
            nested = _nested_class(field.type)
            if nested is not None:
                sub_table = rest.pop(field.name, {})
                if isinstance(sub_table, Mapping):
                    values[field.name] = self._read_class(nested, sub_table, inner)
                else:
                    self._refuse(inner, "expected a table")
                continue
            self._read_field(field, inner, rest, values)
        for key in rest:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self._refuse((*path, key), f"unknown key{hint}")
        if len(self.errors) > count_before:
            return None
        try:
            return cls(**values)
        except ValueError as error:
            self._refuse(path, str(error))
            return None

    def _read_field(
        self,
        field: "attrs.Attribute[object]",
        path: tuple[str, ...],
        rest: dict[str, object],
        values: dict[str, object],
    ) -> None:
        try:
            found = self._find(field, path, rest)
            if found is _MISSING:
                if field.default is attrs.NOTHING:
                    self._refuse(path, f"required; set it here or in {env_name(self._section, path)}")
                return
            value = structure(found, field.type)
            if field.validator is not None:
                field.validator(None, field, value)
        except ValueRefused as error:
            self._refuse((*path, *error.path), error.expected)
        except (ValueError, TypeError) as error:
            # attrs' own validators quote the value after the first sentence; a secret's is not said.
            text = "refused by its rule" if _is_secret(field.type) else str(error.args[0])
            self._refuse(path, text)
        else:
            values[field.name] = value

    def _find(
        self, field: "attrs.Attribute[object]", path: tuple[str, ...], rest: dict[str, object]
    ) -> object:
        """Return the raw value with the highest precedence, `_MISSING` if no source has one."""
        key = ".".join(path)
        variable = env_name(self._section, path)
        by_override = self._overrides.pop(key, _MISSING)
        by_variable: object = self._environ.pop(variable, _MISSING)
        by_table = rest.pop(field.name, _MISSING)
        if _is_secret(field.type) and not field.name.endswith(_FILE_SUFFIX):
            by_variable = self._or_file(
                by_variable, self._environ.pop(variable + _FILE_SUFFIX.upper(), _MISSING), path
            )
            by_table = self._or_file(by_table, rest.pop(field.name + _FILE_SUFFIX, _MISSING), path)
            by_override = self._or_file(by_override, self._overrides.pop(key + _FILE_SUFFIX, _MISSING), path)
        if isinstance(by_variable, str):
            by_variable = parse_text(by_variable, field.type)
        if isinstance(by_override, str):
            by_override = parse_text(by_override, field.type)
        for candidate in (by_override, by_variable, by_table):
            if candidate is not _MISSING and candidate is not None:
                return candidate
        return _MISSING

    def _or_file(self, value: object, file: object, path: tuple[str, ...]) -> object:
        if file is _MISSING or file is None:
            return value
        if value is not _MISSING:
            raise ValueRefused(f"give either {path[-1]} or {path[-1]}{_FILE_SUFFIX}, not both")
        return secret_from_file(file)

    def _refuse(self, path: tuple[str, ...], expected: str) -> None:
        self.errors.append(f"{'.'.join((self._section, *path))}: {expected}")


class _Missing:
    """The type of `_MISSING`: no source has the key. None would be a value."""


_MISSING: Final = _Missing()


def _fields(cls: type) -> "tuple[attrs.Attribute[object], ...]":
    attrs.resolve_types(cls)
    return tuple(field for field in attrs.fields(cls) if field.init)


def _nested_class(kind: object) -> type | None:
    return kind if isinstance(kind, type) and attrs.has(kind) else None


def _is_secret(kind: object) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_is_secret(option) for option in get_args(kind))
    return kind is Secret


def _type_name(kind: object) -> str:
    if isinstance(kind, type) and get_origin(kind) is None:
        return kind.__name__
    return str(kind).replace("typing.", "").replace("collections.abc.", "").replace("pathlib.", "")


def _default_text(field: "attrs.Attribute[object]") -> str:
    return "" if field.default is attrs.NOTHING else str(_default_value(field))


def _default_value(field: "attrs.Attribute[object]") -> object:
    default: object = field.default
    if default is attrs.NOTHING:
        return None
    # `attrs.Factory` is typed as a function; at run time it is the class of such defaults.
    factory = getattr(default, "factory", None)
    value = factory() if factory is not None else default
    return value.value if isinstance(value, Enum) else value
