"""JSON Schemas of our messages, as the strict JSON mapping has them. Pure.

Two forms of one message: as a body that we read (nothing is required, nothing unknown is taken, a small
64-bit integer may be a number) and as one that we write (every field without presence is there). Which one a
message gets follows from where it is used; used in both places, it is described by what holds in both.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, cast

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

__all__ = ["Use", "describe_messages", "descriptor_of", "reference_to"]

Schema = dict[str, object]

_INTEGER: Final = r"^-?(0|[1-9][0-9]{0,19})$"
_32_BIT: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
}
_64_BIT: Final = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
# Free-form JSON. Value: anything at all; Struct: an object of anything.
_FREE_FORM: Final[dict[str, Schema]] = {
    "google.protobuf.Value": {},
    "google.protobuf.Struct": {"type": "object"},
}


class Use(Enum):
    """What is done with a message."""

    READ = "read"
    WRITTEN = "written"
    BOTH = "both"


def reference_to(descriptor: Descriptor) -> Schema:
    """Return the schema that names the message's own."""
    return dict(
        _FREE_FORM.get(descriptor.full_name) or {"$ref": f"#/components/schemas/{descriptor.full_name}"}
    )


def descriptor_of(message_cls: type[Message]) -> Descriptor:
    """Return the description that protobuf keeps of a message."""
    # Generated classes have it from one of two implementations of protobuf; they look alike.
    return cast("Descriptor", message_cls.DESCRIPTOR)


def describe_messages(
    *, read: Iterable[type[Message]], written: Iterable[type[Message]]
) -> dict[str, Schema]:
    """Return a schema for each message that these need, by full name.

    Args:
        read: Bodies of requests.
        written: Bodies of answers.
    """
    from_read, from_written = _closure(read), _closure(written)
    schemas: dict[str, Schema] = {}
    for name, descriptor in sorted({**from_read, **from_written}.items()):
        use = Use.READ if name not in from_written else Use.WRITTEN if name not in from_read else Use.BOTH
        schemas[name] = _message(descriptor, use)
    return schemas


def _closure(roots: Iterable[type[Message]]) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    waiting = [descriptor_of(root) for root in roots]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found and descriptor.full_name not in _FREE_FORM:
            found[descriptor.full_name] = descriptor
            waiting += _parts(descriptor)
    return found


def _parts(descriptor: Descriptor) -> Iterator[Descriptor]:
    for field in descriptor.fields:
        message = field.message_type
        if message is None:
            continue
        if not message.GetOptions().map_entry:
            yield message
        elif message.fields_by_name["value"].message_type is not None:
            yield message.fields_by_name["value"].message_type


def _message(descriptor: Descriptor, use: Use) -> Schema:
    fields = list(descriptor.fields)
    schema: Schema = {
        "type": "object",
        "properties": {field.name: _field(field, use) for field in fields},
    }
    if use is Use.READ:
        schema["additionalProperties"] = False
    if use is Use.WRITTEN:
        required = [field.name for field in fields if not field.has_presence]
        if required:
            schema["required"] = required
    alternatives = [
        [field.name for field in oneof.fields]
        for oneof in descriptor.oneofs
        # proto3 writes an optional field as a oneof of one.
        if len(oneof.fields) > 1
    ]
    if alternatives:
        schema["allOf"] = [
            {"not": {"required": [first, second]}}
            for names in alternatives
            for index, first in enumerate(names)
            for second in names[index + 1 :]
        ]
    return schema


def _field(field: FieldDescriptor, use: Use) -> Schema:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _single(message.fields_by_name["value"], use)}
    single = _single(field, use)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single(field: FieldDescriptor, use: Use) -> Schema:
    if field.message_type is not None:
        return reference_to(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.cpp_type in _64_BIT:
        types = "string" if use is Use.WRITTEN else ["string", "integer"]
        return {"type": types, "pattern": _INTEGER, "format": "int64"}
    if field.cpp_type in _32_BIT:
        least, most = _32_BIT[field.cpp_type]
        return {"type": "integer", "minimum": least, "maximum": most}
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return {"type": "number"}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"}
