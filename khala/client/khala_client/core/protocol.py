r"""One connection as its client sees it, without I/O: order of messages, and deadlines.

    NEW --open--> HELLO_SENT --welcome--> OPEN --end--> CLOSED
                       \________________end____________/

In HELLO_SENT only ``welcome`` or an ``error`` about the connection may come; in OPEN everything but
``welcome``. What concerns one topic is passed on to follow.py, which has the automaton of topics.
Deadlines are swept by ``tick``; ``next_wakeup_s`` says when it has something to do:

    hello_deadline_s     no welcome in time                              -> close
    dead_at_s            nothing received for dead_after_ms              -> close
    heartbeat_at_s       ours are due every heartbeat_interval_ms        -> heartbeat and ping
    renew_at_s           2/3 of the token's life, earlier by the jitter  -> TokenDue, once per token
    leave_at_s           the node leaves: our turn, or its own end        -> close, reconnect at return_at_s

The process clock is monotonic; the server's wall clock is only compared with itself.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from khala_client.core.backoff import RETRY_AFTER_MAX_S
from khala_client.core.happenings import (
    CloseRequest,
    Happening,
    LeaveAsked,
    Output,
    ServerRefused,
    TokenDue,
    Welcomed,
)
from khala_contracts import codec
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    GoAway,
    Hello,
    Renew,
    Renewed,
    ServerHeartbeat,
    ServerMessage,
    VersionRange,
    Welcome,
    WireError,
)

if TYPE_CHECKING:
    from khala_client.core.backoff import Rng

__all__ = [
    "PROTOCOL_RANGE",
    "SCHEMA_RANGE",
    "ClientProtocol",
    "Identity",
    "LocalProtocolError",
    "Phase",
    "ProtocolLimits",
    "RemoteProtocolError",
]

PROTOCOL_RANGE: Final = VersionRange(min=1, max=1)
SCHEMA_RANGE: Final = VersionRange(min=1, max=1)

# Part of the token's life after which it is renewed, at the latest; the jitter subtracts up to
# RENEW_JITTER of the life, so that clients which connected together do not renew together.
RENEW_AT: Final = 2 / 3
RENEW_JITTER: Final = 0.1


class LocalProtocolError(Exception):
    """We did what the protocol does not allow now: a bug of this client."""


class RemoteProtocolError(Exception):
    """The server did; ``reason_code`` is the registry's name for it.

    ``happenings`` is what came of the same message before the trouble and stays true: frames that
    were applied are delivered, or their seqs would be missing for ever.
    """

    def __init__(self, reason_code: str, detail: str, happenings: tuple[Happening, ...] = ()) -> None:
        super().__init__(f"{reason_code}: {detail}")
        self.reason_code = reason_code
        self.detail = detail
        self.happenings = happenings


class Phase(enum.Enum):
    """Where the connection stands."""

    NEW = "new"
    HELLO_SENT = "hello_sent"
    OPEN = "open"
    CLOSED = "closed"


@attrs.frozen
class Identity:
    """Who connects: the device keeps its id for life, the build id names this software."""

    device_id: str
    client_build_id: str


@attrs.frozen
class ProtocolLimits:
    """Deadlines that the welcome does not set, or sets only later. Seconds."""

    # The node redeems the token before it answers; its own deadline for our hello is 5 s.
    welcome_deadline_s: float = 10.0
    # If a welcome names no interval or none that makes sense (SPEC section 6).
    heartbeat_interval_s: float = 15.0
    dead_after_s: float = 45.0


class ClientProtocol:
    """The automaton of one connection; make a new one for the next."""

    def __init__(self, identity: Identity, *, rng: Rng, limits: ProtocolLimits | None = None) -> None:
        self._identity = identity
        self._rng = rng
        self._limits = limits or ProtocolLimits()
        self.phase = Phase.NEW
        self.welcome: Welcome | None = None
        self.last_error: ErrorMessage | None = None
        self.hello_deadline_s: float | None = None
        self.dead_at_s: float | None = None
        self.heartbeat_at_s: float | None = None
        self.renew_at_s: float | None = None
        self.token_ends_s: float | None = None
        self.leave_at_s: float | None = None
        # When we may connect again. Invariant: leave_at_s <= return_at_s, and both or none are None.
        self.return_at_s: float | None = None
        self._heartbeat_interval_s = self._limits.heartbeat_interval_s
        self._dead_after_s = self._limits.dead_after_s
        # Server wall clock minus our monotonic clock, in milliseconds; set by welcome.
        self._server_offset_ms = 0.0

    @property
    def heartbeat_interval_s(self) -> float:
        """Time between two heartbeats, as the welcome names it."""
        return self._heartbeat_interval_s

    def open(self, token: str, now_s: float) -> bytes:
        """Return the hello. The token opens exactly this one connection."""
        if self.phase is not Phase.NEW:
            message = f"hello in phase {self.phase.value}"
            raise LocalProtocolError(message)
        self.phase = Phase.HELLO_SENT
        self.hello_deadline_s = now_s + self._limits.welcome_deadline_s
        return codec.encode_client_message(
            Hello(
                token=token,
                ticket=None,
                device_id=self._identity.device_id,
                client_build_id=self._identity.client_build_id,
                protocol=PROTOCOL_RANGE,
                schema=SCHEMA_RANGE,
            )
        )

    def renew(self, token: str) -> bytes:
        """Return the renew message; its ``renewed`` sets the next renewal."""
        if self.phase is not Phase.OPEN:
            message = f"renew in phase {self.phase.value}"
            raise LocalProtocolError(message)
        self.renew_at_s = None
        return codec.encode_client_message(Renew(token=token))

    def retry_renew(self, at_s: float) -> None:
        """No token could be had: emit TokenDue again at ``at_s``."""
        self.renew_at_s = at_s

    def receive_untrusted(self, data: bytes, now_s: float) -> tuple[ServerMessage, tuple[Happening, ...]]:
        """Decode one binary message and check that it may come now.

        Returns:
            The message, for follow.py if it concerns topics, and what it means for the connection.

        Raises:
            RemoteProtocolError: it does not decode, or may not come in this phase. Close with 1002.
        """
        if self.phase not in {Phase.HELLO_SENT, Phase.OPEN}:
            message = f"received in phase {self.phase.value}"
            raise LocalProtocolError(message)
        self.alive(now_s)
        try:
            received = codec.decode_server_message_untrusted(data)
        except WireError as error:
            raise RemoteProtocolError(error.reason_code, error.detail) from error
        return received, self._note(received, now_s)

    def alive(self, now_s: float) -> None:
        """Note a sign of life: any bytes, also a pong."""
        if self.phase is Phase.OPEN:
            self.dead_at_s = now_s + self._dead_after_s

    def _note(self, message: ServerMessage, now_s: float) -> tuple[Happening, ...]:
        if self.phase is Phase.HELLO_SENT:
            if isinstance(message, Welcome):
                return self._note_welcome(message, now_s)
            if isinstance(message, ErrorMessage) and not message.topic:
                self.last_error = message
                return (ServerRefused(message),)
            raise RemoteProtocolError("protocol_error", f"{type(message).__name__} before welcome")
        match message:
            case Welcome():
                raise RemoteProtocolError("protocol_error", "a second welcome")
            case Renewed():
                self._set_token_end(message.token_expires_at_ms, now_s)
            case GoAway():
                return (self._note_go_away(message, now_s),)
            case ErrorMessage() if not message.topic:
                self.last_error = message
                return (ServerRefused(message),)
            case ServerHeartbeat():
                self._server_offset_ms = message.server_time_ms - now_s * 1000
            case _:
                pass
        return ()

    def _note_go_away(self, message: GoAway, now_s: float) -> LeaveAsked:
        return_in_s = min(message.reconnect_after_ms / 1000, RETRY_AFTER_MAX_S)
        leave_in_s = min(return_in_s, message.deadline_ms / 1000) if message.deadline_ms else return_in_s
        self.leave_at_s, self.return_at_s = now_s + leave_in_s, now_s + return_in_s
        return LeaveAsked(round(return_in_s * 1000))

    def _note_welcome(self, welcome: Welcome, now_s: float) -> tuple[Happening, ...]:
        if welcome.protocol not in range(PROTOCOL_RANGE.min, PROTOCOL_RANGE.max + 1):
            raise RemoteProtocolError("protocol_error", f"welcome chose protocol {welcome.protocol}")
        self.phase = Phase.OPEN
        self.welcome = welcome
        self.hello_deadline_s = None
        if welcome.heartbeat_interval_ms > 0:
            self._heartbeat_interval_s = welcome.heartbeat_interval_ms / 1000
        if welcome.limits.dead_after_ms > 0:
            self._dead_after_s = welcome.limits.dead_after_ms / 1000
        self._server_offset_ms = welcome.server_time_ms - now_s * 1000
        self.heartbeat_at_s = now_s + self._heartbeat_interval_s
        self.alive(now_s)
        self._set_token_end(welcome.token_expires_at_ms, now_s)
        return (Welcomed(welcome),)

    def _set_token_end(self, expires_at_ms: int, now_s: float) -> None:
        life_s = max(0.0, (expires_at_ms - self._server_offset_ms) / 1000 - now_s)
        self.token_ends_s = now_s + life_s
        self.renew_at_s = now_s + life_s * (RENEW_AT - RENEW_JITTER * self._rng.random())

    def tick(self, now_s: float) -> Output:
        """Do what the deadlines ask for at ``now_s``; call it again at ``next_wakeup_s``."""
        if self.hello_deadline_s is not None and now_s >= self.hello_deadline_s:
            return Output(close=CloseRequest(1000, "no welcome in time"))
        if self.dead_at_s is not None and now_s >= self.dead_at_s:
            return Output(close=CloseRequest(1000, "nothing received in time"))
        if self.leave_at_s is not None and now_s >= self.leave_at_s:
            return Output(close=CloseRequest(1000, "leaving a draining node"))
        send: tuple[bytes, ...] = ()
        happenings: tuple[Happening, ...] = ()
        is_heartbeat_due = self.heartbeat_at_s is not None and now_s >= self.heartbeat_at_s
        if is_heartbeat_due:
            self.heartbeat_at_s = now_s + self._heartbeat_interval_s
            send = (codec.encode_client_message(ClientHeartbeat()),)
        if self.renew_at_s is not None and now_s >= self.renew_at_s:
            self.renew_at_s = None
            happenings = (TokenDue(),)
        return Output(send=send, happenings=happenings, ping=is_heartbeat_due)

    def next_wakeup_s(self) -> float | None:
        """Return when ``tick`` has something to do; None if nothing is planned."""
        deadlines = (
            self.hello_deadline_s,
            self.dead_at_s,
            self.leave_at_s,
            self.heartbeat_at_s,
            self.renew_at_s,
        )
        return min((at_s for at_s in deadlines if at_s is not None), default=None)

    def close(self) -> None:
        """Note the end; no deadline is left."""
        self.phase = Phase.CLOSED
        self.hello_deadline_s = self.dead_at_s = self.leave_at_s = self.heartbeat_at_s = self.renew_at_s = (
            None
        )
