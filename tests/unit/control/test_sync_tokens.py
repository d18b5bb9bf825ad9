"""What a sync token may be asked for, and what it says."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.principals import KeyRight, Principal
from control.core.refusals import Refused
from control.core.sync_tokens import (
    SUBJECT_MAX_BYTES,
    Subject,
    SyncHolder,
    SyncLimits,
    SyncOrder,
    check_order,
    decide_ttl_s,
    make_claims,
)
from khala_contracts.errors import WireError
from khala_contracts.sync_claims import (
    GrantBasis,
    PrincipalKind,
    Surface,
    TopicGrant,
    from_claims_untrusted,
    to_claims,
)
from tests.unit.control.samples import (
    ACME,
    ANN,
    DEVICE,
    NOW_MS,
    OTHER_DEVICE,
    make_id,
    make_key,
    make_person,
    topic,
)

LIMITS = SyncLimits()
TOPIC = f"app:{ACME}:x"
SUBJECT = Subject("customer-1", OTHER_DEVICE)
READER, MINTER = make_key(KeyRight.READ), make_key(KeyRight.MINT)


def _check(
    principal: Principal,
    topics: Sequence[str] = (TOPIC,),
    *,
    ttl_s: int = 0,
    device_id: str = "",
    surface: Surface | None = None,
    subject: Subject | None = None,
) -> SyncOrder:
    return check_order(
        principal,
        topics=topics,
        ttl_s=ttl_s,
        device_id=device_id,
        surface=surface,
        subject=subject,
        limits=LIMITS,
    )


def _refusal(principal: Principal, topics: Sequence[str] = (TOPIC,), **fields: object) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        _check(principal, topics, **fields)  # type: ignore[arg-type]  # the tables' values fit
    return refused.value.code.name, refused.value.details.get("field", refused.value.cause)


def test_a_persons_context_is_its_session() -> None:
    """Device and surface are the session's, said or not; anything else is refused."""
    person = make_person()
    for order in (_check(person), _check(person, device_id=DEVICE, surface=Surface.WEB)):
        assert (order.device_id, order.surface, order.subject) == (DEVICE, Surface.WEB, None)
    assert _refusal(person, device_id=OTHER_DEVICE) == ("forbidden", "foreign_device")
    assert _refusal(person, surface=Surface.MOBILE) == ("forbidden", "foreign_surface")
    assert _refusal(person, subject=SUBJECT) == ("forbidden", "subject_without_mint_right")


def test_a_keys_context_is_named_by_it() -> None:
    """With `read` it names a device of its own."""
    order = _check(READER, device_id=DEVICE)
    assert (order.device_id, order.surface) == (DEVICE, Surface.SERVICE)
    assert _check(READER, device_id=DEVICE, surface=Surface.DESKTOP).surface is Surface.DESKTOP
    assert _refusal(READER) == ("invalid_argument", "device_id")
    assert _refusal(MINTER, device_id=DEVICE) == ("forbidden", "key_without_read_right")


