"""The default WebSocket adapter: ``websockets.server.ServerProtocol``, which does no I/O itself.

It parses requests and frames, answers pings and the close, and finds the right close code for
broken framing (1002, 1007, 1009). What it wants sent goes to the connection's control lane. The
node's own messages never pass through it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from websockets.exceptions import ProtocolError
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol

from khala.adapters.upgrade_requests import BAD_REQUEST, read_upgrade_request
from khala.core.inbound_frames import OPCODE_CLOSE, InboundFrames, MessageTooBigError
from khala.ports import PeerClosedError
from khala_service.client_address import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.http11 import Response
    from websockets.typing import Subprotocol

    from khala.core.origin_policy import UpgradeRequest
    from khala.ports import ByteTransport

# One read takes at most this. A client's messages are small; larger would only hold memory.
RECEIVE_BYTES: Final = 16 * 1024
_FIRST_BYTE_OF_CLOSE: Final = 0x88
# Empty, final, masked with zeros.
_LAST_FRAGMENT: Final = b"\x80\x80\x00\x00\x00\x00"
NO_PROXIES: Final = TrustedProxies()


class _Handshake(ServerProtocol):
    """The library's server until the upgrade, which chooses the subprotocol that it is told."""

    chosen: Subprotocol | None = None

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        return self.chosen


class SansIoPeer:
    """The server side of one WebSocket; see WebSocketPeer."""

    __slots__ = (
        "_emit",
        "_fragments",
        "_frames",
        "_handshake",
        "_has_closed",
        "_has_emitted",
        "_is_over",
        "_is_text",
        "_protocol",
        "_proxies",
        "_received",
        "_request",
        "_transport",
    )

    def __init__(
        self,
        transport: ByteTransport,
        emit: Callable[[bytes], None],
        *,
        message_max_bytes: int,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        """Read from ``transport``; put what must be sent into ``emit``; believe ``proxies`` about clients."""
        self._transport = transport
        self._proxies = proxies
        self._emit = emit
        # Both are gone after the upgrade: the library's server keeps the request and its parser's frames for as
        # long as it lives, a fifth of what an idle connection may cost.
        self._handshake: _Handshake | None = _Handshake(max_size=message_max_bytes)
        self._request: Request | None = None
        self._protocol: Protocol = self._handshake
        # The library is given one frame at a time: it answers a close at once, and what we
        # answer to the messages before must have been said by then.
        self._frames = InboundFrames(message_max_bytes)
        self._received: Frame | None = None
        self._fragments = bytearray()
        self._is_text = False
        # Nothing more is expected of the client: it has closed, or what it sent was no WebSocket.
        self._is_over = False
        self._has_emitted = False
        self._has_closed = False

    async def receive_request(self) -> UpgradeRequest:
        """Read the upgrade request; see WebSocketPeer."""
        while True:
            is_open = await self._receive()
            request = self._request
            if request is not None:
                break
            # The library is told of the end, and would be told again and again: a client that only closes its
            # side before it asked for anything must not cost us a loop until the hello deadline.
            if not is_open or self._is_over:
                if is_open and not self._has_emitted:
                    # The library answers some of what it cannot read, not all of it.
                    self._emit(BAD_REQUEST)
                raise PeerClosedError(CloseCode.ABNORMAL_CLOSURE)
        return read_upgrade_request(
            request.path,
            ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(","),
            request.headers.get_all,
            remote_address=self._transport.remote_address,
            proxies=self._proxies,
        )

    async def accept(self, subprotocol: str) -> None:
        """Upgrade with this subprotocol, or refuse what is no WebSocket request."""
        assert self._handshake is not None
        assert self._request is not None
        self._handshake.chosen = subprotocol  # type: ignore[assignment]
        self._respond(self._handshake, self._handshake.accept(self._request))
        if self._handshake.state is OPEN:
            self._protocol = Protocol(SERVER, max_size=self._handshake.max_message_size)
        self._handshake = self._request = None

    async def reject(self, status: int, text: str) -> None:
        """Refuse the upgrade."""
        assert self._handshake is not None
        self._respond(self._handshake, self._handshake.reject(HTTPStatus(status), text + "\n"))

    def _respond(self, handshake: _Handshake, response: Response) -> None:
        handshake.send_response(response)
        self._flush()

    async def receive_message(self) -> bytes | str | None:
        """Return the next message; see WebSocketPeer."""
        while not self._is_over:
            await self._receive()
            frame, self._received = self._received, None
            if frame is None or frame.opcode is Opcode.CLOSE:
                continue
            return self._assemble(frame) if frame.opcode in DATA_OPCODES else None
        raise PeerClosedError(self._end_code())

    def _end_code(self) -> int:
        """Code of the client's close, else of ours if its framing was broken."""
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        ended_by = received or sent
        return ended_by.code if ended_by is not None else CloseCode.ABNORMAL_CLOSURE

    def _assemble(self, frame: Frame) -> bytes | str | None:
        """Join fragments; the library has checked their order and their size together."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments += frame.data
        if not frame.fin:
            return None
        data = bytes(self._fragments)
        self._fragments.clear()
        if not self._is_text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA)
            self._flush()
            raise PeerClosedError(CloseCode.INVALID_DATA) from None

    async def _receive(self) -> bool:
        """Give the library the next piece; return whether more may come."""
        piece = await self._next_piece()
        if piece:
            self._protocol.receive_data(piece)
        else:
            self._protocol.receive_eof()
            self._is_over = True
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._request = event
            elif isinstance(event, Frame):
                self._received = event
        self._flush()
        return bool(piece)

    async def _next_piece(self) -> bytes:
        while True:
            try:
                piece = self._frames.take()
            except MessageTooBigError:
                self._protocol.fail(CloseCode.MESSAGE_TOO_BIG)
                self._flush()
                raise PeerClosedError(CloseCode.MESSAGE_TOO_BIG) from None
            if piece is not None:
                if piece.opcode == OPCODE_CLOSE and self._frames.is_in_message:
                    self._end_message()
                return piece.data
            data = await self._transport.receive_some(RECEIVE_BYTES)
            if not data:
                return b""
            self._frames.feed(data)

    def _end_message(self) -> None:
        """Let the library believe that a message is complete: to it, a close before would be an error (RFC 6455, 5.4)."""
        self._frames.forget_message()
        self._protocol.receive_data(_LAST_FRAGMENT)
        self._protocol.events_received()

    def _flush(self) -> None:
        for wire in self._protocol.data_to_send():
            if wire and not self._has_closed:
                self._has_emitted = True
                # It would go on answering pings behind its own close.
                self._has_closed = wire[0] == _FIRST_BYTE_OF_CLOSE
                self._emit(wire)
            elif not wire:
                # It asks for a half-close; closing the descriptor does that for us.
                self._is_over = True

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; see WebSocketPeer."""
        if self._protocol.state is OPEN:
            try:
                self._protocol.send_close(code, reason)
            except ProtocolError:
                self._protocol.fail(CloseCode.INTERNAL_ERROR)
            self._flush()
