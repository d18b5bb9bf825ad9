"""The strict JSON mapping: text to message, refusing what a lenient reader would guess about.

Refused, with the path of the field (``events[3].data.step``): unknown fields, a field or key given
twice, both spellings of one field, null, two members of a oneof, wrong types, numbers out of range or
not exactly representable, NaN and Infinity, unpaired surrogates, trailing data, base64 that is not
standard with padding, enum values that are not a known name, more than ``DEPTH_MAX`` levels.

64-bit integers are decimal strings; small ones may also be numbers. Inside free-form values
(``google.protobuf.Value`` and ``Struct``) null and nested data are the caller's own and are kept;
duplicate keys are not. Field names are written as in proto; ``lowerCamelCase`` is understood.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_contracts.json_printing import dump, message_to_mapping, print_json, struct_to_mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor

__all__ = [
    "DEPTH_MAX",
    "dump",
    "fill",
    "load_untrusted",
    "message_to_mapping",
    "parse_strict",
    "print_json",
    "struct_to_mapping",
    "unknown_keys",
]

# protobuf decoders stop at 100 nested messages, and one JSON object inside a Value nests three of
# them. Higher: an event that we accept and that no client can decode.
DEPTH_MAX: Final = 24

M = TypeVar("M", bound=Message)

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,19})", re.ASCII)
_INT_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class _Object(list[tuple[str, object]]):
    """Members of a JSON object as they were written, repeated keys included."""


def _refuse(detail: str, path: str) -> NoReturn:
    raise WireError(reason_codes.MALFORMED_MESSAGE, detail, path)


def _refuse_constant(_name: str) -> NoReturn:
    _refuse("JSON without NaN and Infinity", "")


def load_untrusted(text: str | bytes) -> object:
    """Return the document as a value for ``fill``.

    Raises:
        WireError: malformed_message; it is not exactly one JSON document in UTF-8.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant)
    except RecursionError:
        _refuse(f"at most {DEPTH_MAX} levels", "")
    except ValueError:
        # Also UnicodeDecodeError, and integers of thousands of digits.
        _refuse("one JSON document in UTF-8", "")


def unknown_keys(document: object, known: Iterable[str]) -> list[str]:
    """Return the top-level keys that are not among ``known``; none if it is no object."""
    if not isinstance(document, _Object):
        return []
    allowed = frozenset(known)
    return [key for key, _value in document if key not in allowed]


def parse_strict(text: str | bytes, message_cls: type[M]) -> M:
    """Return the message that the text is the strict mapping of.

    Raises:
        WireError: malformed_message, with the path of the field at fault.
    """
    return fill(load_untrusted(text), message_cls)


def fill(document: object, message_cls: type[M], *, path: str = "") -> M:
    """Return a message with the members of ``document``.

    Args:
        document: From ``load_untrusted``, or a mapping of JSON values.
        message_cls: The generated class.
        path: Where the document stands in a larger one; every reported path begins with it.

    Raises:
        WireError: malformed_message, with the path of the field at fault.
    """
    message = message_cls()
    _fill_message(message, document, path, 1)
    return message


