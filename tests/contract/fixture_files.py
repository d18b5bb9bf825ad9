"""Reads the golden fixtures, and knows which message classes exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from khala_contracts.gen.openagents.control.v1 import auth_pb2
from khala_contracts.gen.openagents.runtime.v1 import events_pb2, nodes_pb2, orchestration_pb2
from khala_contracts.gen.openagents.sync.v1 import errors_pb2, fanout_pb2, frames_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

PROTO_DIR: Final = Path(__file__).resolve().parents[2] / "proto"
FIXTURES_DIR: Final = PROTO_DIR / "fixtures"
_MODULES: Final = (
    auth_pb2, events_pb2, nodes_pb2, orchestration_pb2, errors_pb2, fanout_pb2, frames_pb2, session_pb2,
)  # fmt: skip

Row = dict[str, str]


def message_classes() -> dict[str, type[Message]]:
    """Return every public message class by full name."""
    found: dict[str, type[Message]] = {}
    for module in _MODULES:
        for name, descriptor in module.DESCRIPTOR.message_types_by_name.items():
            found[descriptor.full_name] = getattr(module, name)
    return found


def load(name: str, directory: Path = FIXTURES_DIR) -> dict[str, object]:
    """Return a fixture."""
    return cast("dict[str, object]", json.loads((directory / name).read_text(encoding="ascii")))


def rows(fixture: dict[str, object], name: str) -> list[Row]:
    """Return a list of the fixture whose members are text."""
    return cast("list[Row]", fixture[name])


def messages_inside(message: Message) -> Iterator[Message]:
    """Yield a message and every one that is set inside it; map entries are no messages."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for child in value if field.is_repeated else [value]:
            yield from messages_inside(child)
