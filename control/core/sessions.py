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

LOGIN_MAX_CHARS: Final = 64
# One spelling per person: no spaces, no case-folding or normalisation questions.
_LOGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)


@attrs.frozen
class SessionLimits:
    """Lifetimes, seconds."""

    access_token_ttl_s: int = ACCESS_TOKEN_TTL_S
    session_lifetime_s: int = SESSION_LIFETIME_S


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


class RefreshRefusal(Enum):
    """Why a refresh was refused; for the audit log only, the caller always sees the same."""

    UNKNOWN = "refresh_unknown"
    WRONG_DEVICE = "refresh_wrong_device"
    REVOKED = "session_revoked"
    EXPIRED = "session_expired"
    REUSED = "refresh_reused"


@attrs.frozen
class Rotate:
    """The token is spent and replaced by a successor that ends with the session."""

    expires_at_ms: int


def decide_refresh(record: RefreshRecord | None, *, device_id: str, now_ms: int) -> Rotate | RefreshRefusal:
    """Return whether a presented refresh token is replaced by a successor.

    The device is judged before reuse: a thief on another device learns nothing about whether the
    owner has rotated since.
    """
    if record is None:
        return RefreshRefusal.UNKNOWN
    if record.device_id != device_id:
        return RefreshRefusal.WRONG_DEVICE
    if record.session_revoked_at_ms is not None:
        return RefreshRefusal.REVOKED
    if now_ms >= min(record.expires_at_ms, record.session_expires_at_ms):
        return RefreshRefusal.EXPIRED
    if record.used_at_ms is not None:
        return RefreshRefusal.REUSED
    return Rotate(expires_at_ms=record.session_expires_at_ms)


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
