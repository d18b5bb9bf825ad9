"""The defaults are those that SPEC section 6 promises, and none can be configured away."""

from __future__ import annotations

import attrs
import pytest

from runtime.core.limits import RuntimeLimits

MIB = 1024 * 1024


def test_defaults_of_the_contract() -> None:
    """Numbers that outsiders know."""
    limits = RuntimeLimits()
    assert (limits.append_events_max, limits.append_bytes_max) == (500, 4 * MIB)
    assert (limits.inbox_requests_max, limits.inbox_bytes_max) == (2_048, 16 * MIB)
    assert (limits.batch_events_max, limits.batch_bytes_max) == (512, MIB)
    assert (limits.page_events_max, limits.page_bytes_max) == (1_000, MIB)
    assert limits.key_lifetime_s == 7 * 24 * 3600
    assert (limits.attributes_max, limits.attributes_bytes_max) == (32, 1024)


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(RuntimeLimits)])
def test_every_limit_is_positive_and_explained(field: str) -> None:
    """Zero would mean "nothing is possible" or "no limit"; neither is meant."""
    with pytest.raises(ValueError, match=field):
        RuntimeLimits(**{field: 0})
    (described,) = [f for f in attrs.fields(RuntimeLimits) if f.name == field]
    assert described.metadata["khala_doc"]
