"""Claims of a sync token: one schema, used to mint in control and to verify in nodes. Pure.

A sync token opens one connection. It names, per topic, the right by which the topic was granted; the
node compares that with the topic's head row. Signature, issuer, audience and times are judged by whoever
verifies the token; this module says what the claims are and refuses any other shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, TypeVar

import attrs

from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_contracts.ids import is_device_id, is_id
from khala_contracts.topics import TopicInvalid, TopicName, parse_topic

__all__ = [
    "AUDIENCE",
    "GRANTS_MAX",
    "ISSUER",
    "GrantBasis",
    "PrincipalKind",
    "Surface",
    "SyncClaims",
    "TopicGrant",
    "from_claims_untrusted",
    "to_claims",
]

ISSUER: Final = "khala-control"
AUDIENCE: Final = "khala"
# Equal to the subscriptions of one connection (SPEC section 6).
GRANTS_MAX: Final = 256
_ORGS_MAX: Final = 256
_TEXT_MAX_CHARS: Final = 256
# Unix seconds with room for a thousand years, far below where an exact integer ends in JSON.
_TIME_MAX_S: Final = 1 << 40


class PrincipalKind(Enum):
    """Who acts."""

    PERSON = "person"
    SERVICE = "service"
    DERIVED = "derived"


class Surface(Enum):
    """What kind of client it is."""

    WEB = "web"
    DESKTOP = "desktop"
    MOBILE = "mobile"
    ONYX = "onyx"
    SERVICE = "service"


class GrantBasis(Enum):
    """The right by which a topic was granted."""

    OWNER = "owner"
    ORG_MEMBER = "org_member"
    ORG_ADMIN = "org_admin"
    DEVICE = "device"
    KEY = "key"


@attrs.frozen
class TopicGrant:
    """One topic and the right to it; ``org_id`` is set for ORG_MEMBER, ORG_ADMIN and KEY."""

    topic: TopicName
    basis: GrantBasis
    org_id: str | None = None


@attrs.frozen
class SyncClaims:
    """Content of a sync token. Times are Unix seconds; ``session_id`` is empty without a session."""

    session_id: str
    device_id: str
    user_id: str
    org_ids: tuple[str, ...]
    principal_kind: PrincipalKind
    principal_id: str
    surface: Surface
    jti: str
    issued_at_s: int
    expires_at_s: int
    grants: tuple[TopicGrant, ...]


_WITH_ORG: Final = frozenset({GrantBasis.ORG_MEMBER, GrantBasis.ORG_ADMIN, GrantBasis.KEY})
_PRINCIPAL_PREFIX: Final = {
    PrincipalKind.PERSON: "usr",
    PrincipalKind.SERVICE: "key",
    PrincipalKind.DERIVED: "key",
}

E = TypeVar("E", bound=Enum)


def to_claims(claims: SyncClaims, issuer: str = ISSUER) -> dict[str, object]:
    """Return the JSON object to be signed."""
    return {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": claims.principal_id,
        "kind": claims.principal_kind.value,
        "sid": claims.session_id,
        "device_id": claims.device_id,
        "user_id": claims.user_id,
        "orgs": list(claims.org_ids),
        "surface": claims.surface.value,
        "jti": claims.jti,
        "iat": claims.issued_at_s,
        "nbf": claims.issued_at_s,
        "exp": claims.expires_at_s,
        "grants": [_grant_to_claim(grant) for grant in claims.grants],
    }


def from_claims_untrusted(claims: Mapping[str, object]) -> SyncClaims:
    """Return the content of a verified token; claims that are not ours are ignored.

    Raises:
        WireError: token_invalid, with the claim at fault.
    """
    kind = _member(PrincipalKind, claims, "kind")
    session_id = _text(claims, "sid")
    if session_id and not is_id("ses", session_id):
        raise _refused("empty or a session id", "sid")
    device_id = _text(claims, "device_id")
    if not is_device_id(device_id):
        raise _refused("a device id", "device_id")
    issued_at_s, expires_at_s = _time(claims, "iat"), _time(claims, "exp")
    if expires_at_s <= issued_at_s:
        raise _refused("after iat", "exp")
    # When it begins is judged by whoever verifies; that it says so is part of the shape.
    _time(claims, "nbf")
    user_id = _identifier(claims, "user_id", "usr")
    principal_id = _identifier(claims, "sub", _PRINCIPAL_PREFIX[kind])
    return SyncClaims(
        session_id=session_id,
        device_id=device_id,
        user_id=user_id,
        org_ids=_org_ids(claims),
        principal_kind=kind,
        # A person's two ids are one text: nodes hold these claims for as long as a connection lives.
        principal_id=user_id if principal_id == user_id else principal_id,
        surface=_member(Surface, claims, "surface"),
        jti=_text(claims, "jti", least=1),
        issued_at_s=issued_at_s,
        expires_at_s=expires_at_s,
        grants=_grants(claims),
    )


def _refused(detail: str, claim: str) -> WireError:
    return WireError(reason_codes.TOKEN_INVALID, detail, claim)


def _grant_to_claim(grant: TopicGrant) -> dict[str, object]:
    claim: dict[str, object] = {"topic": grant.topic, "basis": grant.basis.value}
    return claim if grant.org_id is None else {**claim, "org_id": grant.org_id}


def _text(claims: Mapping[str, object], name: str, *, least: int = 0, path: str = "") -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not least <= len(value) <= _TEXT_MAX_CHARS:
        raise _refused(f"text of {least}..{_TEXT_MAX_CHARS} characters", path + name)
    return value


def _identifier(claims: Mapping[str, object], name: str, prefix: str) -> str:
    value = _text(claims, name)
    if not is_id(prefix, value):
        raise _refused(f"an id with prefix {prefix}", name)
    return value


def _time(claims: Mapping[str, object], name: str) -> int:
    value = claims.get(name)
    # bool is an int to Python; true is not a time.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _TIME_MAX_S:
        raise _refused("Unix seconds", name)
    return value


def _member(enum: type[E], claims: Mapping[str, object], name: str, *, path: str = "") -> E:
    value = _text(claims, name, path=path)
    try:
        return enum(value)
    except ValueError:
        raise _refused("a known word", path + name) from None


def _list(claims: Mapping[str, object], name: str, maximum: int) -> Sequence[object]:
    value = claims.get(name)
    if not isinstance(value, list) or len(value) > maximum:
        raise _refused(f"a list of at most {maximum}", name)
    return value


def _org_ids(claims: Mapping[str, object]) -> tuple[str, ...]:
    org_ids: list[str] = []
    for index, value in enumerate(_list(claims, "orgs", _ORGS_MAX)):
        if not isinstance(value, str) or not is_id("org", value):
            raise _refused("an id with prefix org", f"orgs[{index}]")
        org_ids.append(value)
    return tuple(org_ids)


def _grants(claims: Mapping[str, object]) -> tuple[TopicGrant, ...]:
    grants: dict[str, TopicGrant] = {}
    for index, value in enumerate(_list(claims, "grants", GRANTS_MAX)):
        path = f"grants[{index}]."
        if not isinstance(value, Mapping):
            raise _refused("an object", path[:-1])
        grant = _grant(value, path)
        if grant.topic in grants:
            raise _refused("no repeats", path + "topic")
        grants[grant.topic] = grant
    return tuple(grants.values())


def _grant(claims: Mapping[str, object], path: str) -> TopicGrant:
    try:
        topic = parse_topic(_text(claims, "topic", path=path)).name
    except TopicInvalid as error:
        raise _refused(error.detail, path + "topic") from None
    basis = _member(GrantBasis, claims, "basis", path=path)
    org_id = claims.get("org_id")
    if basis not in _WITH_ORG:
        if org_id is not None:
            raise _refused(f"absent for {basis.value}", path + "org_id")
        return TopicGrant(topic, basis)
    if not isinstance(org_id, str) or not is_id("org", org_id):
        raise _refused("an id with prefix org", path + "org_id")
    return TopicGrant(topic, basis, org_id)
