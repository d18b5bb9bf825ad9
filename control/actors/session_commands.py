"""Signing in, refreshing, signing out, and reading one's sessions.

Development sign-in is the only issuer in this release's code; its route exists in dev mode only
(`adapters/http/sessions.py`). Whatever issuer asserts an identity, the session made for it is the same.
"""

from typing import Final

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication, Resolved
from control.core.access_tokens import AccessClaims, to_claims
from control.core.audit import Action, Actor, AuditEntry, actor_of
from control.core.credentials import (
    SECRET_BYTES,
    format_refresh_secret,
    hash_secret,
    is_refresh_secret,
)
from control.core.principals import PersonPrincipal, SessionInfo
from control.core.refusals import Refused, invalid_argument, reauth_required, unauthenticated
from control.core.sessions import (
    MS_PER_S,
    NewSession,
    SessionLimits,
    access_expiry_ms,
    check_login,
    check_person_surface,
)
from control.ports import Clock, Ids, Meters, RefreshDenied, Rng, SessionStore, SignIn, TokenSigner
from khala_contracts.ids import is_device_id
from khala_contracts.sync_claims import Surface

# Subject namespace of development logins: a login of another issuer is never the same user.
DEV_ISSUER: Final = "khala-dev"
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

    async def sign_in_dev(
        self, *, login: str, device_id: str, surface: Surface | None, request_id: str
    ) -> IssuedTokens:
        """Open a session for a development login; the same login is always the same user.

        Raises:
            Refused: invalid_argument.
        """
        async with self._trail.watching(Action.SIGN_IN, request_id=request_id):
            check_login(login)
            if not is_device_id(device_id):
                raise invalid_argument("device_id", "dev_ and 8..64 of 0-9 a-z")
            surface = check_person_surface(surface)
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
            issuer=DEV_ISSUER,
            subject=login,
            login=login,
            new_user_id=self._ids.new("usr"),
            new_org_id=self._ids.new("org"),
            session=session,
        )
        person = await self._store.sign_in(order, request_id=request_id)
        self._meters.count_done(Action.SIGN_IN)
        return self._issue(person, refresh_token, session.expires_at_ms, now_ms=now_ms)

    async def refresh(self, *, refresh_token: str, device_id: str, request_id: str) -> IssuedTokens:
        """Spend a refresh token and return its successor with a new access token.

        An access token is neither asked for nor looked at: its expiry is why one refreshes.

        Raises:
            Refused: reauth_required, the same for unknown, foreign, spent and ended tokens.
        """
        async with self._trail.watching(Action.REFRESH, request_id=request_id) as watch:
            watch.actor = Actor(device_id=device_id if is_device_id(device_id) else None)
            if not is_refresh_secret(refresh_token):
                raise reauth_required("refresh_malformed")
            now_ms = self._now_ms()
            successor = format_refresh_secret(self._rng.token_bytes(SECRET_BYTES))
            result = await self._store.rotate_refresh(
                hash_secret(refresh_token),
                device_id=device_id,
                successor_hash=hash_secret(successor),
                now_ms=now_ms,
                request_id=request_id,
            )
            if isinstance(result, RefreshDenied):
                watch.actor = attrs.evolve(watch.actor, session_id=result.session_id)
                raise reauth_required(result.refusal.value)
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
        await self._store.revoke_session(person.session.session_id, now_ms=self._now_ms(), audit=entry)
        self._meters.count_done(Action.LOGOUT)

    async def read_session(self, credential: str | None, *, request_id: str) -> PersonPrincipal:
        """Return the session of the credential with the memberships of its user.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for a service key.
        """
        async with self._trail.watching(Action.SESSION_READ, request_id=request_id):
            return await self._authentication.authenticate_person_untrusted(credential)

    async def list_sessions(
        self, credential: str | None, *, request_id: str
    ) -> tuple[PersonPrincipal, tuple[SessionInfo, ...]]:
        """Return who asks, and the newest 200 sessions of that user, ended ones included.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for a service key.
        """
        async with self._trail.watching(Action.SESSION_READ, request_id=request_id):
            person = await self._authentication.authenticate_person_untrusted(credential)
        user_id = person.session.user_id
        return person, await self._store.list_sessions(user_id, limit=SESSIONS_LISTED_MAX)

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
        claims = AccessClaims(
            session_id=session.session_id,
            user_id=session.user_id,
            device_id=session.device_id,
            jti=self._ids.new("jti"),
            issued_at_s=now_ms // MS_PER_S,
            # Rounded up: a token of a session's last half second would otherwise live 0 s.
            expires_at_s=-(-expires_at_ms // MS_PER_S),
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
