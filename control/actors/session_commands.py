"""Opening sessions, refreshing, signing out, and reading one's sessions.

People are asserted by an issuer, in development too (`sign_in_flow.py`); whatever issuer asserts an identity,
the session made for it is the same.
"""

from typing import Final

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication, Resolved
from control.core.access_tokens import AccessClaims, to_claims
from control.core.audit import Action, Actor, AuditEntry, actor_of
from control.core.credentials import (
    SEAL_NONCE_BYTES,
    SECRET_BYTES,
    format_refresh_secret,
    hash_secret,
    is_refresh_secret,
    open_successor,
    seal_successor,
)
from control.core.oidc import AssertedIdentity
from control.core.principals import PersonPrincipal, SessionInfo
from control.core.refusals import Refused, not_found, reauth_required, unauthenticated
from control.core.revocations import SessionSelection
from control.core.sessions import (
    MS_PER_S,
    NewSession,
    SessionLimits,
    access_expiry_ms,
)
from control.ports import (
    Clock,
    Ids,
    Meters,
    RefreshDenied,
    RefreshOrder,
    Reissued,
    Rng,
    SessionStore,
    SignIn,
    TokenSigner,
)
from khala_contracts.ids import is_device_id
from khala_contracts.sync_claims import Surface

SESSIONS_LISTED_MAX: Final = 200


@attrs.frozen(repr=False)
class IssuedTokens:
    """What a sign-in or refresh hands out. Not printable: it holds secrets."""

    access_token: str
    access_expires_at_ms: int
    refresh_token: str
    refresh_expires_at_ms: int
    person: PersonPrincipal


