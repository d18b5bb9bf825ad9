"""What has been revoked, as values: the rows of the log that nodes tail. Pure.

Every cause (sign-out, revocation of sessions, reuse of a refresh token, a key's end, a lost membership) adds
rows in its own transaction. A row says what ended, not whom it concerns: nodes compare it with the claims of
the tokens that they hold.
"""

from enum import Enum
from typing import Final

import attrs

from khala_contracts.sync_claims import PrincipalKind

__all__ = [
    "PAGE_MAX",
    "RETAINED_S",
    "Revocation",
    "RevocationKind",
    "RevocationPage",
    "RevocationRow",
    "SessionSelection",
    "key_ended",
    "membership_ended",
    "session_ended",
]

# Rows of one answer. 1,000 rows are some 150 KB; a node that starts reads page after page.
PAGE_MAX: Final = 1_000
# A row is kept for as long as a token from before it could be presented: 900 s of life, 30 s of leeway, and
# the 360 s for which a node that cannot reach control keeps its sockets. Longer costs rows, shorter lets a
# token back in.
RETAINED_S: Final = 3_600


class RevocationKind(Enum):
    """What ended."""

    SESSION = "session"
    KEY = "key"
    MEMBERSHIP = "membership"


@attrs.frozen
class Revocation:
    """One thing that ended. Which ids are set follows from the kind."""

    kind: RevocationKind
    session_id: str | None = None
    key_id: str | None = None
    org_id: str | None = None
    user_id: str | None = None


@attrs.frozen
class RevocationRow:
    """One row of the log."""

    seq: int
    revocation: Revocation
    revoked_at_ms: int


@attrs.frozen
class RevocationPage:
    """Rows after a position, ascending without a hole, and where the log stands.

    Attributes:
        floor_seq: Oldest retained row. Whoever asks for rows below it misses only such as concern no token
            that could still be valid.
    """

    rows: tuple[RevocationRow, ...]
    head_seq: int
    floor_seq: int


@attrs.frozen
class SessionSelection:
    """Which live sessions of one user are to end; all that is set must hold.

    Attributes:
        spare_session_id: The one that stays, whatever else holds.
    """

    user_id: str
    principal_kind: PrincipalKind = PrincipalKind.PERSON
    session_id: str | None = None
    device_id: str | None = None
    spare_session_id: str | None = None


def session_ended(session_id: str) -> Revocation:
    """Return the row of a session."""
    return Revocation(RevocationKind.SESSION, session_id=session_id)


def key_ended(key_id: str) -> Revocation:
    """Return the row of a service key, with which every session that stands on it ends."""
    return Revocation(RevocationKind.KEY, key_id=key_id)


def membership_ended(org_id: str, user_id: str) -> Revocation:
    """Return the row of a lost membership."""
    return Revocation(RevocationKind.MEMBERSHIP, org_id=org_id, user_id=user_id)
