"""Turns raw configuration values into typed ones, strictly: no truncation, no guessing.

Reads nothing but the files that hold secrets. Types a configuration may use: bool, int, float, str, Path, Secret, Enum, Literal, `X | None`,
tuple[X, ...], Mapping[str, X]. cattrs does the walking; its lenient defaults (int("x"), bool("false")
being true) are replaced here.
"""

import json
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Final, Literal, Union, get_args, get_origin

import cattrs

from khala_service.secret import Secret, read_secret_file

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FILE_SUFFIX: Final = "_file"
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class ValueRefused(Exception):
    """A value does not fit its type.

    Attributes:
        expected: What was expected, without quoting secrets.
        path: Position below the field, for mappings and lists.
    """

    def __init__(self, expected: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(expected)
        self.expected = expected
        self.path = path


def parse_text(text: str, kind: object) -> object:
    """Return the raw value that a variable's text stands for.

    Lists are separated by commas, mappings are JSON objects, numbers and booleans are written as in
    the file.

    Raises:
        ValueRefused: the text does not fit.
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for option in options:
        if option is type(None):
            continue
        origin = get_origin(option)
        if option is bool:
            return _parse_bool(text)
        if option is int:
            return _parse_number(text, int, "an integer")
        if option is float:
            return _parse_number(text, float, "a number")
        if origin is tuple:
            inner = get_args(option)[0]
            return [parse_text(item.strip(), inner) for item in text.split(",") if item.strip()]
        if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
            return _parse_object(text)
    return text


def structure(raw: object, kind: object) -> object:
    """Return `raw` as an instance of `kind`.

    Raises:
        ValueRefused: it is none.
    """
    try:
        return _CONVERTER.structure(raw, kind)  # type: ignore[arg-type]  # kind may be a generic alias
    except ValueRefused:
        raise
    except cattrs.BaseValidationError as group:
        raise _first_refusal(group) from None


def secret_from_file(file: object) -> Secret:
    """Return the secret that a file holds.

    Raises:
        ValueRefused: not a path, or `read_secret_file` refused it.
    """
    if not isinstance(file, str | Path) or not str(file):
        raise ValueRefused("expected the path of a file")
    try:
        return read_secret_file(Path(file))
    except ValueError as error:
        raise ValueRefused(str(error)) from None


def _first_refusal(group: BaseException) -> ValueRefused:
    """Return the innermost cause of a failed list or mapping."""
    while isinstance(group, BaseExceptionGroup) and group.exceptions:
        group = group.exceptions[0]
    if isinstance(group, ValueRefused):
        return group
    return ValueRefused("has the wrong shape")


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueRefused("expected true or false")
    return word in _TRUE


def _parse_number(text: str, kind: Callable[[str], int | float], expected: str) -> int | float:
    try:
        return kind(text.strip())
    except ValueError:
        raise ValueRefused(f"expected {expected}") from None


def _parse_object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueRefused("expected a JSON object") from None


def _structure_int(raw: object, _kind: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueRefused("expected an integer")
    return raw


def _structure_float(raw: object, _kind: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not abs(raw) < float("inf"):
        raise ValueRefused("expected a finite number")
    return float(raw)


def _structure_bool(raw: object, _kind: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueRefused("expected true or false")
    return raw


def _structure_str(raw: object, _kind: object) -> str:
    if not isinstance(raw, str):
        raise ValueRefused("expected text")
    return raw


def _structure_path(raw: object, _kind: object) -> Path:
    if isinstance(raw, Path):
        return raw
    if not isinstance(raw, str) or not raw:
        raise ValueRefused("expected a path")
    return Path(raw)


def _structure_secret(raw: object, _kind: object) -> Secret:
    if isinstance(raw, Secret):
        return raw
    if not isinstance(raw, str) or not raw:
        raise ValueRefused("expected text that is not empty")
    return Secret(raw)


def _structure_enum(raw: object, kind: type[Enum]) -> Enum:
    try:
        return raw if isinstance(raw, kind) else kind(raw)
    except ValueError:
        words = ", ".join(str(member.value) for member in kind)
        raise ValueRefused(f"expected one of {words}") from None


def _structure_literal(raw: object, kind: object) -> object:
    words = get_args(kind)
    if raw not in words:
        raise ValueRefused(f"expected one of {', '.join(map(str, words))}")
    return raw


def _structure_optional(raw: object, kind: object) -> object:
    if raw is None and type(None) in get_args(kind):
        return None
    options = [option for option in get_args(kind) if option is not type(None)]
    if len(options) != 1:
        raise ValueRefused("has a type that a configuration may not use")
    return _CONVERTER.structure(raw, options[0])


def _structure_tuple(raw: object, kind: object) -> tuple[object, ...]:
    if not isinstance(raw, list | tuple):
        raise ValueRefused("expected a list")
    inner = get_args(kind)[0]
    items: list[object] = []
    for position, item in enumerate(raw):
        items.append(_structure_at(item, inner, str(position)))
    return tuple(items)


def _structure_mapping(raw: object, kind: object) -> dict[str, object]:
    if not isinstance(raw, Mapping):
        raise ValueRefused("expected a table")
    inner = get_args(kind)[1]
    values: dict[str, object] = {}
    for key, value in raw.items():
        name, found = str(key), value
        if inner is Secret and name.endswith(_FILE_SUFFIX):
            name = name.removesuffix(_FILE_SUFFIX)
            try:
                found = secret_from_file(value)
            except ValueRefused as error:
                raise ValueRefused(error.expected, (str(key),)) from None
        if name in values:
            raise ValueRefused(f"give either {name} or {name}{_FILE_SUFFIX}, not both")
        values[name] = _structure_at(found, inner, name)
    return values


def _structure_at(raw: object, kind: object, place: str) -> object:
    try:
        return structure(raw, kind)
    except ValueRefused as error:
        raise ValueRefused(error.expected, (place, *error.path)) from None


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _has_origin(*origins: object) -> Callable[[object], bool]:
    return lambda kind: get_origin(kind) in origins


def _is_mapping(kind: object) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook(bool, _structure_bool)
    converter.register_structure_hook(str, _structure_str)
    converter.register_structure_hook(Path, _structure_path)
    converter.register_structure_hook(Secret, _structure_secret)
    converter.register_structure_hook_func(_is_enum, _structure_enum)
    converter.register_structure_hook_func(_has_origin(Literal), _structure_literal)
    converter.register_structure_hook_func(_has_origin(Union, UnionType), _structure_optional)
    converter.register_structure_hook_func(_has_origin(tuple), _structure_tuple)
    converter.register_structure_hook_func(_is_mapping, _structure_mapping)
    return converter


_CONVERTER: Final = _make_converter()