class SessionCommands:
    """Sessions of people."""

    def __init__(
        self,
        *,
        store: SessionStore,
        authentication: Authentication,
        trail: AuditTrail,
        signer: TokenSigner,
        clock: Clock,
        ids: Ids,
        rng: Rng,
        limits: SessionLimits,
        meters: Meters,
    ) -> None:
        self._store = store
        self._authentication = authentication
        self._trail = trail
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._limits = limits
        self._meters = meters

    async def open_session(
        self, identity: AssertedIdentity, *, device_id: str, surface: Surface, request_id: str
    ) -> IssuedTokens:
        """Open a session for an identity that its issuer has asserted."""
        now_ms = self._now_ms()
        refresh_token = format_refresh_secret(self._rng.token_bytes(SECRET_BYTES))
        session = NewSession(
            session_id=self._ids.new("ses"),
            device_id=device_id,
            surface=surface,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + self._limits.session_lifetime_s * MS_PER_S,
            refresh_hash=hash_secret(refresh_token),
        )
        order = SignIn(
            issuer=identity.issuer,
            subject=identity.subject,
            login=identity.login,
            new_user_id=self._ids.new("usr"),
            new_org_id=self._ids.new("org"),
            session=session,
        )
        person = await self._store.sign_in(order, request_id=request_id)
        self._meters.count_done(Action.SIGN_IN)
        return self._issue(person, refresh_token, session.expires_at_ms, now_ms=now_ms)

    async def refresh(self, *, refresh_token: str, device_id: str, request_id: str) -> IssuedTokens:
        """Spend a refresh token and return its successor with a new access token.

        An access token is neither asked for nor looked at: its expiry is why one refreshes. The same
        refresh again, by the same device within the grace, returns the same successor; any other use of a
        spent token ends the session and every socket that stands on it.

        Raises:
            Refused: reauth_required, the same for unknown, foreign, spent and ended tokens.
        """
        async with self._trail.watching(Action.REFRESH, request_id=request_id) as watch:
            watch.actor = Actor(device_id=device_id if is_device_id(device_id) else None)
            if not is_refresh_secret(refresh_token):
                raise reauth_required("refresh_malformed")
            now_ms = self._now_ms()
            successor = format_refresh_secret(self._rng.token_bytes(SECRET_BYTES))
            order = RefreshOrder(
                presented_hash=hash_secret(refresh_token),
                device_id=device_id,
                successor_hash=hash_secret(successor),
                sealed_successor=seal_successor(
                    refresh_token, successor, self._rng.token_bytes(SEAL_NONCE_BYTES)
                ),
                grace_ms=self._limits.refresh_grace_s * MS_PER_S,
            )
            result = await self._store.rotate_refresh(order, now_ms=now_ms, request_id=request_id)
            if isinstance(result, RefreshDenied):
                watch.actor = attrs.evolve(watch.actor, session_id=result.session_id)
                raise reauth_required(result.refusal.value)
            if isinstance(result, Reissued):
                successor = open_successor(refresh_token, result.sealed_successor)
            person = await self._store.find_person(result.session.session_id)
            if person is None:
                raise reauth_required("session_unknown")
        self._meters.count_done(Action.REFRESH)
        return self._issue(person, successor, result.refresh_expires_at_ms, now_ms=now_ms)

    async def log_out(self, credential: str | None, *, request_id: str) -> None:
        """End the session of the credential; its refresh token and sync tokens end with it.

        Raises:
            Refused: unauthenticated or reauth_required.
        """
        async with self._trail.watching(Action.LOGOUT, request_id=request_id):
            person = await self._authentication.authenticate_person_untrusted(credential)
        entry = AuditEntry(action=Action.LOGOUT, request_id=request_id, actor=actor_of(person))
        session = person.session
        await self._store.revoke_sessions(
            SessionSelection(session.user_id, session_id=session.session_id),
            cause=Action.LOGOUT.value,
            now_ms=self._now_ms(),
            audit=entry,
        )
        self._meters.count_done(Action.LOGOUT)

    async def read_session(self, credential: str | None, *, request_id: str) -> PersonPrincipal:
        """Return the session of the credential with the memberships of its user.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for a service key.
        """
        async with self._trail.watching(Action.SESSION_READ, request_id=request_id):
            return await self._authentication.authenticate_person_untrusted(credential)

    async def list_sessions(
        self, credential: str | None, *, device_id: str | None, request_id: str
    ) -> tuple[PersonPrincipal, tuple[SessionInfo, ...]]:
        """Return who asks, and the newest 200 sessions of that user, ended ones included.

        Args:
            credential: Who asks.
            device_id: Only the sessions of this device of theirs; None: of all.
            request_id: For the log.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for a service key; not_found for a
                device on which the user never signed in, somebody else's included.
        """
        async with self._trail.watching(Action.SESSION_READ, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            user_id = person.session.user_id
            if device_id is not None and not (
                is_device_id(device_id) and await self._store.has_device(user_id, device_id)
            ):
                raise not_found("device_unknown_or_foreign")
            sessions = await self._store.list_sessions(
                user_id, device_id=device_id, limit=SESSIONS_LISTED_MAX
            )
        return person, sessions

    async def resolve_untrusted(self, credential: str, *, request_id: str) -> Resolved:
        """Return the bearer of a credential that another service was given.

        Raises:
            Refused: unauthenticated, whatever is wrong with the credential; the log has the cause.
        """
        try:
            async with self._trail.watching(Action.PRINCIPAL_RESOLVE, request_id=request_id):
                return await self._authentication.resolve_untrusted(credential)
        except Refused as refused:
            raise unauthenticated("resolve") from refused

    def _issue(
        self,
        person: PersonPrincipal,
        refresh_token: str,
        refresh_expires_at_ms: int,
        *,
        now_ms: int,
    ) -> IssuedTokens:
        session = person.session
        expires_at_ms = access_expiry_ms(
            now_ms=now_ms, session_expires_at_ms=session.expires_at_ms, limits=self._limits
        )
        issued_at_s = now_ms // MS_PER_S
        # Rounded up, since a token of a session's last half second would otherwise live 0 s; but never more
        # than the lifetime after what the token itself says is its beginning.
        expires_at_s = min(-(-expires_at_ms // MS_PER_S), issued_at_s + self._limits.access_token_ttl_s)
        claims = AccessClaims(
            session_id=session.session_id,
            user_id=session.user_id,
            device_id=session.device_id,
            jti=self._ids.new("jti"),
            issued_at_s=issued_at_s,
            expires_at_s=expires_at_s,
        )
        return IssuedTokens(
            access_token=self._signer.sign(to_claims(claims)),
            access_expires_at_ms=claims.expires_at_s * MS_PER_S,
            refresh_token=refresh_token,
            refresh_expires_at_ms=refresh_expires_at_ms,
            person=person,
        )

    def _now_ms(self) -> int:
        return int(self._clock.now() * MS_PER_S)
