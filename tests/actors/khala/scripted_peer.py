"""The client's side of a WebSocket as a script: what it says, when it pings, how it leaves.

Implements ``WebSocketPeer`` without any parsing; what the library would emit (101, pong, close) is
emitted in real bytes, so that a transcript of the socket can be parsed as a whole.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from khala.core.origin_policy import UpgradeRequest
from khala.ports import PeerClosedError, TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable

SYNC_REQUEST = UpgradeRequest("/sync/v1/ws", "", None, ("khala.v1",))


def close_frame(code: int) -> bytes:
    """Return an unmasked close frame."""
    return bytes((0x88, 2)) + code.to_bytes(2, "big")


def pong_frame(payload: bytes) -> bytes:
    """Return an unmasked pong."""
    return bytes((0x8A, len(payload))) + payload


@attrs.frozen
class _Ping:
    payload: bytes


@attrs.frozen
class _Ends:
    """The client closes, or the library finds its framing broken; both are answered by a close."""

    code: int


@attrs.frozen
class _Vanishes:
    """The socket breaks."""


@attrs.define(eq=False)
class ScriptedPeer:
    """Everything that the client will do, in order; ``receive_message`` waits for more of it."""

    emit: Callable[[bytes], None]
    request: UpgradeRequest | None = SYNC_REQUEST
    # Whether the client answers a close; otherwise it only goes on talking.
    answers_close: bool = True
    accepted: str | None = attrs.field(default=None, init=False)
    rejected: tuple[int, str] | None = attrs.field(default=None, init=False)
    closed: tuple[int, str] | None = attrs.field(default=None, init=False)
    messages_read: int = attrs.field(default=0, init=False)
    _script: deque[bytes | str | _Ping | _Ends | _Vanishes] = attrs.field(factory=deque, init=False)
    _more: trio.Event = attrs.field(factory=trio.Event, init=False)

    # -- the script ------------------------------------------------------------------------------

    def say(self, message: bytes | str) -> None:
        """Send a message: bytes binary, str text."""
        self._add(message)

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping."""
        self._add(_Ping(payload))

    def leave(self, code: int = 1000) -> None:
        """Close in good order, or break the framing with the code that the library finds."""
        self._add(_Ends(code))

    def vanish(self) -> None:
        """Lose the connection without a close."""
        self._add(_Vanishes())

    def _add(self, item: bytes | str | _Ping | _Ends | _Vanishes) -> None:
        self._script.append(item)
        self._more.set()

    # -- WebSocketPeer -------------------------------------------------------------------------------

    async def receive_request(self) -> UpgradeRequest:
        """Return the request, or wait for ever if there is none."""
        await trio.lowlevel.checkpoint()
        if self.request is None:
            await trio.sleep_forever()
        assert self.request is not None
        return self.request

    async def accept(self, subprotocol: str) -> None:
        """Upgrade."""
        self.accepted = subprotocol
        self.emit(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    async def reject(self, status: int, text: str) -> None:
        """Refuse the upgrade."""
        self.rejected = (status, text)
        self.emit(b"HTTP/1.1 %d Refused\r\n\r\n" % status)

    async def receive_message(self) -> bytes | str | None:
        """Return the next thing that the client says."""
        await trio.lowlevel.checkpoint()
        while not self._script:
            self._more = trio.Event()
            await self._more.wait()
        item = self._script.popleft()
        self.messages_read += 1
        match item:
            case _Ping(payload):
                self.emit(pong_frame(payload))
                return None
            case _Ends(code):
                self._emit_close(code)
                raise PeerClosedError(code)
            case _Vanishes():
                raise TransportBrokenError
            case _:
                return item

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; the scripted client answers it like any other."""
        if self.closed is None:
            self._emit_close(code)
            self.closed = (code, reason)
            if self.answers_close:
                self.leave(code)

    def _emit_close(self, code: int) -> None:
        if self.closed is None:
            self.closed = (code, "")
            self.emit(close_frame(code))
