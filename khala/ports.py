"""What the node asks of the world; nothing above this line imports asyncio, time, random or uuid.

Each port has an adapter that knows a library and a fake that passes the same suite. Monotonic
time is ``trio.current_time()``, which a test or a simulation replaces as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from khala.core.classification import CursorRow, Observation
    from khala.core.origin_policy import UpgradeRequest
    from khala.core.pages import Page
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims
    from khala_contracts.topics import TopicName


class Clock(Protocol):
    """Wall clock."""

    def now(self) -> float:
        """Return Unix seconds."""


class Rng(Protocol):
    """Randomness for jitter; never for secrets."""

    def random(self) -> float:
        """Return a float in [0, 1)."""


class Ids(Protocol):
    """New identifiers."""

    def new(self, prefix: str) -> str:
        """Return a new id with this registered prefix."""


class TransportBrokenError(Exception):
    """The peer is gone or the socket failed; nothing more can be sent or received."""


class ByteTransport(Protocol):
    """One connected byte stream with a kernel (or a simulated one) behind it.

    After ``abort`` every call raises ``TransportBrokenError``. One task reads; sending is
    synchronous and may be done by any task, since nothing awaits between deciding and sending.
    """

    @property
    def remote_address(self) -> str:
        """Address of the other end, without its port; empty if it is not known."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Hand over as much as is taken now; return how many bytes that was, perhaps 0.

        Raises:
            TransportBrokenError: The connection is gone.
        """

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """``try_send`` without a layer between, for one call per delivery; the same for life.

        It may raise BlockingIOError where ``try_send`` returns 0, and OSError where that raises
        ``TransportBrokenError``.
        """

    async def wait_writable(self) -> None:
        """Return when ``try_send`` may take something again. Cancellation: safe."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """Return what has arrived, at least one byte, or ``b""`` at the end of the stream.

        Raises:
            TransportBrokenError: The connection is gone.
        Cancellation: safe; nothing is consumed.
        """

    def abort(self) -> None:
        """Drop the connection now; idempotent."""


class OriginPolicy(Protocol):
    """Which upgrade requests are served."""

    def refusal(self, request: UpgradeRequest) -> tuple[int, str] | None:
        """Return the HTTP status and text with which to refuse, or None."""


class PeerClosedError(Exception):
    """The client closed, or broke the framing; the library has queued its answer already.

    Attributes:
        code: The close code that ended the connection (1006 if there was none).
    """

    def __init__(self, code: int) -> None:
        """Remember the close code."""
        super().__init__(code)
        self.code = code


class WebSocketPeer(Protocol):
    """The server side of one WebSocket: handshake, parsing, ping and close.

    Whatever it wants on the wire it puts into the connection's control lane through the
    ``emit`` callback that it was made with; it never touches the socket's sending side.
    """

    async def receive_request(self) -> UpgradeRequest:
        """Read the upgrade request.

        Raises:
            PeerClosedError: It is no valid upgrade request; an HTTP refusal was emitted.
            TransportBrokenError: The connection is gone.
        """

    async def accept(self, subprotocol: str) -> None:
        """Answer 101 with this subprotocol, or refuse what is no WebSocket request."""

    async def reject(self, status: int, text: str) -> None:
        """Answer with an HTTP status and a constant text instead of upgrading."""

    async def receive_message(self) -> bytes | str | None:
        """Return the next message: bytes if binary, str if text, None for what is no whole message.

        That is a ping, which has been answered when this returns, a pong, or a fragment before the
        last. It is reported so that the connection can count it, and stop reading while answers
        are not taken. Nothing is read beyond what is returned but what one receive brought.

        Raises:
            PeerClosedError: The closing handshake began or the framing broke (1002, 1007, 1009).
            TransportBrokenError: The connection is gone.
        Cancellation: safe between messages; a fragmented message may be lost, so only a
            connection that is closing cancels this.
        """

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; idempotent."""


@attrs.frozen
class ObservedTopic:
    """What one statement saw of a topic, with the journal row at the asked seq."""

    observation: Observation
    cursor_row: CursorRow | None


class JournalUnavailableError(Exception):
    """No answer from the journal. Retry is safe; no cursor is judged by this.

    Attributes:
        retry_after_s: How long a caller should wait at least.
    """

    def __init__(self, retry_after_s: float) -> None:
        """Remember the advice."""
        super().__init__(f"journal unavailable, retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


class JournalReader(Protocol):
    """Reads of the authority's journal. Every method may raise ``JournalUnavailableError``."""

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return, in the order asked, each topic and its journal row at ``seq``.

        All of it is seen by one statement. A seq of 0 or below, or above the head, has no row.
        """

    async def read_heads(
        self, topics: Sequence[TopicName], known: Sequence[Observation | None] = ()
    ) -> list[Observation]:
        """Return, in the order asked, each topic; on the connection reserved for this.

        Args:
            topics: Any number.
            known: What is known of each, or nothing at all. Where nothing has changed the known one may be returned:
                thousands of new ones twice a second are what a garbage collector walks through.
        """

    async def read_page(self, topic: TopicName, after_seq: int) -> Page:
        """Return the retained frames after ``after_seq``, bounded in frames and bytes.

        The page starts at ``after_seq + 1`` unless that frame is no longer retained or not yet
        written; then it is empty and its observation says which.
        """


class TokenRefusedError(Exception):
    """A sync token that opens nothing.

    Attributes:
        reason: token_invalid, token_expired, ...
        cause: Lower-case words for the audit log, never for the client.
    """

    def __init__(self, reason: ReasonCode, cause: str) -> None:
        """Keep both."""
        super().__init__(f"{reason.name}: {cause}")
        self.reason = reason
        self.cause = cause


class TokenVerifier(Protocol):
    """Checks the signature and the claims of a sync token."""

    async def verify(self, token: str) -> SyncClaims:
        """Return the claims of a valid token.

        Raises:
            TokenRefusedError: It is not valid now, or was never ours.
            ControlUnavailableError: Control's keys cannot be had.
        """


class ControlUnavailableError(Exception):
    """Control does not answer. The token is unspent.

    Attributes:
        retry_after_s: How long the client should wait at least.
    """

    def __init__(self, retry_after_s: float) -> None:
        """Remember the advice."""
        super().__init__(f"control unavailable, retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


class AuditRefusedError(Exception):
    """Control will never take this batch of audit events; sending it again is useless."""


class ControlClient(Protocol):
    """Calls from the node to control."""

    async def redeem(self, claims: SyncClaims, connection_id: str) -> ReasonCode | None:
        """Spend the token for this connection; None means it is ours.

        Idempotent per (token, connection). Concurrent calls travel together.

        Returns:
            token_replayed or reauth_required if it is not.

        Raises:
            ControlUnavailableError: No answer; the same call may be repeated.
        """
