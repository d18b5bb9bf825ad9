"""Ending sessions: one's own, or those of an application's own users; and the log that says so to nodes.

Whatever ends here is a row of the revocation log in the same transaction, so every node learns of it.
"""

from typing import assert_never

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication
from control.core.audit import Action, AuditEntry, actor_of
from control.core.principals import KeyPrincipal, KeyRight, SessionInfo
from control.core.refusals import forbidden, invalid_argument
from control.core.revocations import PAGE_MAX, RevocationPage, SessionSelection
from control.core.sessions import MS_PER_S
from control.core.sync_tokens import check_subject
from control.ports import Clock, Meters, RevocationLog, SessionStore
from khala_contracts.ids import is_device_id, is_id
from khala_contracts.sync_claims import PrincipalKind


@attrs.frozen
class ThisSession:
    """One session of the caller."""

    session_id: str


@attrs.frozen
class ThisDevice:
    """Every session of one device of the caller."""

    device_id: str


@attrs.frozen
class OtherSessions:
    """Every session of the caller but the one that asks."""


@attrs.frozen
class AllSessions:
    """Every session of the caller."""


RevokeScope = ThisSession | ThisDevice | OtherSessions | AllSessions


class RevocationCommands:
    """Revocation of sessions, by people and by backends."""

    def __init__(
        self,
        *,
        store: SessionStore,
        log: RevocationLog,
        authentication: Authentication,
        trail: AuditTrail,
        clock: Clock,
        meters: Meters,
    ) -> None:
        self._store = store
        self._log = log
        self._authentication = authentication
        self._trail = trail
        self._clock = clock
        self._meters = meters

    async def revoke(self, credential: str | None, scope: RevokeScope, *, request_id: str) -> tuple[str, ...]:
        """End sessions of the caller and return their ids; what had ended before is not among them.

        A session or device that is not the caller's ends nothing, and looks like one that had ended.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for a service key; invalid_argument.
        """
        async with self._trail.watching(Action.SESSION_REVOKE, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            selection = _select(person.session, scope)
        entry = AuditEntry(
            action=Action.SESSION_REVOKE,
            request_id=request_id,
            actor=actor_of(person),
            detail={"scope": type(scope).__name__},
        )
        ended = await self._store.revoke_sessions(
            selection, cause=Action.SESSION_REVOKE.value, now_ms=self._now_ms(), audit=entry
        )
        self._meters.count_done(Action.SESSION_REVOKE)
        return ended

    async def revoke_subject(
        self, credential: str | None, *, external_user_id: str, device_id: str, request_id: str
    ) -> tuple[str, ...]:
        """End the sessions of one of an application's own users, on one device or (empty) on all.

        A user that the org never named ends nothing.

        Raises:
            Refused: unauthenticated; forbidden unless the caller is a service key with the right to
                mint; invalid_argument.
        """
        async with self._trail.watching(Action.SUBJECT_REVOKE, request_id=request_id) as watch:
            principal = await self._authentication.authenticate_untrusted(credential)
            watch.actor = actor_of(principal)
            if not isinstance(principal, KeyPrincipal) or KeyRight.MINT not in principal.rights:
                raise forbidden("not_a_key_that_mints")
            check_subject(external_user_id, field="user_id")
            if device_id and not is_device_id(device_id):
                raise invalid_argument("device_id", "dev_ and 8..64 of 0-9 a-z, or empty")
            user_id = await self._store.find_subject(principal.org_id, external_user_id)
        if user_id is None:
            return ()
        entry = AuditEntry(action=Action.SUBJECT_REVOKE, request_id=request_id, actor=actor_of(principal))
        ended = await self._store.revoke_sessions(
            SessionSelection(user_id, principal_kind=PrincipalKind.DERIVED, device_id=device_id or None),
            cause=Action.SUBJECT_REVOKE.value,
            now_ms=self._now_ms(),
            audit=entry,
        )
        self._meters.count_done(Action.SUBJECT_REVOKE)
        return ended

    async def read_log(self, after_seq: int, *, limit: int) -> RevocationPage:
        """Return what was revoked after a position; at most PAGE_MAX rows whatever is asked.

        Raises:
            Refused: invalid_argument; a position below 0.
        """
        if after_seq < 0:
            raise invalid_argument("after", "0 or the seq of a revocation")
        return await self._log.read_after(after_seq, limit=max(1, min(limit, PAGE_MAX)))

    def _now_ms(self) -> int:
        return int(self._clock.now() * MS_PER_S)


def _select(own: SessionInfo, scope: RevokeScope) -> SessionSelection:
    """Return which sessions of the caller end.

    Raises:
        Refused: invalid_argument; an id that has not the form of one.
    """
    match scope:
        case ThisSession(session_id=session_id):
            if not is_id("ses", session_id):
                raise invalid_argument("session_id", "ses_ and 26 characters of base32")
            return SessionSelection(own.user_id, session_id=session_id)
        case ThisDevice(device_id=device_id):
            if not is_device_id(device_id):
                raise invalid_argument("device_id", "dev_ and 8..64 of 0-9 a-z")
            return SessionSelection(own.user_id, device_id=device_id)
        case OtherSessions():
            return SessionSelection(own.user_id, spare_session_id=own.session_id)
        case AllSessions():
            return SessionSelection(own.user_id)
    assert_never(scope)
