"""What a binary payload must keep beyond being parseable, so that it has a JSON form."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from khala_contracts import reason_codes
from khala_contracts.errors import WireError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

__all__ = ["check_finite"]


def check_finite(message: Message, field: str) -> None:
    """Check that every number in the message is finite: JSON has no word for the others.

    Raises:
        WireError: invalid_argument at ``field``.
    """
    # Most payloads have no doubles at all; the answer is kept per message type.
    if may_hold_doubles(message.DESCRIPTOR) and not _is_finite(message):
        raise WireError(reason_codes.INVALID_ARGUMENT, "finite numbers", field)


@lru_cache(maxsize=256)
def may_hold_doubles(descriptor: Descriptor) -> bool:
    """Return whether a message of this type can contain a double at any depth."""
    return _reaches_double(descriptor, set())


def _reaches_double(descriptor: Descriptor, seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return any(
        field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE
        or (field.message_type is not None and _reaches_double(field.message_type, seen))
        for field in descriptor.fields
    )


def _is_finite(message: Message) -> bool:
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            items = list(value.values())
        else:
            items = list(value) if field.is_repeated else [value]
        for item in items:
            if isinstance(item, float):
                if not math.isfinite(item):
                    return False
            elif (
                field.message_type is not None
                and not isinstance(item, (str, bytes, int))
                and not _is_finite(item)
            ):
                return False
    return True