def _members(value: object, path: str, depth: int) -> Iterable[tuple[str, object]]:
    if depth > DEPTH_MAX:
        _refuse(f"at most {DEPTH_MAX} levels", path)
    if isinstance(value, _Object):
        return value
    if isinstance(value, Mapping):
        return value.items()
    _refuse("an object", path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@lru_cache(maxsize=256)
def _fields_by_spelling(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    by_camel = {field.json_name: field for field in descriptor.fields}
    return by_camel | {field.name: field for field in descriptor.fields}


def _fill_message(message: Message, value: object, path: str, depth: int) -> None:
    if isinstance(message, struct_pb2.Value):
        _fill_value(message, value, path, depth)
        return
    if isinstance(message, struct_pb2.Struct):
        _fill_struct(message, value, path, depth)
        return
    fields = _fields_by_spelling(message.DESCRIPTOR)
    seen: set[str] = set()
    for key, item in _members(value, path, depth):
        field = fields.get(key)
        if field is None:
            # The key is the sender's own text: it is shown only if it could be a field's name.
            _refuse("a known field", _join(path, key if _is_plain(key) else "?"))
        field_path = _join(path, field.name)
        if field.name in seen:
            _refuse("given once, in one spelling", field_path)
        if item is None:
            _refuse("not null; leave it out", field_path)
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) is not None:
            _refuse(f"one field of {oneof.name}", field_path)
        seen.add(field.name)
        _fill_field(message, field, item, field_path, depth)


def _is_plain(key: object) -> bool:
    return isinstance(key, str) and len(key) <= 64 and re.fullmatch(r"\w+", key, re.ASCII) is not None


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill_field(message: Message, field: FieldDescriptor, item: object, path: str, depth: int) -> None:
    if _is_map(field):
        _fill_map(getattr(message, field.name), field, item, path, depth + 1)
    elif field.is_repeated:
        if not isinstance(item, (list, tuple)) or isinstance(item, _Object):
            _refuse("an array", path)
        target = getattr(message, field.name)
        for index, element in enumerate(item):
            element_path = f"{path}[{index}]"
            if element is None:
                _refuse("not null", element_path)
            if field.message_type is None:
                target.append(_scalar(field, element, element_path))
            else:
                _fill_message(target.add(), element, element_path, depth + 2)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        _fill_message(target, item, path, depth + 1)
    else:
        setattr(message, field.name, _scalar(field, item, path))


def _fill_map(target: dict[str, object], field: FieldDescriptor, item: object, path: str, depth: int) -> None:
    # Every map of our contracts has string keys and scalar values; proto_gates.py refuses others.
    assert field.message_type is not None
    value_field = field.message_type.fields_by_name["value"]
    seen: set[str] = set()
    for key, element in _members(item, path, depth):
        name = _text(key, path)
        if name in seen:
            _refuse("a key given once", path)
        seen.add(name)
        target[name] = _scalar(value_field, element, path)


def _fill_struct(struct: struct_pb2.Struct, value: object, path: str, depth: int) -> None:
    seen: set[str] = set()
    for key, item in _members(value, path, depth):
        name = _text(key, path)
        item_path = _join(path, name if _is_plain(name) else "?")
        if name in seen:
            _refuse("a key given once", item_path)
        seen.add(name)
        _fill_value(struct.fields[name], item, item_path, depth + 1)


def _fill_value(target: struct_pb2.Value, value: object, path: str, depth: int) -> None:
    match value:
        case None:
            target.null_value = struct_pb2.NULL_VALUE
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = _double(value, path)
        case str():
            target.string_value = _text(value, path)
        case _Object() | Mapping():
            target.struct_value.SetInParent()
            _fill_struct(target.struct_value, value, path, depth)
        case list() | tuple():
            if depth > DEPTH_MAX:
                _refuse(f"at most {DEPTH_MAX} levels", path)
            target.list_value.SetInParent()
            for index, item in enumerate(value):
                _fill_value(target.list_value.values.add(), item, f"{path}[{index}]", depth + 1)
        case _:
            _refuse("a JSON value", path)


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        _refuse("a string", path)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse("no unpaired surrogates", path)
    return value


def _double(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse("a number", path)
    try:
        number = float(value)
    except OverflowError:
        _refuse("a finite number", path)
    if not math.isfinite(number):
        _refuse("a finite number", path)
    if isinstance(value, int) and int(number) != value:
        _refuse("exactly representable as a double; use a string", path)
    return number


def _integer(field: FieldDescriptor, value: object, path: str) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    low, high = _INT_RANGES[field.cpp_type]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _refuse(f"an integer, {low}..{high}", path)
    return value


def _boolean(_field: FieldDescriptor, value: object, path: str) -> bool:
    if not isinstance(value, bool):
        _refuse("true or false", path)
    return value


def _string(field: FieldDescriptor, value: object, path: str) -> str | bytes:
    text = _text(value, path)
    if field.type != FieldDescriptor.TYPE_BYTES:
        return text
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse("standard base64 with padding", path)
    # Trailing bits that are not zero would give two spellings of the same bytes.
    if base64.b64encode(decoded).decode() != text:
        _refuse("standard base64 with padding", path)
    return decoded


def _enum(field: FieldDescriptor, value: object, path: str) -> int:
    assert field.enum_type is not None
    # Checked as text first: protobuf's own map fails with SystemError on an unpaired surrogate.
    known = field.enum_type.values_by_name.get(_text(value, path))
    if known is None:
        _refuse(f"the name of a value of {field.enum_type.name}", path)
    return known.number


_SCALARS: Final[Mapping[int, Callable[[FieldDescriptor, object, str], object]]] = {
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
    FieldDescriptor.CPPTYPE_UINT32: _integer,
    FieldDescriptor.CPPTYPE_UINT64: _integer,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_STRING: _string,
    FieldDescriptor.CPPTYPE_ENUM: _enum,
    FieldDescriptor.CPPTYPE_DOUBLE: lambda _field, value, path: _double(value, path),
}


def _scalar(field: FieldDescriptor, value: object, path: str) -> object:
    return _SCALARS[field.cpp_type](field, value, path)
