"""What a new descriptor set breaks of an old one. Pure: takes two sets, returns problems in words.

Refused: a removed file's package, message, enum, enum value, field or oneof membership; a field whose
number, type, label, presence or name changes; a change of ``KhalaFrame`` of any kind. Additions are
fine, and so is a new package beside the old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOCKED_FRAME: Final = "openagents.sync.v1.KhalaFrame"
LOCKED_FIELDS: Final = (
    ("topic", 1, FieldDescriptorProto.TYPE_STRING),
    ("seq", 2, FieldDescriptorProto.TYPE_INT64),
    ("kind", 3, FieldDescriptorProto.TYPE_STRING),
    ("payload_bytes", 4, FieldDescriptorProto.TYPE_BYTES),
    ("schema_version", 5, FieldDescriptorProto.TYPE_UINT32),
)
_OURS: Final = "openagents."


def list_messages(image: FileDescriptorSet) -> dict[str, DescriptorProto]:
    """Return our messages by full name, nested ones included."""
    found: dict[str, DescriptorProto] = {}
    for file in image.file:
        if file.package.startswith(_OURS):
            found.update(_nested(file.package, file.message_type))
    return found


def list_enums(image: FileDescriptorSet) -> dict[str, EnumDescriptorProto]:
    """Return our enums by full name, nested ones included."""
    found: dict[str, EnumDescriptorProto] = {}
    for file in image.file:
        if file.package.startswith(_OURS):
            found.update({f"{file.package}.{enum.name}": enum for enum in file.enum_type})
    for name, message in list_messages(image).items():
        found.update({f"{name}.{enum.name}": enum for enum in message.enum_type})
    return found


def find_breaks(old: FileDescriptorSet, new: FileDescriptorSet) -> list[str]:
    """Return one line for each way in which ``new`` breaks ``old``, naming field, value or message."""
    return [*_message_breaks(old, new), *_enum_breaks(old, new), *check_locked_frame(new)]


def check_locked_frame(image: FileDescriptorSet) -> list[str]:
    """Return a problem unless the envelope has exactly its five fields."""
    frame = list_messages(image).get(LOCKED_FRAME)
    if frame is None:
        return [f"{LOCKED_FRAME} is gone; it is locked"]
    fields = tuple((field.name, field.number, field.type) for field in frame.field)
    is_plain = not frame.oneof_decl and all(
        field.label == FieldDescriptorProto.LABEL_OPTIONAL and not field.proto3_optional
        for field in frame.field
    )
    if fields == LOCKED_FIELDS and is_plain:
        return []
    return [f"{LOCKED_FRAME} is locked to {', '.join(name for name, _number, _type in LOCKED_FIELDS)}"]


def _nested(prefix: str, messages: Iterable[DescriptorProto]) -> dict[str, DescriptorProto]:
    found: dict[str, DescriptorProto] = {}
    for message in messages:
        name = f"{prefix}.{message.name}"
        found[name] = message
        found.update(_nested(name, message.nested_type))
    return found


def _message_breaks(old: FileDescriptorSet, new: FileDescriptorSet) -> Iterator[str]:
    new_messages = list_messages(new)
    for name, old_message in list_messages(old).items():
        if name in new_messages:
            yield from _field_breaks(name, old_message, new_messages[name])
        else:
            yield f"{name} was removed"


def _field_breaks(name: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    by_name = {field.name: field for field in new.field}
    by_number = {field.number: field for field in new.field}
    for field in old.field:
        full = f"{name}.{field.name}"
        kept = by_name.get(field.name)
        if kept is None:
            renamed = by_number.get(field.number)
            yield f"{full} was renamed to {renamed.name}" if renamed else f"{full} was deleted"
        elif kept.number != field.number:
            yield f"{full} was renumbered from {field.number} to {kept.number}"
        elif _type_of(kept) != _type_of(field):
            yield f"{full} was retyped from {_type_of(field)} to {_type_of(kept)}"
        elif _oneof_of(new, kept) != _oneof_of(old, field):
            yield f"{full} was moved from {_oneof_of(old, field)} to {_oneof_of(new, kept)}"


def _type_of(field: FieldDescriptorProto) -> str:
    base = (
        field.type_name.lstrip(".")
        or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    )
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"repeated {base}" if repeated else f"optional {base}" if field.proto3_optional else base


def _oneof_of(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    if not field.HasField("oneof_index") or field.proto3_optional:
        return "no oneof"
    return f"oneof {message.oneof_decl[field.oneof_index].name}"


def _enum_breaks(old: FileDescriptorSet, new: FileDescriptorSet) -> Iterator[str]:
    new_enums = list_enums(new)
    for name, old_enum in list_enums(old).items():
        if name not in new_enums:
            yield f"{name} was removed"
            continue
        numbers = {value.name: value.number for value in new_enums[name].value}
        for value in old_enum.value:
            if value.name not in numbers:
                yield f"{name}.{value.name} was removed"
            elif numbers[value.name] != value.number:
                yield f"{name}.{value.name} was renumbered from {value.number} to {numbers[value.name]}"
