"""Lifetimes of sessions and the decision on a refresh. Pure; times are Unix milliseconds.

A person's session lives for a fixed time from sign-in. Access tokens are short and stateless; refresh
tokens rotate, are used once, and belong to one device. Neither token's expiry says anything about the
other: an expired access token beside a good refresh token is the normal case.
"""

import re
from enum import Enum
from typing import Final

import attrs

from control.core.refusals import invalid_argument
from khala_contracts.sync_claims import Surface

MS_PER_S: Final = 1000
# SPEC section 5. Longer: a revoked person keeps reading HTTP for that long on services that verify
# offline. Shorter: more refreshes.
ACCESS_TOKEN_TTL_S: Final = 900
# SPEC section 5: absolute, from sign-in, whatever was refreshed in between.
SESSION_LIFETIME_S: Final = 30 * 24 * 3600

# SPEC section 5. Longer: a stolen token stays useful beside its owner's. Shorter: two tabs that refresh
# at once, or an answer that was lost, end the session.
REFRESH_GRACE_S: Final = 10

LOGIN_MAX_CHARS: Final = 64
# One spelling per person: no spaces, no case-folding or normalisation questions.
_LOGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)


@attrs.frozen
class SessionLimits:
    """Lifetimes, seconds."""

    access_token_ttl_s: int = ACCESS_TOKEN_TTL_S
    session_lifetime_s: int = SESSION_LIFETIME_S
    refresh_grace_s: int = REFRESH_GRACE_S


@attrs.frozen
class NewSession:
    """A person's session about to be stored, with the hash of its first refresh token."""

    session_id: str
    device_id: str
    surface: Surface
    created_at_ms: int
    expires_at_ms: int
    refresh_hash: bytes


@attrs.frozen
class RefreshRecord:
    """A refresh token as it is stored, locked for the decision."""

    session_id: str
    device_id: str
    session_expires_at_ms: int
    session_revoked_at_ms: int | None
    expires_at_ms: int
    used_at_ms: int | None
    # The successor, readable only with the token itself; None once nobody may have it again.
    sealed_successor: bytes | None = attrs.field(default=None, repr=False)


class RefreshRefusal(Enum):
    """Why a refresh was refused; for the audit log only, the caller always sees the same."""

    UNKNOWN = "refresh_unknown"
    WRONG_DEVICE = "device_mismatch"
    REVOKED = "session_revoked"
    EXPIRED = "session_expired"
    # A spent token was presented by somebody who is not its owner, or too late: the session ends.
    REUSED = "refresh_token_reused"


@attrs.frozen
class Rotate:
    """The token is spent and replaced by a successor that ends with the session."""

    expires_at_ms: int


@attrs.frozen
class Reissue:
    """The same rotation again, for the same device within the grace: it gets the same successor."""

    sealed_successor: bytes = attrs.field(repr=False)
    expires_at_ms: int


def decide_refresh(
    record: RefreshRecord | None, *, device_id: str, now_ms: int, grace_ms: int
) -> Rotate | Reissue | RefreshRefusal:
    """Return what becomes of a presented refresh token.

    A token that was never used and comes from another device is refused and stays good for its owner. A
    spent one is proof that two hold it: it ends the session, unless its own device presents it again
    within the grace (two tabs, or an answer that was lost on the way).
    """
    if record is None:
        return RefreshRefusal.UNKNOWN
    if record.session_revoked_at_ms is not None:
        return RefreshRefusal.REVOKED
    if now_ms >= min(record.expires_at_ms, record.session_expires_at_ms):
        return RefreshRefusal.EXPIRED
    is_own_device = record.device_id == device_id
    if record.used_at_ms is None:
        if not is_own_device:
            return RefreshRefusal.WRONG_DEVICE
        return Rotate(expires_at_ms=record.session_expires_at_ms)
    is_in_grace = now_ms < record.used_at_ms + grace_ms
    if is_own_device and is_in_grace and record.sealed_successor is not None:
        return Reissue(record.sealed_successor, record.session_expires_at_ms)
    return RefreshRefusal.REUSED


def access_expiry_ms(*, now_ms: int, session_expires_at_ms: int, limits: SessionLimits) -> int:
    """Return when an access token made now ends: never later than its session."""
    return min(now_ms + limits.access_token_ttl_s * MS_PER_S, session_expires_at_ms)


def check_login(login: str) -> None:
    """Check a development login.

    Raises:
        Refused: invalid_argument; not 1..64 characters of ``A-Za-z0-9._@+-`` beginning with a
            letter or digit.
    """
    if _LOGIN.fullmatch(login) is None:
        raise invalid_argument("login", f"1..{LOGIN_MAX_CHARS} of A-Z a-z 0-9 . _ @ + -")


def check_person_surface(surface: Surface | None) -> Surface:
    """Return the surface of a person's session; desktop if none was named.

    Raises:
        Refused: invalid_argument; ``service`` is for service keys.
    """
    if surface is Surface.SERVICE:
        raise invalid_argument("surface", "web, desktop, mobile or onyx")
    return surface or Surface.DESKTOP
