"""The stream that ``trio_websocket`` takes for the network; see websocket_trio.py for what it puts right.

Reading, it waits until something is wanted, and hands on pieces of one frame each (core/inbound_frames.py).
Writing goes to the connection's control lane and never waits: the lane has an owner who writes it out.

Invariants (tests/actors/khala/test_websocket_peers.py):
    at most one frame is handed on for each ``want_frame``;
    nothing is emitted after a close frame, and the one that ends the stream is emitted when the end is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala.core.inbound_frames import InboundFrames, MessageTooBigError
from khala.core.websocket_frames import frame_close
from khala.ports import TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala.ports import ByteTransport

__all__ = ["PeerStream"]

# One read takes at most this. A client's messages are small; larger would only hold memory.
RECEIVE_BYTES: Final = 16 * 1024
_FIRST_BYTE_OF_CLOSE: Final = 0x88
_PROTOCOL_ERROR: Final = 1002
_INVALID_TEXT: Final = 1007
_MESSAGE_TOO_BIG: Final = 1009
_FRAMING_ERRORS: Final = frozenset({_PROTOCOL_ERROR, _INVALID_TEXT, _MESSAGE_TOO_BIG})


class PeerStream(trio.abc.Stream):
    """One connection's transport for reading, its control lane for writing."""

    def __init__(
        self,
        transport: ByteTransport,
        emit: Callable[[bytes], None],
        *,
        message_max_bytes: int,
        heard_silent: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        """Read ``transport``, write to ``emit``.

        Args:
            transport: Read by one task, the library's.
            emit: Takes bytes for the control lane.
            message_max_bytes: Larger messages end the stream with a close of 1009.
            heard_silent: Called when the library has handled a ping, a pong or a fragment before the last.
            ended: Called when nothing follows: the client or the library is done.
        """
        self.is_broken = False
        # Close code that was sent because the client broke a rule of the framing.
        self.failed_with: int | None = None
        self._transport = transport
        self._emit = emit
        self._heard_silent = heard_silent
        self._ended = ended
        self._frames = InboundFrames(message_max_bytes)
        # The request is wanted from the start.
        self._is_wanted = True
        self._wanted: trio.Event | None = None
        # The frame that was handed on last is none that the library reports.
        self._is_silent = False
        # A close frame was emitted, or is the last word.
        self._has_closed = False
        # The library's close. It waits until the end is told to the engine: whoever sends to this client
        # until then must come before it.
        self._last_words = b""
        self._is_closed = False

    # -- what the adapter says ---------------------------------------------------------------------

    def want_frame(self) -> None:
        """Hand on the next frame."""
        self._is_wanted = True
        if self._wanted is not None:
            self._wanted.set()
            self._wanted = None

    def say_close(self, code: int, reason: str = "") -> None:
        """Emit a close frame, unless there was one; nothing else is emitted after it."""
        if not self._has_closed:
            self._has_closed = True
            self._emit(frame_close(code, reason))

    def say_last_words(self) -> None:
        """Emit the close that ends the stream, if there is one and none was said before."""
        self._emit(self._last_words)
        self._last_words = b""

    def fail(self, code: int) -> None:
        """End with the close of a framing error, if the code is one and the close was not said yet."""
        if code in _FRAMING_ERRORS and not self._has_closed:
            self._has_closed = True
            self.failed_with = code
            self._last_words = frame_close(code)

    # -- what the library sees: trio.abc.Stream ---------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Emit one frame or an HTTP answer; never waits for the client."""
        await trio.lowlevel.checkpoint()
        if self._has_closed:
            return
        if data[0] == _FIRST_BYTE_OF_CLOSE:
            self._has_closed = True
            self._last_words = bytes(data)
        else:
            self._emit(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Return: the control lane takes whatever the library says."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next piece once something is wanted, ``b""`` at the end of the stream.

        Raises:
            BrokenResourceError: The transport is broken.
            ClosedResourceError: The library has closed the stream.
        Cancellation: safe; nothing is consumed.
        """
        del max_bytes  # a piece is at most one read and the head of a frame
        await trio.lowlevel.checkpoint()
        if self._is_silent:
            # Whoever reads on has answered it.
            self._is_silent = False
            self._heard_silent()
        while not self._is_wanted:
            self._wanted = trio.Event()
            await self._wanted.wait()
        if self._is_closed:
            raise trio.ClosedResourceError
        try:
            return await self._next_piece()
        except MessageTooBigError:
            self.fail(_MESSAGE_TOO_BIG)
            return b""

    async def aclose(self) -> None:
        """Give the library's last word; the connection's owner closes the socket."""
        if not self._is_closed:
            self._is_closed = True
            self._ended()
        await trio.lowlevel.checkpoint()

    async def _next_piece(self) -> bytes:
        while True:
            piece = self._frames.take()
            if piece is not None:
                if piece.ends_frame:
                    self._is_wanted = False
                    self._is_silent = piece.is_silent
                return piece.data
            try:
                data = await self._transport.receive_some(RECEIVE_BYTES)
            except TransportBrokenError:
                self.is_broken = True
                self._ended()
                raise trio.BrokenResourceError from None
            if not data:
                self._ended()
                return b""
            self._frames.feed(data)
