"""Claims of an access token: one schema, made and judged here."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control.core.access_tokens import (
    LEEWAY_S,
    AccessClaims,
    ClaimsRefused,
    judge_claims_untrusted,
    to_claims,
)
from tests.unit.control.samples import ANN, DEVICE, make_id

NOW_S = 1_800_000_000
CLAIMS = AccessClaims(
    session_id=make_id("ses", 1),
    user_id=ANN,
    device_id=DEVICE,
    jti=make_id("jti", 1),
    issued_at_s=NOW_S,
    expires_at_s=NOW_S + 900,
)


def test_what_is_made_is_what_is_judged() -> None:
    """The round trip, also beside claims that we do not know."""
    claims = {**to_claims(CLAIMS), "scope": "everything"}
    assert judge_claims_untrusted(claims, now_s=NOW_S) == CLAIMS


@pytest.mark.parametrize("name", sorted(to_claims(CLAIMS)))
def test_every_claim_is_required(name: str) -> None:
    """Leaving one out, or any other type in its place, is a refusal that names it."""
    full = to_claims(CLAIMS)
    others: list[object] = [None, True, 1.5, [full[name]], {}, b"x", -1]
    if isinstance(full[name], int):
        others += [str(full[name]), 1 << 40, 0]
    for changed in [
        {k: v for k, v in full.items() if k != name},
        *({**full, name: other} for other in others),
    ]:
        with pytest.raises(ClaimsRefused) as refused:
            judge_claims_untrusted(changed, now_s=NOW_S)
        assert refused.value.cause == name
        assert not refused.value.has_expired


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"iss": "khala"}, "iss"),
        ({"aud": "khala"}, "aud"),
        ({"sub": make_id("key", 1)}, "sub"),
        ({"sid": ANN}, "sid"),
        ({"jti": "x"}, "jti"),
        ({"device_id": "dev_"}, "device_id"),
        ({"exp": NOW_S}, "lifetime"),
        ({"exp": NOW_S + 3601}, "lifetime"),
    ],
)
def test_claims_for_somebody_else(change: dict[str, object], cause: str) -> None:
    """The right types with the wrong content."""
    with pytest.raises(ClaimsRefused) as refused:
        judge_claims_untrusted({**to_claims(CLAIMS), **change}, now_s=NOW_S)
    assert refused.value.cause == cause


@given(st.integers(-100, 1100), st.integers(-100, 100))
@example(900 + LEEWAY_S - 1, 0)
@example(900 + LEEWAY_S, 0)
@example(-LEEWAY_S, 0)
@example(-LEEWAY_S - 1, 0)
@example(50 - LEEWAY_S, 50)
@example(49 - LEEWAY_S, 50)
def test_validity_in_time(offset_s: int, not_before_s: int) -> None:
    """Valid iff max(iat, nbf) - leeway <= now < exp + leeway."""
    claims = {**to_claims(CLAIMS), "nbf": NOW_S + not_before_s}
    begins_s, ends_s = max(0, not_before_s) - LEEWAY_S, 900 + LEEWAY_S
    if begins_s <= offset_s < ends_s:
        assert judge_claims_untrusted(claims, now_s=NOW_S + offset_s) == CLAIMS
        return
    with pytest.raises(ClaimsRefused) as refused:
        judge_claims_untrusted(claims, now_s=NOW_S + offset_s)
    expected = "not_yet_valid" if offset_s < begins_s else "expired"
    assert (refused.value.cause, refused.value.has_expired) == (expected, expected == "expired")