def test_a_subjects_context_is_the_subject() -> None:
    """With `mint` the device is the subject's; the surface is web unless said."""
    order = _check(MINTER, subject=SUBJECT)
    assert (order.device_id, order.surface, order.subject) == (OTHER_DEVICE, Surface.WEB, SUBJECT)
    assert _check(MINTER, subject=SUBJECT, device_id=OTHER_DEVICE).device_id == OTHER_DEVICE
    assert _check(MINTER, subject=SUBJECT, surface=Surface.MOBILE).surface is Surface.MOBILE
    assert _refusal(READER, subject=SUBJECT) == ("forbidden", "key_without_mint_right")
    assert _refusal(MINTER, subject=SUBJECT, device_id=DEVICE) == ("invalid_argument", "device_id")
    assert _check(MINTER, subject=Subject("x" * SUBJECT_MAX_BYTES, DEVICE)).subject is not None
    for external in (
        "",
        "x" * (SUBJECT_MAX_BYTES + 1),
        "é" * (SUBJECT_MAX_BYTES // 2 + 1),
        "a\x00",
        "\ud800",
    ):
        assert _refusal(MINTER, subject=Subject(external, DEVICE)) == ("invalid_argument", "subject.user_id")
    assert _refusal(MINTER, subject=Subject("x", "phone")) == ("invalid_argument", "subject.device_id")


@pytest.mark.parametrize(("asked", "expected"), [(0, 300), (60, 60), (61, 61), (900, 900)])
def test_lifetimes(asked: int, expected: int) -> None:
    """0 is the default; bounds are inclusive."""
    assert _check(make_person(), ttl_s=asked).ttl_s == expected


@pytest.mark.parametrize("asked", [1, 59, 901, 2**32 - 1])
def test_lifetimes_beyond_the_bounds(asked: int) -> None:
    """One beyond is refused, not clamped."""
    assert _refusal(make_person(), ttl_s=asked) == ("invalid_argument", "ttl_s")


def test_numbers_of_topics() -> None:
    """1..256, each once, in the order asked; the place of a fault is named, its text is not."""
    many = [f"app:{ACME}:a{number}" for number in range(257)]
    order = _check(make_person(), many[:256])
    assert [parsed.name for parsed in order.topics] == many[:256]
    assert _refusal(make_person(), []) == ("invalid_argument", "topics")
    assert _refusal(make_person(), many) == ("invalid_argument", "topics")
    assert _refusal(make_person(), [*many[:5], many[2]]) == ("invalid_argument", "topics[5]")
    assert _refusal(make_person(), [*many[:5], "run:*:events"]) == ("topic_invalid", "topics[5]")


@pytest.mark.parametrize(
    ("ends_ms", "expected"), [(None, 300), (10**9, 300), (300_000, 300), (299_999, 299), (60_000, 60)]
)
def test_never_longer_than_what_it_stands_on(ends_ms: int | None, expected: int) -> None:
    """The session's or key's end cuts the token's."""
    ends_at_ms = None if ends_ms is None else NOW_MS + ends_ms
    order = _check(make_person())
    assert decide_ttl_s(order, ends_at_ms=ends_at_ms, now_ms=NOW_MS, limits=LIMITS) == expected


@pytest.mark.parametrize("ends_ms", [59_999, 0, -1])
def test_too_little_left(ends_ms: int) -> None:
    """Less than the shortest token: sign in again."""
    with pytest.raises(Refused) as refused:
        decide_ttl_s(_check(make_person()), ends_at_ms=NOW_MS + ends_ms, now_ms=NOW_MS, limits=LIMITS)
    assert refused.value.code.name == "reauth_required"


HOLDER = SyncHolder(
    session_id=make_id("ses", 1),
    principal_kind=PrincipalKind.PERSON,
    principal_id=ANN,
    user_id=ANN,
    device_id=DEVICE,
    surface=Surface.WEB,
    org_ids=(ACME,),
)
GRANTS = (
    TopicGrant(topic(f"user:{ANN}:runs").name, GrantBasis.OWNER),
    TopicGrant(topic(TOPIC).name, GrantBasis.ORG_MEMBER, ACME),
)


@given(st.integers(60, 900), st.integers(1, 2**33))
def test_claims_pass_the_verifier(ttl_s: int, now_s: int) -> None:
    """What is minted is what every node reads, for every lifetime."""
    claims = make_claims(HOLDER, GRANTS, jti=make_id("jti", 1), now_s=now_s, ttl_s=ttl_s)
    assert claims.expires_at_s - claims.issued_at_s == ttl_s
    assert from_claims_untrusted(to_claims(claims)) == claims


def test_deleting_any_claim_fails_the_verifier() -> None:
    """Each claim that the schema writes is one that it requires; issuer and audience are the signature's judge's."""
    full = to_claims(make_claims(HOLDER, GRANTS, jti=make_id("jti", 1), now_s=NOW_MS // 1000, ttl_s=300))
    assert {"iss", "aud", "sub", "sid", "device_id", "user_id", "orgs", "kind", "surface"} < set(full)
    assert {"jti", "iat", "exp", "grants"} < set(full)
    for name in set(full) - {"iss", "aud"}:
        with pytest.raises(WireError) as refused:
            from_claims_untrusted({key: value for key, value in full.items() if key != name})
        assert refused.value.reason_code == "token_invalid"
