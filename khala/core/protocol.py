"""The conversation with one client, as a table: which message is allowed when.

    phase            hello   subscribe unsubscribe renew heartbeat
    AWAITING_HELLO   -> AUTHENTICATING    every other message: protocol_error
    AUTHENTICATING   protocol_error (a second hello); the others wait for the welcome
    READY            protocol_error   command   command   command   noted
    CLOSING          everything is ignored, and at some rate not even read

Pure: takes bytes and ``now``, returns the command to run, raises what the peer did wrong.
Which topics may be read is decided elsewhere (access_policy.py, classification.py).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import attrs

from khala.core.rate_limit import SlidingCount, TokenBucket
from khala_contracts import codec, reason_codes
from khala_contracts.builds import is_older_build
from khala_contracts.codec import ClientHeartbeat, Hello, Renew, Subscribe, Unsubscribe

if TYPE_CHECKING:
    from khala.core.limits import NodeLimits
    from khala_contracts.codec import ClientMessage
    from khala_contracts.reason_codes import ReasonCode

PROTOCOL_VERSION: Final = 1
SCHEMA_VERSION: Final = 1
SUBPROTOCOL_BINARY: Final = "khala.v1"
SUBPROTOCOL_JSON: Final = "khala.v1.json"
# In order of preference where a client offers both.
SUBPROTOCOLS: Final = (SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON)

# How much more than from others is read from a client that is being closed. Less: what two kernels hold for one that
# flooded us (some 10 MB of pings) is left unread, which resets the socket, and our last words are lost with it.
# More: a flood has the loop until close_timeout_s is over.
_CLOSING_FACTOR: Final = 100
_PAUSE_MIN_S: Final = 0.001


class Phase(Enum):
    """Where the conversation stands."""

    AWAITING_HELLO = "awaiting_hello"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    CLOSING = "closing"


Command = Hello | Subscribe | Unsubscribe | Renew


class RemoteProtocolError(Exception):
    """The client broke the protocol; its connection ends with this reason.

    Attributes:
        reason: What to send and to close with.
        retry_after_ms: When the client may come back at the earliest; 0: no particular time.
        details: Machine-readable facts for the error message.
    """

    def __init__(
        self,
        reason: ReasonCode,
        *,
        retry_after_ms: int = 0,
        details: dict[str, str] | None = None,
        **more_details: str,
    ) -> None:
        """Keep the reason and the facts."""
        self.details = {**(details or {}), **more_details}
        super().__init__(f"{reason.name} {self.details}")
        self.reason = reason
        self.retry_after_ms = retry_after_ms


@attrs.define(eq=False)
class ConnectionProtocol:
    """State of one conversation. No other module changes ``phase``."""

    limits: NodeLimits
    is_text: bool
    now: float
    phase: Phase = attrs.field(default=Phase.AWAITING_HELLO, init=False)
    heard_at: float = attrs.field(init=False)
    _messages: TokenBucket = attrs.field(init=False)
    # None before the first: it is as large as the rest of this.
    _denials: SlidingCount | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Start with the whole burst of messages."""
        limits = self.limits
        self.heard_at = self.now
        self._messages = TokenBucket.full(
            limits.client_messages_per_s, limits.client_messages_burst, now=self.now
        )

    def receive_untrusted(self, data: bytes | str | None, now: float) -> Command | None:
        """Take one message; return the command to run after those before it, if it is one.

        Args:
            data: bytes if binary, str if text, None for a ping, pong or fragment, which counts as a
                message against the rate and nothing else.
            now: Monotonic seconds.

        Raises:
            RemoteProtocolError: The connection must end; nothing was changed but ``heard_at``.
        """
        self.heard_at = now
        if self.phase is Phase.CLOSING:
            self._messages.take(now)
            return None
        limits = self.limits
        self._messages.retune(limits.client_messages_per_s, limits.client_messages_burst, now)
        if not self._messages.take(now):
            # As long as the rate needs for the burst that was used up.
            wait_s = limits.client_messages_burst / limits.client_messages_per_s
            raise RemoteProtocolError(
                reason_codes.RATE_LIMITED,
                retry_after_ms=round(wait_s * 1000),
                details=limits.name_limit("client_messages_per_s"),
            )
        if data is None:
            return None
        message = self._decode_untrusted(data)
        if self.phase is Phase.AWAITING_HELLO:
            if not isinstance(message, Hello):
                raise RemoteProtocolError(reason_codes.PROTOCOL_ERROR, expected="hello")
            self.phase = Phase.AUTHENTICATING
            return message
        if isinstance(message, Hello):
            raise RemoteProtocolError(reason_codes.PROTOCOL_ERROR, unexpected="hello")
        if isinstance(message, ClientHeartbeat):
            return None
        self._check_count(message)
        return message

    def _decode_untrusted(self, data: bytes | str) -> ClientMessage:
        if isinstance(data, str) is not self.is_text:
            wanted = "text" if self.is_text else "binary"
            raise RemoteProtocolError(reason_codes.MALFORMED_MESSAGE, expected=f"{wanted} message")
        try:
            if isinstance(data, str):
                return codec.decode_client_message_json_untrusted(data)
            return codec.decode_client_message_untrusted(data)
        except codec.WireError as exc:
            if exc.field:
                raise RemoteProtocolError(exc.reason, field=exc.field) from exc
            raise RemoteProtocolError(exc.reason) from exc

    def _check_count(self, message: Subscribe | Unsubscribe | Renew) -> None:
        if isinstance(message, Renew):
            return
        maximum = self.limits.topics_per_subscribe_max
        if not 1 <= len(message.topics) <= maximum:
            details = self.limits.name_limit("topics_per_subscribe_max")
            raise RemoteProtocolError(reason_codes.LIMIT_EXCEEDED, details=details)

    def welcome(self) -> None:
        """The hello was accepted."""
        assert self.phase is Phase.AUTHENTICATING, self.phase
        self.phase = Phase.READY

    def close(self) -> None:
        """Nothing from this client counts any more."""
        if self.phase is Phase.CLOSING:
            return
        self.phase = Phase.CLOSING
        limits = self.limits
        self._messages = TokenBucket.full(
            _CLOSING_FACTOR * limits.client_messages_per_s,
            _CLOSING_FACTOR * limits.client_messages_burst,
            now=self.heard_at,
        )

    def reading_pause_s(self) -> float:
        """Return how long a client that is being closed is not read; a flood must not be read for nothing."""
        wait_s = self._messages.wait_s()
        # What is left of a rounding is a pause in which nothing is earned.
        return max(wait_s, _PAUSE_MIN_S) if wait_s else 0.0

    def deny(self, now: float) -> None:
        """Count a denied subscribe.

        Raises:
            RemoteProtocolError: rate_limited, once there were too many in the window.
        """
        limits = self.limits
        if self._denials is None:
            self._denials = SlidingCount(limits.denied_subscribes_max, limits.denied_subscribes_window_s)
        if self._denials.exceeds(now):
            raise RemoteProtocolError(
                reason_codes.RATE_LIMITED,
                retry_after_ms=round(limits.denied_subscribes_window_s * 1000),
                details=limits.name_limit("denied_subscribes_max"),
            )


@attrs.define(eq=False)
class ClientBuilds:
    """Which builds may connect; one object for the whole node, so that a reload changes it for everybody."""

    min_build_id: str = "0"


def check_versions(hello: Hello, builds: ClientBuilds) -> None:
    """Check that the client speaks a protocol and a schema of ours, and that its build is not too old.

    Raises:
        RemoteProtocolError: upgrade_required, naming what failed, what was offered and what we support.
    """
    for what, offered, ours in (
        ("protocol", hello.protocol, PROTOCOL_VERSION),
        ("schema", hello.schema, SCHEMA_VERSION),
    ):
        if not offered.min <= ours <= offered.max:
            raise RemoteProtocolError(
                reason_codes.UPGRADE_REQUIRED,
                failed=what,
                offered=f"{offered.min}-{offered.max}",
                supported=str(ours),
                min_build_id=builds.min_build_id,
            )
    if is_older_build(hello.client_build_id, builds.min_build_id):
        raise RemoteProtocolError(
            reason_codes.UPGRADE_REQUIRED,
            failed="build",
            offered=hello.client_build_id,
            supported=f"{builds.min_build_id}-",
            min_build_id=builds.min_build_id,
        )
