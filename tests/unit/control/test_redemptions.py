"""Bounds of a batch of redemptions."""

import attrs
import pytest

from control.core.redemptions import (
    BATCH_MAX,
    EXPIRY_AHEAD_MAX_MS,
    GRACE_MS,
    ID_MAX_BYTES,
    KEPT_AFTER_EXPIRY_MS,
    Redemption,
    check_batch,
)
from control.core.refusals import Refused
from tests.unit.control.samples import ANN, DEVICE, NOW_MS, make_id

GOOD = Redemption(
    jti=make_id("jti", 1),
    connection_id=make_id("con", 1),
    node_id=make_id("nod", 1),
    session_id=make_id("ses", 1),
    principal_id=ANN,
    user_id=ANN,
    device_id=DEVICE,
    token_expires_at_ms=NOW_MS + 300_000,
    token_issued_at_ms=NOW_MS,
)


def test_records_outlive_acceptance() -> None:
    """A token that is still judged by its record has one: the record is kept longer than the grace."""
    assert KEPT_AFTER_EXPIRY_MS > GRACE_MS > 30_000


def test_full_batches_pass() -> None:
    """256 redemptions, ids of 128 characters, an expiry an hour ahead."""
    check_batch([GOOD] * BATCH_MAX, now_ms=NOW_MS)
    longest = attrs.evolve(GOOD, jti="x" * ID_MAX_BYTES, token_expires_at_ms=NOW_MS + EXPIRY_AHEAD_MAX_MS)
    check_batch([longest], now_ms=NOW_MS)


@pytest.mark.parametrize("count", [0, BATCH_MAX + 1])
def test_numbers_beyond(count: int) -> None:
    """None and 257 are refused whole."""
    with pytest.raises(Refused) as refused:
        check_batch([GOOD] * count, now_ms=NOW_MS)
    assert refused.value.details["field"] == "redemptions"


@pytest.mark.parametrize("name", ["jti", "connection_id", "node_id", "session_id", "user_id", "device_id"])
@pytest.mark.parametrize("value", ["", "x" * (ID_MAX_BYTES + 1), "a\x00", "é", "a\n", "\ud800"])
def test_ids_that_no_node_sends(name: str, value: str) -> None:
    """The database sees only short printable ASCII; the place is named."""
    with pytest.raises(Refused) as refused:
        check_batch([GOOD, attrs.evolve(GOOD, **{name: value})], now_ms=NOW_MS)  # type: ignore[arg-type]  # a text field
    assert refused.value.details["field"] == f"redemptions[1].{name}"


@pytest.mark.parametrize("expires_at_ms", [NOW_MS + EXPIRY_AHEAD_MAX_MS + 1, 0, -1, 2**63 - 1])
def test_expiries_that_no_token_has(expires_at_ms: int) -> None:
    """A record must end some day, and a time must be one."""
    with pytest.raises(Refused) as refused:
        check_batch([attrs.evolve(GOOD, token_expires_at_ms=expires_at_ms)], now_ms=NOW_MS)
    assert refused.value.details["field"] == "redemptions[0].token_expires_at"
