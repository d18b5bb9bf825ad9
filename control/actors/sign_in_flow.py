"""Signing in through an identity provider: the way to it, and the way back.

    start      secrets are made and remembered; the browser gets a cookie and goes to the provider
    callback   the row of the state is taken (once), the cookie must be the starter's, the code is spent at the
               provider with the verifier, and what it asserts opens a session
    exchange   of a sign-in that a command began (core/loopback_sign_in.py): the callback gave the browser a
               code for it instead, and the session is opened for whoever has code and verifier

Whatever is wrong with a callback looks the same to its sender; the cause goes to the audit log.
"""

import hmac

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.session_commands import IssuedTokens, SessionCommands
from control.core.audit import Action, Actor, AuditEntry
from control.core.credentials import SECRET_BYTES, hash_secret
from control.core.loopback_sign_in import (
    CODE_LIFETIME_S,
    LoopbackReturn,
    SignInCode,
    check_loopback,
    format_code,
    judge_code,
)
from control.core.oidc import (
    FLOW_SECRET_BYTES,
    PENDING_LIFETIME_S,
    AssertedIdentity,
    FlowSecrets,
    IdentityRefused,
    PendingSignIn,
    check_return_to,
)
from control.core.refusals import invalid_argument, unauthenticated
from control.core.sessions import MS_PER_S, check_person_surface
from control.ports import Clock, IdentityProvider, PendingSignIns, Rng
from khala_contracts.ids import is_device_id
from khala_contracts.sync_claims import Surface

# Far above what any provider sends; a longer text is refused before anything is looked up.
PARAMETER_MAX_CHARS = 2_048


@attrs.frozen(repr=False)
class StartedSignIn:
    """Where to send the browser, and the cookie that it brings back. Not printable."""

    url: str
    binding: str


@attrs.frozen(repr=False)
class CompletedSignIn:
    """A session, and where the browser was going. Not printable."""

    tokens: IssuedTokens
    return_to: str


@attrs.frozen(repr=False)
class HandedToCommand:
    """The browser brings a code to the command that began; ``url`` holds it. Not printable."""

    url: str


