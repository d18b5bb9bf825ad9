"""Claims of a sync token."""

import json
from typing import cast

import pytest

from khala_contracts.errors import WireError
from khala_contracts.sync_claims import (
    AUDIENCE,
    GRANTS_MAX,
    ISSUER,
    GrantBasis,
    PrincipalKind,
    Surface,
    SyncClaims,
    TopicGrant,
    from_claims_untrusted,
    to_claims,
)
from khala_contracts.topics import format_app, format_org_runs, format_run_events

BODY = "01fwhe4ydgfk1shh6w1g60eecf"
RUN = format_run_events(f"run_{BODY}")
ORG = f"org_{BODY}"
PERSON = SyncClaims(
    session_id=f"ses_{BODY}",
    device_id="dev_abcdefgh",
    user_id=f"usr_{BODY}",
    org_ids=(ORG,),
    principal_kind=PrincipalKind.PERSON,
    principal_id=f"usr_{BODY}",
    surface=Surface.WEB,
    jti="j",
    issued_at_s=1_000,
    expires_at_s=1_300,
    grants=(TopicGrant(RUN, GrantBasis.OWNER), TopicGrant(format_org_runs(ORG), GrantBasis.ORG_MEMBER, ORG)),
)
KEY = SyncClaims(
    session_id="",
    device_id="dev_abcdefgh",
    user_id=f"usr_{BODY}",
    org_ids=(),
    principal_kind=PrincipalKind.SERVICE,
    principal_id=f"key_{BODY}",
    surface=Surface.SERVICE,
    jti="x" * 256,
    issued_at_s=1,
    expires_at_s=2,
    grants=(),
)


@pytest.mark.parametrize("claims", [PERSON, KEY], ids=["person", "key"])
def test_what_is_minted_is_what_is_verified(claims: SyncClaims) -> None:
    """One schema, through JSON."""
    assert from_claims_untrusted(json.loads(json.dumps(to_claims(claims)))) == claims


def test_issuer_and_audience_are_stated() -> None:
    """For whoever verifies the signature."""
    assert (to_claims(PERSON)["iss"], to_claims(PERSON)["aud"]) == (ISSUER, AUDIENCE)
    assert to_claims(PERSON, "other")["iss"] == "other"


def test_claims_that_are_not_ours_are_ignored() -> None:
    """A newer control may say more."""
    assert from_claims_untrusted({**to_claims(PERSON), "unheard_of": "x"}) == PERSON


def grants(*claims: object) -> dict[str, object]:
    """Return the claim with these grants."""
    return {"grants": list(claims)}


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"kind": None}, "kind"),
        ({"kind": "robot"}, "kind"),
        ({"sid": 1}, "sid"),
        ({"sid": "usr_x"}, "sid"),
        ({"device_id": "dev_"}, "device_id"),
        ({"user_id": ""}, "user_id"),
        ({"sub": f"key_{BODY}"}, "sub"),
        ({"surface": "fridge"}, "surface"),
        ({"jti": ""}, "jti"),
        ({"jti": "x" * 257}, "jti"),
        ({"iat": 0}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": 1.0}, "iat"),
        ({"nbf": None}, "nbf"),
        ({"exp": 1_000}, "exp"),
        ({"exp": 1 << 40}, "exp"),
        ({"exp": "1300"}, "exp"),
        ({"orgs": ORG}, "orgs"),
        ({"orgs": [1]}, "orgs[0]"),
        ({"orgs": [ORG, "acme"]}, "orgs[1]"),
        ({"grants": {}}, "grants"),
        (grants(*[{}] * (GRANTS_MAX + 1)), "grants"),
        (grants("x"), "grants[0]"),
        (grants({}), "grants[0].topic"),
        (grants({"topic": "run:*:events", "basis": "owner"}), "grants[0].topic"),
        (grants({"topic": RUN}), "grants[0].basis"),
        (grants({"topic": RUN, "basis": "luck"}), "grants[0].basis"),
        (grants({"topic": RUN, "basis": "owner", "org_id": ORG}), "grants[0].org_id"),
        (grants({"topic": RUN, "basis": "org_member"}), "grants[0].org_id"),
        (grants({"topic": RUN, "basis": "key", "org_id": "acme"}), "grants[0].org_id"),
        (grants({"topic": RUN, "basis": "owner"}, {"topic": RUN, "basis": "device"}), "grants[1].topic"),
    ],
)
def test_any_other_shape_is_an_invalid_token(change: dict[str, object], claim: str) -> None:
    """Missing, of another type, out of range, repeated: refused with the claim."""
    with pytest.raises(WireError) as caught:
        from_claims_untrusted(to_claims(PERSON) | change)
    assert (caught.value.reason_code, caught.value.field) == ("token_invalid", claim)


@pytest.mark.parametrize("claim", sorted(set(to_claims(PERSON)) - {"iss", "aud"}))
def test_every_claim_is_required(claim: str) -> None:
    """Leaving one out is an invalid token."""
    claims = to_claims(PERSON)
    del claims[claim]
    with pytest.raises(WireError):
        from_claims_untrusted(claims)


def test_as_many_grants_as_a_connection_has_subscriptions() -> None:
    """The bound is inclusive."""
    many = [{"topic": format_app(ORG, f"t{n}"), "basis": "key", "org_id": ORG} for n in range(GRANTS_MAX)]
    claims = from_claims_untrusted(to_claims(KEY) | {"grants": many})
    assert len(claims.grants) == len(cast("list[object]", many))
