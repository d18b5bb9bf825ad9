"""The client's sockets, with a note of how each ended: code, and whether the reason came before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_client.ring.ports import SocketEnded
from khala_client.trio.loop import TrioLoop
from khala_contracts import codec
from khala_contracts.codec import ErrorMessage, GoAway, WireError

if TYPE_CHECKING:
    import ssl

    from anyio.abc import TaskGroup

    from chaos.sim.gates import PortGate
    from khala_client.ring.ports import SyncSocket
    from khala_client.trio.websocket import StreamOpener

__all__ = ["NotingLoop", "SeenClose"]

# Field 1 of ServerMessage, length-delimited: frames. Everything else is one control message.
_FRAMES_TAG: Final = b"\x0a"


@attrs.frozen
class SeenClose:
    """The end of one connection as its client saw it; see chaos.transcripts.CloseLine."""

    client: str
    connection: int
    code: int | None
    at_s: float
    error: str | None
    has_go_away: bool
    is_by_client: bool


class _NotingSocket:
    """A SyncSocket that remembers the last words of its peer."""

    def __init__(self, socket: SyncSocket, number: int, gate: PortGate, seen: list[SeenClose]) -> None:
        self._socket = socket
        self._number = number
        self._gate = gate
        self._seen = seen
        self._error: str | None = None
        self._has_go_away = False
        self._is_by_client = True

    @property
    def close_code(self) -> int | None:
        """See SyncSocket.close_code."""
        return self._socket.close_code

    async def receive(self) -> bytes:
        """See SyncSocket.receive."""
        try:
            data = await self._socket.receive()
        except SocketEnded:
            self._is_by_client = False
            raise
        if not data.startswith(_FRAMES_TAG):
            self._note(data)
        return data

    def _note(self, data: bytes) -> None:
        try:
            message = codec.decode_server_message_untrusted(data)
        except WireError:
            return
        if isinstance(message, ErrorMessage) and not message.topic:
            self._error = message.code
        elif isinstance(message, GoAway):
            self._has_go_away = True

    async def send(self, data: bytes) -> None:
        """See SyncSocket.send."""
        await self._socket.send(data)

    async def ping(self) -> None:
        """See SyncSocket.ping."""
        await self._socket.ping()

    async def close(self, code: int, reason: str) -> None:
        """See SyncSocket.close."""
        try:
            await self._socket.close(code, reason)
        finally:
            self._note_close()

    def _note_close(self) -> None:
        gate = self._gate
        if gate.is_severed:
            return
        close = SeenClose(
            gate.place,
            self._number,
            self.close_code,
            trio.current_time(),
            self._error,
            self._has_go_away,
            self._is_by_client,
        )
        self._seen.append(close)
        gate.note(gate.name, "socket ended", number=self._number, code=close.code, error=close.error)


class NotingLoop(TrioLoop):
    """The trio loop of one client, over simulated streams."""

    def __init__(self, *, opener: StreamOpener, gate: PortGate, seen: list[SeenClose]) -> None:
        """Add to ``seen`` how each connection ended."""
        super().__init__(opener=opener)
        self._gate = gate
        self._seen = seen
        self._count = 0

    async def connect(self, tasks: TaskGroup, url: str, *, ssl_context: ssl.SSLContext | None) -> SyncSocket:
        """See EventLoop.connect."""
        socket = await super().connect(tasks, url, ssl_context=ssl_context)
        self._count += 1
        return _NotingSocket(socket, self._count, self._gate, self._seen)
