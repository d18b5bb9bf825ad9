"""Claims of an access token, made and judged by one schema. Pure; the signature is an adapter's.

An access token is proof of a session towards control's API and, through `principals/resolve`, towards
the runtime. It grants nothing by itself: session, memberships and rights are read for each request.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from khala_contracts.ids import is_device_id, is_id
from khala_contracts.sync_claims import ISSUER

AUDIENCE: Final = "khala-api"
# SPEC section 2, clocks. Larger: an expired token lives that much longer.
LEEWAY_S: Final = 30
# Longer than any lifetime that can be configured for access tokens; a token that claims more was not
# made by this code.
LIFETIME_MAX_S: Final = 3600


class ClaimsRefused(ValueError):
    """The claims are incomplete, of the wrong type, or not valid now.

    Attributes:
        cause: Lower-case words for the audit log.
        has_expired: True if age is the only thing wrong.
    """

    def __init__(self, cause: str, *, has_expired: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.has_expired = has_expired


@attrs.frozen
class AccessClaims:
    """Content of an access token. Times are Unix seconds."""

    session_id: str
    user_id: str
    device_id: str
    jti: str
    issued_at_s: int
    expires_at_s: int


def to_claims(claims: AccessClaims) -> dict[str, object]:
    """Return the JSON object to be signed."""
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": claims.user_id,
        "sid": claims.session_id,
        "device_id": claims.device_id,
        "jti": claims.jti,
        "iat": claims.issued_at_s,
        "nbf": claims.issued_at_s,
        "exp": claims.expires_at_s,
    }


def judge_claims_untrusted(claims: Mapping[str, object], *, now_s: float) -> AccessClaims:
    """Return the content of a token whose signature was verified.

    Every claim is required and has exactly one type; unknown claims are ignored.

    Raises:
        ClaimsRefused: Something is missing, of another type, for somebody else, or not valid now.
    """
    if _text(claims, "iss") != ISSUER:
        raise ClaimsRefused("iss")
    if _text(claims, "aud") != AUDIENCE:
        raise ClaimsRefused("aud")
    parsed = AccessClaims(
        session_id=_identifier(claims, "sid", "ses"),
        user_id=_identifier(claims, "sub", "usr"),
        device_id=_text(claims, "device_id"),
        jti=_identifier(claims, "jti", "jti"),
        issued_at_s=_time(claims, "iat"),
        expires_at_s=_time(claims, "exp"),
    )
    if not is_device_id(parsed.device_id):
        raise ClaimsRefused("device_id")
    if not 0 < parsed.expires_at_s - parsed.issued_at_s <= LIFETIME_MAX_S:
        raise ClaimsRefused("lifetime")
    if max(parsed.issued_at_s, _time(claims, "nbf")) > now_s + LEEWAY_S:
        raise ClaimsRefused("not_yet_valid")
    if now_s >= parsed.expires_at_s + LEEWAY_S:
        raise ClaimsRefused("expired", has_expired=True)
    return parsed


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise ClaimsRefused(name)
    return value


def _identifier(claims: Mapping[str, object], name: str, prefix: str) -> str:
    value = _text(claims, name)
    if not is_id(prefix, value):
        raise ClaimsRefused(name)
    return value


def _time(claims: Mapping[str, object], name: str) -> int:
    value = claims.get(name)
    # bool is an int to Python; true is not a time.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 40:
        raise ClaimsRefused(name)
    return value
