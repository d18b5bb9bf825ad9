"""What a caller says about a new run, and what may be wrong with it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.core.limits import RuntimeLimits

__all__ = ["FieldProblem", "NewRunFields", "find_problem"]


@attrs.frozen
class NewRunFields:
    """The fields of CreateRunRequest."""

    name: str
    agent: str
    source: str
    attributes: Mapping[str, str]
    org_id: str


@attrs.frozen
class FieldProblem:
    """A field at fault, and what is allowed there; never what was received."""

    field: str
    expected: str


def find_problem(fields: NewRunFields, limits: RuntimeLimits) -> FieldProblem | None:
    """Return the first field that is too large or cannot be stored, None if all are well."""
    for field, text in (("name", fields.name), ("agent", fields.agent), ("source", fields.source)):
        if len(text.encode()) > limits.name_bytes_max:
            return FieldProblem(field, f"at most {limits.name_bytes_max} bytes")
        if not _is_storable(text):
            return FieldProblem(field, "no NUL character")
    attributes = fields.attributes
    if len(attributes) > limits.attributes_max:
        return FieldProblem("attributes", f"at most {limits.attributes_max} attributes")
    if sum(len(key.encode()) + len(value.encode()) for key, value in attributes.items()) > (
        limits.attributes_bytes_max
    ):
        return FieldProblem("attributes", f"at most {limits.attributes_bytes_max} bytes")
    if not all(_is_storable(key + value) for key, value in attributes.items()):
        return FieldProblem("attributes", "no NUL character")
    return None


def _is_storable(text: str) -> bool:
    # PostgreSQL's text holds every character but this one.
    return "\x00" not in text
