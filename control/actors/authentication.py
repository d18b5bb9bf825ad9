"""Who is the bearer of this credential? The same question for our own API and for the runtime.

Everything that can be wrong with a credential looks the same to its bearer; the cause goes to the audit
log. A genuine credential whose session has ended is told so (`reauth_required`): its bearer knew it.
"""

import hmac
from typing import Final

import attrs

from control.core.access_tokens import LEEWAY_S
from control.core.credentials import KEY_SECRET_PREFIX, hash_secret, parse_key_secret
from control.core.principals import PersonPrincipal, Principal
from control.core.refusals import forbidden, reauth_required, unauthenticated
from control.core.service_keys import is_alive, is_use_worth_noting
from control.core.sessions import MS_PER_S
from control.ports import AccessTokenVerifier, Clock, KeyState, KeyStore, SessionStore

# The longest credential that we make is an access token of some 600 characters. Anything longer is
# refused before it is parsed.
CREDENTIAL_MAX_CHARS: Final = 4096


# A key that never expires: how long an answer about it may be believed at most. Callers cache for a second.
KEY_ANSWER_LIFETIME_S: Final = 900


@attrs.frozen
class Resolved:
    """The bearer of a credential, and the time (Unix ms) after which this must not be believed."""

    principal: Principal
    expires_at_ms: int


class Authentication:
    """Turns a bearer credential into a principal with its rights of this moment."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        keys: KeyStore,
        verifier: AccessTokenVerifier,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._keys = keys
        self._verifier = verifier
        self._clock = clock

    async def authenticate_untrusted(self, credential: str | None) -> Principal:
        """Return the principal of an access token or service key.

        Raises:
            Refused: unauthenticated; token_expired or reauth_required for a genuine token whose time
                or session has ended.
        """
        return (await self.resolve_untrusted(credential)).principal

    async def authenticate_person_untrusted(self, credential: str | None) -> PersonPrincipal:
        """Return the person of an access token.

        Raises:
            Refused: as `authenticate_untrusted`; forbidden for a service key.
        """
        principal = await self.authenticate_untrusted(credential)
        if not isinstance(principal, PersonPrincipal):
            raise forbidden("not_a_person")
        return principal

    async def resolve_untrusted(self, credential: str | None) -> Resolved:
        """Return the principal of a credential and how long the answer holds.

        Raises:
            Refused: as `authenticate_untrusted`.
        """
        if not credential:
            raise unauthenticated("no_credential")
        if len(credential) > CREDENTIAL_MAX_CHARS:
            raise unauthenticated("credential_too_long")
        if credential.startswith(KEY_SECRET_PREFIX):
            return await self._resolve_key(credential)
        return await self._resolve_person(credential)

    async def _resolve_person(self, token: str) -> Resolved:
        now_s = self._clock.now()
        claims = self._verifier.verify_untrusted(token, now_s=now_s)
        person = await self._sessions.find_person(claims.session_id)
        if person is None:
            raise reauth_required("session_unknown")
        session = person.session
        if (session.user_id, session.device_id) != (claims.user_id, claims.device_id):
            raise unauthenticated("claims_differ_from_session")
        if session.revoked_at_ms is not None:
            raise reauth_required("session_revoked")
        if now_s * MS_PER_S >= session.expires_at_ms:
            raise reauth_required("session_expired")
        expires_at_ms = (claims.expires_at_s + LEEWAY_S) * MS_PER_S
        return Resolved(person, min(expires_at_ms, session.expires_at_ms))

    async def _resolve_key(self, secret: str) -> Resolved:
        key_id = parse_key_secret(secret)
        if key_id is None:
            raise unauthenticated("key_malformed")
        state = await self._keys.find_key(key_id)
        if state is None:
            raise unauthenticated("key_unknown")
        now_ms = int(self._clock.now() * MS_PER_S)
        secret_ends_at_ms = _judge_secret(state, hash_secret(secret), now_ms=now_ms)
        if not is_alive(
            expires_at_ms=state.principal.expires_at_ms,
            revoked_at_ms=state.revoked_at_ms,
            now_ms=now_ms,
        ):
            raise unauthenticated("key_ended")
        if is_use_worth_noting(last_used_at_ms=state.last_used_at_ms, now_ms=now_ms):
            await self._keys.note_use(key_id, now_ms=now_ms)
        ends = (state.principal.expires_at_ms, secret_ends_at_ms, now_ms + KEY_ANSWER_LIFETIME_S * MS_PER_S)
        return Resolved(state.principal, min(end for end in ends if end is not None))


def _judge_secret(state: KeyState, presented_hash: bytes, *, now_ms: int) -> int | None:
    """Return when a secret of this key ends, None if it is the one that the key has now.

    Raises:
        Refused: unauthenticated; it was never one of this key, or its overlap is over.
    """
    if hmac.compare_digest(state.secret_hash, presented_hash):
        return None
    for retired in state.retired:
        if hmac.compare_digest(retired.secret_hash, presented_hash):
            if now_ms >= retired.ends_at_ms:
                raise unauthenticated("key_secret_replaced")
            return retired.ends_at_ms
    raise unauthenticated("key_secret_wrong")