class SignInFlow:
    """Sign-ins of people through one provider."""

    def __init__(
        self,
        *,
        provider: IdentityProvider,
        pending: PendingSignIns,
        sessions: SessionCommands,
        trail: AuditTrail,
        clock: Clock,
        rng: Rng,
        redirect_uri: str,
    ) -> None:
        self._provider = provider
        self._pending = pending
        self._sessions = sessions
        self._trail = trail
        self._clock = clock
        self._rng = rng
        self._redirect_uri = redirect_uri

    async def start(
        self,
        *,
        device_id: str,
        surface: Surface | None,
        return_to: str,
        login_hint: str,
        loopback_port: str,
        code_challenge: str,
        request_id: str,
    ) -> StartedSignIn:
        """Begin a sign-in for a device.

        Args:
            device_id: Made and kept by the device.
            surface: What kind of client it is; None: a page.
            return_to: Path on our origin for the browser afterwards.
            login_hint: Who is likely to sign in; may be empty.
            loopback_port: Where a command listens on 127.0.0.1; empty: the browser signs itself in.
            code_challenge: Of that command.
            request_id: For the log.

        Raises:
            Refused: invalid_argument.
            Unavailable: identity_unavailable; nothing was begun.
        """
        async with self._trail.watching(Action.SIGN_IN, request_id=request_id):
            if not is_device_id(device_id):
                raise invalid_argument("device_id", "dev_ and 8..64 of 0-9 a-z")
            surface = check_person_surface(surface or Surface.WEB)
            return_to = check_return_to(return_to)
            loopback = check_loopback(loopback_port, code_challenge)
            if len(login_hint) > PARAMETER_MAX_CHARS or not login_hint.isprintable():
                raise invalid_argument("login_hint", "printable text")
        secrets = FlowSecrets.from_random(self._rng.token_bytes(FLOW_SECRET_BYTES))
        url = await self._provider.authorization_url(
            secrets, redirect_uri=self._redirect_uri, login_hint=login_hint
        )
        pending = PendingSignIn(
            nonce=secrets.nonce,
            verifier=secrets.verifier,
            binding_hash=hash_secret(secrets.binding),
            device_id=device_id,
            surface=surface.value,
            return_to=return_to,
            expires_at_ms=self._now_ms() + PENDING_LIFETIME_S * MS_PER_S,
            loopback_port=loopback.port if loopback else None,
            loopback_challenge=loopback.challenge if loopback else None,
        )
        await self._pending.put(hash_secret(secrets.state), pending)
        return StartedSignIn(url, secrets.binding)

    async def complete(
        self, *, state: str, code: str, error: str, binding: str, request_id: str
    ) -> CompletedSignIn | HandedToCommand:
        """Take a callback of the provider and open the session, or let a command open it.

        Args:
            state: As the provider returned it; spent by this, whatever follows.
            code: The authorisation code; empty if the provider refused.
            error: The provider's error; empty if there is none.
            binding: The cookie of the browser; empty if it sent none.
            request_id: For the log.

        Raises:
            Refused: unauthenticated, the same whatever is wrong.
            Unavailable: identity_unavailable; the person begins again.
        """
        async with self._trail.watching(Action.SIGN_IN, request_id=request_id):
            if max(map(len, (state, code, error, binding))) > PARAMETER_MAX_CHARS:
                raise unauthenticated("callback_too_long")
            pending = await self._pending.take(hash_secret(state))
            if pending is None:
                raise unauthenticated("state_unknown")
            if self._now_ms() >= pending.expires_at_ms:
                raise unauthenticated("state_expired")
            if not hmac.compare_digest(pending.binding_hash, hash_secret(binding)):
                raise unauthenticated("another_browser")
            if error or not code:
                raise unauthenticated("refused_by_provider")
            try:
                identity = await self._provider.exchange(
                    code,
                    verifier=pending.verifier,
                    nonce=pending.nonce,
                    redirect_uri=self._redirect_uri,
                )
            except IdentityRefused as refused:
                raise unauthenticated(refused.cause) from refused
        if pending.loopback_port is not None:
            return await self._hand_to_command(pending, identity, request_id=request_id)
        tokens = await self._sessions.open_session(
            identity, device_id=pending.device_id, surface=Surface(pending.surface), request_id=request_id
        )
        return CompletedSignIn(tokens, pending.return_to)

    async def exchange(self, *, code: str, verifier: str, request_id: str) -> IssuedTokens:
        """Open the session of a sign-in that a command began; the code is spent, whatever comes of it.

        Args:
            code: As the browser brought it.
            verifier: Of the challenge with which the command began.
            request_id: For the log.

        Raises:
            Refused: unauthenticated, the same whatever is wrong.
        """
        async with self._trail.watching(Action.SIGN_IN, request_id=request_id):
            if max(len(code), len(verifier)) > PARAMETER_MAX_CHARS:
                raise unauthenticated("code_too_long")
            found = await self._pending.take_code(hash_secret(code))
            found = judge_code(found, verifier=verifier, now_ms=self._now_ms())
        return await self._sessions.open_session(
            found.identity, device_id=found.device_id, surface=Surface(found.surface), request_id=request_id
        )

    async def _hand_to_command(
        self, pending: PendingSignIn, identity: AssertedIdentity, *, request_id: str
    ) -> HandedToCommand:
        assert pending.loopback_port is not None
        assert pending.loopback_challenge is not None
        code = format_code(self._rng.token_bytes(SECRET_BYTES))
        waiting = SignInCode(
            challenge=pending.loopback_challenge,
            identity=identity,
            device_id=pending.device_id,
            surface=pending.surface,
            expires_at_ms=self._now_ms() + CODE_LIFETIME_S * MS_PER_S,
        )
        await self._pending.put_code(hash_secret(code), waiting)
        actor = Actor(device_id=pending.device_id)
        await self._trail.note(AuditEntry(Action.SIGN_IN_CODE, request_id, actor))
        return HandedToCommand(LoopbackReturn(pending.loopback_port, pending.loopback_challenge).url(code))

    def _now_ms(self) -> int:
        return int(self._clock.now() * MS_PER_S)
