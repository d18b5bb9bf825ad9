"""Form of the proto sources: our rules, close to buf's STANDARD. Pure: takes a set, returns problems.

Beyond buf: maps have text keys and scalar values, and no field is a ``float``, because the strict JSON
mapping (``khala_contracts.strict_json``) has no other; oneof members keep presence there too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from khala_contracts.wire_enums import enum_prefix
from tests.ci.proto_breaking import check_locked_frame, list_enums, list_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE: Final = re.compile(r"openagents(\.[a-z][a-z0-9]*)+\.v[1-9][0-9]*", re.ASCII)
_FILE: Final = re.compile(r"[a-z][a-z0-9_]*\.proto", re.ASCII)
_MESSAGE: Final = re.compile(r"[A-Z][A-Za-z0-9]*", re.ASCII)
_FIELD: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)
_VALUE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", re.ASCII)
_ROW: Final = re.compile(r"^\|(?P<cells>.+)\|$", re.MULTILINE)
_REFERENCE: Final = re.compile(r"`(openagents\.[a-z0-9.]+)`")
_PLANNED: Final = "planned"
_COLUMNS: Final = 5


def find_faults(image: FileDescriptorSet, package_map: str) -> list[str]:
    """Return one line for each breach of a rule, naming the file, message, field or value."""
    files = [file for file in image.file if file.name.startswith("openagents/")]
    problems = [problem for file in files for problem in _file_faults(file)]
    problems += [
        problem
        for name, message in list_messages(image).items()
        for problem in _message_faults(name, message)
    ]
    problems += [problem for name, enum in list_enums(image).items() for problem in _enum_faults(name, enum)]
    problems += _unused_imports(image)
    problems += check_locked_frame(image)
    problems += find_map_faults({file.package for file in files}, package_map)
    return problems


def find_map_faults(packages: set[str], package_map: str) -> list[str]:
    """Return what is wrong between the packages that exist and the rows of PACKAGE_MAP.md."""
    problems: list[str] = []
    listed: dict[str, str] = {}
    for match in _ROW.finditer(package_map):
        cells = [cell.strip() for cell in match["cells"].split("|")]
        reference = _REFERENCE.fullmatch(cells[0])
        if reference is None:
            continue
        name = reference[1]
        if name in listed:
            problems.append(f"PACKAGE_MAP.md: {name} is listed twice")
        if len(cells) != _COLUMNS or not all(cells):
            problems.append(f"PACKAGE_MAP.md: {name} needs owner, namespace, stability and consumers")
            listed[name] = ""
            continue
        listed[name] = cells[3]
    problems += [f"PACKAGE_MAP.md: {name} is missing" for name in sorted(packages - listed.keys())]
    for name, stability in sorted(listed.items()):
        if stability == _PLANNED and name in packages:
            problems.append(f"PACKAGE_MAP.md: {name} exists and is still marked planned")
        if stability != _PLANNED and name not in packages:
            problems.append(f"PACKAGE_MAP.md: {name} does not exist")
    return problems


def _file_faults(file: FileDescriptorProto) -> Iterator[str]:
    directory, _slash, name = file.name.rpartition("/")
    if file.syntax != "proto3":
        yield f"{file.name}: syntax is not proto3"
    if not _PACKAGE.fullmatch(file.package):
        yield f"{file.name}: package {file.package} is not openagents.<name>.v<number>"
    if directory.replace("/", ".") != file.package:
        yield f"{file.name}: package {file.package} does not match its folder"
    if not _FILE.fullmatch(name):
        yield f"{file.name}: file name is not lower_snake_case"


def _unused_imports(image: FileDescriptorSet) -> Iterator[str]:
    declared = {
        file.name: {f"{file.package}.{message.name}" for message in file.message_type}
        | {f"{file.package}.{enum.name}" for enum in file.enum_type}
        for file in image.file
    }
    for file in image.file:
        used = set(_type_references(file))
        for dependency in file.dependency:
            if file.name.startswith("openagents/") and used.isdisjoint(declared[dependency]):
                yield f"{file.name}: import {dependency} is not used"


def _type_references(file: FileDescriptorProto) -> Iterator[str]:
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages.extend(message.nested_type)
        yield from (field.type_name.lstrip(".") for field in message.field if field.type_name)


def _message_faults(name: str, message: DescriptorProto) -> Iterator[str]:
    if message.options.map_entry:
        return
    if not _MESSAGE.fullmatch(message.name):
        yield f"{name}: message name is not PascalCase"
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for oneof in message.oneof_decl:
        if not oneof.name.startswith("_") and not _FIELD.fullmatch(oneof.name):
            yield f"{name}.{oneof.name}: oneof name is not lower_snake_case"
    for field in message.field:
        if not _FIELD.fullmatch(field.name):
            yield f"{name}.{field.name}: field name is not lower_snake_case"
        if field.type == FieldDescriptorProto.TYPE_FLOAT:
            yield f"{name}.{field.name}: float; use double"
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            yield from _map_faults(f"{name}.{field.name}", entry)


def _map_faults(name: str, entry: DescriptorProto) -> Iterator[str]:
    key, value = entry.field
    if key.type != FieldDescriptorProto.TYPE_STRING:
        yield f"{name}: a map key is a string"
    if value.type == FieldDescriptorProto.TYPE_MESSAGE:
        yield f"{name}: a map value is a scalar"


def _enum_faults(name: str, enum: EnumDescriptorProto) -> Iterator[str]:
    if not _MESSAGE.fullmatch(enum.name):
        yield f"{name}: enum name is not PascalCase"
    if enum.options.allow_alias:
        yield f"{name}: two names for one number"
    prefix = enum_prefix(enum.name)
    for value in enum.value:
        if not _VALUE.fullmatch(value.name) or not value.name.startswith(prefix):
            yield f"{name}.{value.name}: value name does not begin with {prefix}"
    if enum.value[0].number != 0 or enum.value[0].name != f"{prefix}UNSPECIFIED":
        yield f"{name}: the value 0 is not {prefix}UNSPECIFIED"
