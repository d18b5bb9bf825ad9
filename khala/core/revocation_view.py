"""What control has revoked, as far as this node has read it: the truth for hellos and running sockets. Pure.

Control keeps one log in commit order; a node reads it page after page and never skips a row. The view holds
each row for as long as a token from before it could still be presented, so that the order of two answers does
not matter: a token that was redeemed just before its session ended, and is welcomed just after the row was
applied, meets the row here.

Invariants (tests/properties/test_revocation_view.py):
    every row <= applied_seq that control retains is held
    once a token is ended it stays so; nothing but time (RETAINED_MS) forgets a row
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.sync_claims import PrincipalKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.sync_claims import SyncClaims

__all__ = ["RETAINED_MS", "Revocation", "RevocationKind", "RevocationPage", "RevocationView"]

# Above 900 s of a token's life, twice 30 s of leeway, and the 360 s for which a node that is cut off keeps its
# sockets: what is forgotten concerns no token that anybody could hold.
RETAINED_MS: Final = 3_600_000


class RevocationKind(Enum):
    """What ended."""

    SESSION = "session"
    KEY = "key"
    MEMBERSHIP = "membership"


@attrs.frozen
class Revocation:
    """One row of control's log; which ids are set follows from the kind."""

    seq: int
    kind: RevocationKind
    revoked_at_ms: int
    session_id: str = ""
    key_id: str = ""
    org_id: str = ""
    user_id: str = ""


@attrs.frozen
class RevocationPage:
    """Rows after a position, ascending without a hole from the first retained, and where the log stands."""

    revocations: Sequence[Revocation]
    head_seq: int
    floor_seq: int


@attrs.define(eq=False)
class RevocationView:
    """The rows that still matter, by what they end."""

    applied_seq: int = 0
    _sessions: dict[str, int] = attrs.field(factory=dict)
    _keys: dict[str, int] = attrs.field(factory=dict)
    # By (org, user): the time of the newest loss.
    _memberships: dict[tuple[str, str], int] = attrs.field(factory=dict)

    def __len__(self) -> int:
        """Number of things held as ended."""
        return len(self._sessions) + len(self._keys) + len(self._memberships)

    def apply(self, page: RevocationPage) -> bool:
        """Take a page that was read after ``applied_seq``.

        Returns:
            Whether the view has reached the head that the page states.

        Raises:
            ValueError: The page does not continue what was applied; nothing was changed.
        """
        if page.head_seq < self.applied_seq:
            # Control was restored to an earlier state: begin again. What is held stays ended, which can
            # only refuse too much.
            self.applied_seq = 0
            return False
        expected = max(self.applied_seq + 1, page.floor_seq)
        for seq, revocation in enumerate(page.revocations, start=expected):
            if revocation.seq != seq:
                raise ValueError(f"revocation {revocation.seq} where {seq} was due")
        for revocation in page.revocations:
            self._hold(revocation)
        if page.revocations:
            self.applied_seq = page.revocations[-1].seq
        elif self.applied_seq + 1 < page.floor_seq:
            self.applied_seq = page.floor_seq - 1
        return self.applied_seq >= page.head_seq

    def is_ended(self, claims: SyncClaims) -> bool:
        """Whether the session of a token, or the key on which it stands, has ended."""
        return self.ended_at_ms(claims) is not None

    def ended_at_ms(self, claims: SyncClaims) -> int | None:
        """Return when the session of a token, or the key on which it stands, ended; None if neither has."""
        ended = self._sessions.get(claims.session_id), self._keys.get(claims.principal_id)
        return min((at_ms for at_ms in ended if at_ms is not None), default=None)

    def lost_orgs(self, claims: SyncClaims) -> frozenset[str]:
        """Return the orgs in which the token's person has lost rights since it was made.

        A token made in the very second of the loss counts as made before it. A service key acts for its
        org, whatever becomes of the person who made it.
        """
        if claims.principal_kind is not PrincipalKind.PERSON or not self._memberships:
            return frozenset()
        issued_at_ms = claims.issued_at_s * 1000
        org_ids = {grant.org_id for grant in claims.grants if grant.org_id is not None}
        return frozenset(
            org_id
            for org_id in org_ids
            if self._memberships.get((org_id, claims.user_id), -1) >= issued_at_ms
        )

    def forget_before(self, revoked_at_ms: int) -> None:
        """Forget what ended before a time; pass ``now - RETAINED_MS``."""
        for held in (self._sessions, self._keys):
            for name in [name for name, at_ms in held.items() if at_ms < revoked_at_ms]:
                del held[name]
        for member in [member for member, at_ms in self._memberships.items() if at_ms < revoked_at_ms]:
            del self._memberships[member]

    def _hold(self, revocation: Revocation) -> None:
        at_ms = revocation.revoked_at_ms
        match revocation.kind:
            case RevocationKind.SESSION:
                self._sessions[revocation.session_id] = at_ms
            case RevocationKind.KEY:
                self._keys[revocation.key_id] = at_ms
            case RevocationKind.MEMBERSHIP:
                member = revocation.org_id, revocation.user_id
                self._memberships[member] = max(at_ms, self._memberships.get(member, 0))
