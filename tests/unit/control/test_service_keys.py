"""What a key may be made of, and when it is alive."""

from collections.abc import Sequence

import pytest

from control.core.principals import KeyRight
from control.core.refusals import Refused
from control.core.service_keys import (
    NAME_MAX_CHARS,
    PATTERNS_MAX,
    TTL_MAX_S,
    KeyOrder,
    check_order,
    is_alive,
    is_use_worth_noting,
)
from tests.unit.control.samples import ACME, NOW_MS, OTHER


def _order(
    *, name: str = "ci", rights: Sequence[str] = ("read",), topics: Sequence[str] = (), ttl_s: int = 0
) -> KeyOrder:
    return check_order(org_id=ACME, name=name, rights=rights, topics=topics, ttl_s=ttl_s)


def test_a_complete_order() -> None:
    """Rights and patterns are kept in the order given; 0 seconds means for ever."""
    order = _order(rights=["publish", "work", "read", "mint"], topics=["run:*:events", f"app:{ACME}:x"])
    assert order.rights == (KeyRight.PUBLISH, KeyRight.WORK, KeyRight.READ, KeyRight.MINT)
    assert [pattern.text for pattern in order.patterns] == ["run:*:events", f"app:{ACME}:x"]
    assert order.ttl_s is None
    assert _order(ttl_s=1).ttl_s == 1
    assert _order(ttl_s=TTL_MAX_S).ttl_s == TTL_MAX_S


def test_limits_are_reached_and_not_exceeded() -> None:
    """N is fine: the longest name, the most patterns."""
    assert _order(name="é" * NAME_MAX_CHARS).name
    topics = [f"app:{ACME}:a{number}" for number in range(PATTERNS_MAX)]
    assert len(_order(topics=topics).patterns) == PATTERNS_MAX


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"name": ""}, "invalid_argument", "name"),
        ({"name": "x" * (NAME_MAX_CHARS + 1)}, "invalid_argument", "name"),
        ({"name": "x "}, "invalid_argument", "name"),
        ({"name": "\tx"}, "invalid_argument", "name"),
        ({"name": "a\u202eb"}, "invalid_argument", "name"),
        ({"ttl_s": TTL_MAX_S + 1}, "invalid_argument", "ttl_s"),
        ({"rights": []}, "invalid_argument", "rights"),
        ({"rights": ["read", "READ"]}, "invalid_argument", "rights[1]"),
        ({"rights": ["read", "mint", "read"]}, "invalid_argument", "rights[2]"),
        ({"topics": [f"app:{ACME}:x", "*"]}, "topic_invalid", "topics[1]"),
        ({"topics": [f"app:{ACME}:x", f"app:{ACME}:x"]}, "invalid_argument", "topics[1]"),
        ({"topics": ["run:*:events"] * (PATTERNS_MAX + 1)}, "invalid_argument", "topics"),
    ],
)
def test_one_field_wrong(fields: dict[str, object], code: str, field: str) -> None:
    """Refused by the field, never quoting what was received."""
    with pytest.raises(Refused) as refused:
        _order(**fields)  # type: ignore[arg-type]  # the table's values have the fields' types
    assert refused.value.code.name == code
    assert refused.value.details["field"] == field


@pytest.mark.parametrize("pattern", [f"org:{OTHER}:runs", "user:*:runs", "device:*:inbox"])
def test_patterns_of_somebody_else(pattern: str) -> None:
    """What could never be granted is refused at creation, by its name."""
    with pytest.raises(Refused) as refused:
        _order(topics=[pattern])
    assert refused.value.code.name == "forbidden"
    assert refused.value.details == {"topic": pattern}


@pytest.mark.parametrize(
    ("expires_at_ms", "revoked_at_ms", "expected"),
    [
        (None, None, True),
        (NOW_MS + 1, None, True),
        (NOW_MS, None, False),
        (None, NOW_MS, False),
        (NOW_MS + 1, NOW_MS + 1, False),
    ],
)
def test_alive(expires_at_ms: int | None, revoked_at_ms: int | None, expected: bool) -> None:
    """Alive iff not revoked and before its expiry."""
    assert is_alive(expires_at_ms=expires_at_ms, revoked_at_ms=revoked_at_ms, now_ms=NOW_MS) is expected


@pytest.mark.parametrize(
    ("last_used_at_ms", "expected"),
    [(None, True), (NOW_MS, False), (NOW_MS - 59_999, False), (NOW_MS - 60_000, True)],
)
def test_uses_worth_noting(last_used_at_ms: int | None, expected: bool) -> None:
    """Once a minute."""
    assert is_use_worth_noting(last_used_at_ms=last_used_at_ms, now_ms=NOW_MS) is expected
