"""The strict JSON mapping in the other direction: message to text.

Field names as in proto, 64-bit integers as strings, bytes as standard base64, enums by name.
Fields without presence are printed also when they have their default value, so that a reader finds
every field; absent messages, optional fields and unset members of a oneof are left out. Inside
free-form values, numbers without a fraction are printed without one.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

__all__ = ["dump", "message_to_mapping", "print_json", "struct_to_mapping"]

_64_BIT: Final = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
# Doubles up to here have every integer; beyond, an integer would pretend to be exact.
_EXACT_MAX: Final = 2**53


def print_json(message: Message) -> str:
    """Return the message as one line of JSON."""
    return dump(message_to_mapping(message))


def dump(value: object) -> str:
    """Return a JSON value as one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def message_to_mapping(message: Message) -> dict[str, object]:
    """Return the message as the value of its JSON document."""
    mapping: dict[str, object] = {}
    for field in _fields(message.DESCRIPTOR):
        if field.has_presence:
            if message.HasField(field.name):
                mapping[field.name] = _single(field, getattr(message, field.name))
            continue
        value = getattr(message, field.name)
        if not field.is_repeated:
            mapping[field.name] = _single(field, value)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            _key_field, value_field = _fields(field.message_type)
            mapping[field.name] = {key: _single(value_field, value[key]) for key in sorted(value)}
        else:
            mapping[field.name] = [_single(field, item) for item in value]
    return mapping


@lru_cache(maxsize=256)
def _fields(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    return tuple(descriptor.fields)


def struct_to_mapping(struct: struct_pb2.Struct) -> dict[str, object]:
    """Return a free-form object as Python values; numbers without a fraction become ``int``."""
    return {key: _free_form(struct.fields[key]) for key in sorted(struct.fields)}


def _free_form(value: struct_pb2.Value) -> object:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "struct_value":
            return struct_to_mapping(value.struct_value)
        case "list_value":
            return [_free_form(item) for item in value.list_value.values]
        case _:
            return None


def _number(number: float) -> object:
    if not math.isfinite(number):
        # Never written by us (kinds.py refuses it), but a foreign payload must not break a reader.
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if number.is_integer() and abs(number) <= _EXACT_MAX:
        return int(number)
    return number


def _single(field: FieldDescriptor, value: object) -> object:
    if isinstance(value, struct_pb2.Value):
        return _free_form(value)
    if isinstance(value, struct_pb2.Struct):
        return struct_to_mapping(value)
    if field.message_type is not None:
        assert isinstance(value, Message)
        return message_to_mapping(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, float):
        return _number(value)
    if field.cpp_type in _64_BIT:
        return str(value)
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        # A number that this build does not know is shown as it came.
        return value if known is None else known.name
    return value
