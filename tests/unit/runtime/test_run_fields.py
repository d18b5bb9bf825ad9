"""Fields of a new run: each limit and one beyond, in bytes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from runtime.core.limits import RuntimeLimits
from runtime.core.run_fields import NewRunFields, find_problem

FIELDS = NewRunFields("name", "agent", "source", {"k": "v"}, "")
LIMITS = RuntimeLimits(name_bytes_max=20, attributes_max=3, attributes_bytes_max=30)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "n" * 21}, "name"),
        ({"agent": "é" * 11}, "agent"),
        ({"source": "s" * 21}, "source"),
        ({"name": "a\x00b"}, "name"),
        ({"agent": "\x00"}, "agent"),
        ({"attributes": {str(number): "" for number in range(4)}}, "attributes"),
        ({"attributes": {"k" * 15: "v" * 16}}, "attributes"),
        ({"attributes": {"é" * 15: "v"}}, "attributes"),
        ({"attributes": {"k": "\x00"}}, "attributes"),
        ({"attributes": {"\x00": "v"}}, "attributes"),
    ],
)
def test_beyond(changes: dict[str, Any], field: str) -> None:
    """The field at fault is named, what was sent is not."""
    problem = find_problem(attrs.evolve(FIELDS, **changes), LIMITS)
    assert problem is not None
    assert problem.field == field
    assert all(str(value) not in problem.expected for value in changes.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "n" * 20},
        {"agent": "é" * 10},
        {"source": ""},
        {"attributes": {}},
        {"attributes": {str(number): "" for number in range(3)}},
        {"attributes": {"k" * 15: "v" * 15}},
    ],
)
def test_within(changes: dict[str, Any]) -> None:
    """Exactly the limit is well."""
    assert find_problem(attrs.evolve(FIELDS, **changes), LIMITS) is None
