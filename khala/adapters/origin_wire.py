"""The end of HTTP on a connection: bytes of a WebSocket carried both ways, and a last answer that arrives.

Invariants:
1. A wire holds at most one piece (PIECE_MAX_BYTES) in each direction: the slower end sets the pace.
2. The end of one direction is passed on as such; the other one has ``linger_s`` to say its last words.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from khala.adapters.origin_upstreams import PIECE_MAX_BYTES

if TYPE_CHECKING:
    from trio.abc import Stream

__all__ = ["AnyStream", "carry_both_ways", "linger", "wire_of"]

# What clients connect by: in clear, or TLS over the same.
AnyStream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"

# What a client may still be sending when it has been answered; more is reset.
LINGER_MAX_BYTES: Final = 1024 * 1024
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


async def carry_both_ways(client: Stream, service: Stream, *, linger_s: float) -> None:
    """Carry bytes between the two until both directions have ended.

    No deadline while both are open: a WebSocket may be quiet, and its ends have heartbeats. Closing the
    streams is the caller's.

    Cancellation: safe; what is under way is lost.
    """
    async with trio.open_nursery() as nursery:
        wire = nursery.cancel_scope
        nursery.start_soon(_carry, client, service, wire, linger_s)
        nursery.start_soon(_carry, service, client, wire, linger_s)


async def _carry(source: Stream, sink: Stream, wire: trio.CancelScope, linger_s: float) -> None:
    is_taken = True
    with suppress(*_GONE):
        while piece := await source.receive_some(PIECE_MAX_BYTES):
            # A sink that is gone may have said its last words, which the source is still to read: it is
            # read from, so that closing it is no reset.
            if is_taken and not await _try_send_all(sink, piece):
                is_taken = False
                _end_after(wire, linger_s)
    with suppress(*_GONE):
        await _send_eof(sink)
    _end_after(wire, linger_s)


async def _try_send_all(sink: Stream, piece: bytes | bytearray) -> bool:
    try:
        await sink.send_all(piece)
    except _GONE:
        return False
    return True


def _end_after(wire: trio.CancelScope, linger_s: float) -> None:
    wire.deadline = min(wire.deadline, trio.current_time() + linger_s)


async def linger(client: Stream, *, linger_s: float) -> None:
    """End our direction and read the client's for a moment, so that it gets to read what we said.

    A socket that is closed while bytes lie unread in it is reset, and the reset overtakes the answer.
    """
    left = LINGER_MAX_BYTES
    with trio.move_on_after(linger_s), suppress(*_GONE):
        await _send_eof(client)
        while left > 0 and (piece := await client.receive_some(PIECE_MAX_BYTES)):
            left -= len(piece)


async def _send_eof(stream: Stream) -> None:
    # TLS has no half-close; there the end is seen when the connection is closed.
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()


def wire_of(stream: AnyStream) -> trio.SocketStream:
    """Return the socket below a client's stream."""
    return stream if isinstance(stream, trio.SocketStream) else stream.transport_stream
