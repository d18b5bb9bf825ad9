"""Refresh decisions and lifetimes."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.refusals import Refused
from control.core.sessions import (
    RefreshRecord,
    RefreshRefusal,
    Reissue,
    Rotate,
    SessionLimits,
    access_expiry_ms,
    check_login,
    check_person_surface,
    decide_refresh,
)
from khala_contracts.sync_claims import Surface
from tests.unit.control.samples import DEVICE, NOW_MS, OTHER_DEVICE, make_id

FRESH = RefreshRecord(
    session_id=make_id("ses", 1),
    device_id=DEVICE,
    session_expires_at_ms=NOW_MS + 1000,
    session_revoked_at_ms=None,
    expires_at_ms=NOW_MS + 1000,
    used_at_ms=None,
)
GRACE_MS = 10
SPENT = attrs.evolve(FRESH, used_at_ms=NOW_MS, sealed_successor=b"sealed")
AGAIN = Reissue(b"sealed", NOW_MS + 1000)


@pytest.mark.parametrize(
    ("record", "device_id", "now_ms", "expected"),
    [
        (FRESH, DEVICE, NOW_MS, Rotate(NOW_MS + 1000)),
        (FRESH, DEVICE, NOW_MS + 999, Rotate(NOW_MS + 1000)),
        (FRESH, DEVICE, NOW_MS + 1000, RefreshRefusal.EXPIRED),
        (attrs.evolve(FRESH, session_expires_at_ms=NOW_MS), DEVICE, NOW_MS, RefreshRefusal.EXPIRED),
        (attrs.evolve(FRESH, expires_at_ms=NOW_MS), DEVICE, NOW_MS, RefreshRefusal.EXPIRED),
        (None, DEVICE, NOW_MS, RefreshRefusal.UNKNOWN),
        (FRESH, OTHER_DEVICE, NOW_MS, RefreshRefusal.WRONG_DEVICE),
        (FRESH, "", NOW_MS, RefreshRefusal.WRONG_DEVICE),
        (SPENT, DEVICE, NOW_MS, AGAIN),
        (SPENT, DEVICE, NOW_MS + GRACE_MS - 1, AGAIN),
        (SPENT, DEVICE, NOW_MS + GRACE_MS, RefreshRefusal.REUSED),
        (SPENT, OTHER_DEVICE, NOW_MS, RefreshRefusal.REUSED),
        (attrs.evolve(SPENT, sealed_successor=None), DEVICE, NOW_MS, RefreshRefusal.REUSED),
        (attrs.evolve(SPENT, session_revoked_at_ms=NOW_MS), DEVICE, NOW_MS, RefreshRefusal.REVOKED),
        (SPENT, DEVICE, NOW_MS + 1000, RefreshRefusal.EXPIRED),
        (attrs.evolve(FRESH, session_revoked_at_ms=NOW_MS), DEVICE, NOW_MS, RefreshRefusal.REVOKED),
        (
            attrs.evolve(FRESH, session_revoked_at_ms=1, used_at_ms=1),
            DEVICE,
            NOW_MS + 5000,
            RefreshRefusal.REVOKED,
        ),
    ],
)
def test_refresh(
    record: RefreshRecord | None, device_id: str, now_ms: int, expected: Rotate | Reissue | RefreshRefusal
) -> None:
    """Used once, by its device, while token and session live; at the expiry itself it has ended.

    The same device gets the same successor within the grace and not at its end.
    """
    decided = decide_refresh(record, device_id=device_id, now_ms=now_ms, grace_ms=GRACE_MS)
    assert decided == expected


def test_without_grace_a_token_is_good_once() -> None:
    """With a grace of 0 even the same moment is too late."""
    decided = decide_refresh(SPENT, device_id=DEVICE, now_ms=NOW_MS, grace_ms=0)
    assert decided is RefreshRefusal.REUSED


@given(
    used=st.booleans(),
    revoked=st.booleans(),
    ends_ms=st.integers(-5, 5),
    session_ends_ms=st.integers(-5, 5),
    own_device=st.booleans(),
)
def test_a_successor_needs_everything(
    used: bool, revoked: bool, ends_ms: int, session_ends_ms: int, own_device: bool
) -> None:
    """Rotation happens iff nothing is wrong, and never outlives the session."""
    record = attrs.evolve(
        FRESH,
        used_at_ms=NOW_MS if used else None,
        session_revoked_at_ms=NOW_MS if revoked else None,
        expires_at_ms=NOW_MS + ends_ms,
        session_expires_at_ms=NOW_MS + session_ends_ms,
    )
    decision = decide_refresh(
        record, device_id=DEVICE if own_device else OTHER_DEVICE, now_ms=NOW_MS, grace_ms=GRACE_MS
    )
    fine = own_device and not used and not revoked and ends_ms > 0 and session_ends_ms > 0
    assert isinstance(decision, Rotate) == fine
    if isinstance(decision, Rotate):
        assert decision.expires_at_ms == record.session_expires_at_ms


@pytest.mark.parametrize(("session_ends_ms", "expected_ms"), [(10**9, 900_000), (900_000, 900_000), (5, 5)])
def test_access_ends_with_its_session(session_ends_ms: int, expected_ms: int) -> None:
    """15 minutes, or what is left of the session."""
    expiry_ms = access_expiry_ms(
        now_ms=NOW_MS, session_expires_at_ms=NOW_MS + session_ends_ms, limits=SessionLimits()
    )
    assert expiry_ms == NOW_MS + expected_ms


@pytest.mark.parametrize("login", ["a", "A.b_c@d+e-1", "0" * 64])
def test_logins(login: str) -> None:
    """1..64 characters, one spelling per person."""
    check_login(login)


@pytest.mark.parametrize("login", ["", "-a", "@a", "a b", "a\n", "é", "\uff41", "0" * 65])
def test_what_is_no_login(login: str) -> None:
    """Refused by the name of the field, without quoting it."""
    with pytest.raises(Refused) as refused:
        check_login(login)
    assert refused.value.code.name == "invalid_argument"
    assert refused.value.details["field"] == "login"
    assert not login or login not in str(refused.value.details["problem"])


def test_surfaces_of_people() -> None:
    """Desktop unless said; never `service`."""
    assert check_person_surface(None) is Surface.DESKTOP
    assert check_person_surface(Surface.ONYX) is Surface.ONYX
    with pytest.raises(Refused):
        check_person_surface(Surface.SERVICE)
