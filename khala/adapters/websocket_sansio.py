"""The default WebSocket adapter: ``websockets.server.ServerProtocol``, which does no I/O itself.

It parses requests and frames, answers pings and the close, and finds the right close code for
broken framing (1002, 1007, 1009). What it wants sent goes to the connection's control lane. The
node's own messages never pass through it.
"""

from __future__ import annotations

from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from websockets.exceptions import ProtocolError
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from khala.core.origin_policy import UpgradeRequest
from khala.ports import PeerClosedError
from khala_service.client_address import TrustedProxies
from khala_service.request_context import REQUEST_ID_HEADER, is_request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.http11 import Response
    from websockets.typing import Subprotocol

    from khala.ports import ByteTransport

# One read takes at most this. A client's messages are small; larger would only hold memory.
RECEIVE_BYTES: Final = 16 * 1024
NO_PROXIES: Final = TrustedProxies()


class SansIoPeer:
    """The server side of one WebSocket; see WebSocketPeer."""

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
        self._chosen: Subprotocol | None = None

        # A plain function: the library binds what it is given to itself.
        def choose(_protocol: ServerProtocol, _offered: Sequence[Subprotocol]) -> Subprotocol | None:
            return self._chosen

        self._protocol = ServerProtocol(select_subprotocol=choose, max_size=message_max_bytes)
        self._request: Request | None = None
        self._events: deque[Frame] = deque()
        self._fragments: list[bytes] = []
        self._is_text = False

    async def receive_request(self) -> UpgradeRequest:
        """Read the upgrade request; see WebSocketPeer."""
        while self._request is None:
            is_open = await self._receive()
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    self._request = event
                elif isinstance(event, Frame):
                    self._events.append(event)
            # The library is told of the end, and would be told again and again: a client that only closes its
            # side before it asked for anything must not cost us a loop until the hello deadline.
            if self._request is None and (not is_open or self._protocol.close_expected()):
                raise PeerClosedError(CloseCode.ABNORMAL_CLOSURE)
        request = self._request
        url = urlsplit(request.path)
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        origins = request.headers.get_all("Origin")
        return UpgradeRequest(
            path=url.path,
            query=url.query,
            origin=", ".join(origins) if origins else None,
            subprotocols=tuple(part.strip() for part in offered.split(",") if part.strip()),
            client_address=self._proxies.client_address(
                self._transport.remote_address, request.headers.get_all("X-Forwarded-For")
            ),
            request_id=_request_id_of(request),
        )

    def accept(self, subprotocol: str) -> None:
        """Upgrade with this subprotocol, or refuse what is no WebSocket request."""
        assert self._request is not None
        self._chosen = subprotocol  # type: ignore[assignment]
        self._respond(self._protocol.accept(self._request))

    def reject(self, status: int, text: str) -> None:
        """Refuse the upgrade."""
        self._respond(self._protocol.reject(HTTPStatus(status), text + "\n"))

    def _respond(self, response: Response) -> None:
        self._protocol.send_response(response)
        self._flush()

    async def receive_message(self) -> bytes | str | None:
        """Return the next message; see WebSocketPeer."""
        while True:
            while self._events:
                frame = self._events.popleft()
                if frame.opcode in DATA_OPCODES:
                    message = self._assemble(frame)
                    if message is not None:
                        return message
                elif frame.opcode is not Opcode.CLOSE:
                    return None
            if self._protocol.state is not OPEN:
                raise PeerClosedError(self._protocol.close_code or CloseCode.ABNORMAL_CLOSURE)
            await self._receive()
            self._events.extend(
                event for event in self._protocol.events_received() if isinstance(event, Frame)
            )

    def _assemble(self, frame: Frame) -> bytes | str | None:
        """Join fragments; the library has checked their order and their size together."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return None
        data = b"".join(self._fragments)
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
        """Take in what has arrived; return whether more may come."""
        data = await self._transport.receive_some(RECEIVE_BYTES)
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._flush()
        return bool(data)

    def _flush(self) -> None:
        # The empty bytestring asks for a half-close; closing the descriptor does that for us.
        for wire in self._protocol.data_to_send():
            self._emit(wire)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; see WebSocketPeer."""
        if self._protocol.state is OPEN:
            try:
                self._protocol.send_close(code, reason)
            except ProtocolError:
                self._protocol.fail(CloseCode.INTERNAL_ERROR)
            self._flush()


def _request_id_of(request: Request) -> str:
    given = request.headers.get_all(REQUEST_ID_HEADER)
    return given[0] if len(given) == 1 and is_request_id(given[0]) else ""
