"""TCP sockets as ByteTransport: non-blocking sends on the standard library's socket.

trio waits for the descriptor, and is told before it is closed; sending and receiving go straight to the
socket. An object of trio's for each connection, and the frames of its coroutines below every reader that
waits, would be a tenth of what an idle connection costs.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from khala.adapters.tls_sockets import TlsTransport
from khala.ports import TransportBrokenError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from khala.ports import ByteTransport

LISTEN_BACKLOG: Final = 1024
# After EMFILE and the like: accepting again at once would spin. Clients wait in the backlog.
_ACCEPT_PAUSE_S: Final = 0.1
# Clients accepted before others get a turn. More: a storm holds up everybody's frames. Fewer: it costs more turns.
_ACCEPTS_PER_TURN: Final = 16


class SocketTransport:
    """One connected TCP socket."""

    __slots__ = ("_is_aborted", "_socket", "remote_address")

    def __init__(self, connected: socket.socket, *, send_buffer_bytes: int, remote_address: str = "") -> None:
        """Take over a connected socket and bound its kernel send buffer."""
        self.remote_address = remote_address
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Linux doubles the value, for its own bookkeeping (socket(7)): about this much data fits.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        self._socket = connected
        self._is_aborted = False

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """See ByteTransport."""
        return self._socket.send

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes now; see ByteTransport."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            raise TransportBrokenError from exc

    async def wait_writable(self) -> None:
        """Wait for room in the kernel's buffer; see ByteTransport."""
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except (trio.ClosedResourceError, OSError, ValueError) as exc:
            raise TransportBrokenError from exc

    async def receive_some(self, max_bytes: int) -> bytes:
        """Receive what has arrived; see ByteTransport."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            try:
                received = self._socket.recv(max_bytes)
            except (BlockingIOError, InterruptedError):
                pass
            else:
                # A client that always has something to say must leave others their turn.
                await trio.lowlevel.cancel_shielded_checkpoint()
                return received
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    return self._socket.recv(max_bytes)
                except (BlockingIOError, InterruptedError):
                    continue
        except (trio.ClosedResourceError, OSError, ValueError) as exc:
            raise TransportBrokenError from exc

    def abort(self) -> None:
        """Close the descriptor; what the kernel still holds is sent by it."""
        if not self._is_aborted:
            self._is_aborted = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class SocketAcceptor:
    """A listening TCP socket."""

    def __init__(
        self, listening: socket.socket, *, send_buffer_bytes: int, tls: ssl.SSLContext | None = None
    ) -> None:
        """Take over a bound, listening socket."""
        listening.setblocking(False)
        self._socket = listening
        # Of the clients that are accepted from now on.
        self.send_buffer_bytes = send_buffer_bytes
        self._tls = tls
        # Clients that we tried to accept since others had their turn.
        self._in_a_row = 0

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    async def accept(self) -> ByteTransport:
        """Return the next connected client; see Acceptor."""
        # A storm's clients wait in the backlog: a turn of the loop for each would cost more than to refuse it.
        while self._in_a_row < _ACCEPTS_PER_TURN:
            self._in_a_row += 1
            try:
                return self._accept_nowait()
            except ConnectionAbortedError:
                continue
            except OSError:
                break
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            self._in_a_row = 1
            try:
                return self._accept_nowait()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError:
                await trio.sleep(_ACCEPT_PAUSE_S)

    def _accept_nowait(self) -> ByteTransport:
        """Raises BlockingIOError if nobody waits, ConnectionAbortedError if who waited has gone, OSError for trouble."""
        connected, address = self._socket.accept()
        transport = SocketTransport(
            connected, send_buffer_bytes=self.send_buffer_bytes, remote_address=str(address[0])
        )
        return transport if self._tls is None else TlsTransport(transport, self._tls)

    def stop(self) -> list[ByteTransport]:
        """Accept whom the kernel has connected already, then stop listening; see Acceptor."""
        waiting: list[ByteTransport] = []
        while True:
            try:
                waiting.append(self._accept_nowait())
            except ConnectionAbortedError:
                continue
            except OSError:
                break
        self.close()
        return waiting

    def close(self) -> None:
        """Stop listening; whoever waits in the backlog is dropped. Idempotent."""
        self._socket.close()


def open_acceptor(
    host: str,
    port: int,
    *,
    send_buffer_bytes: int,
    tls: ssl.SSLContext | None = None,
    is_port_shared: bool = False,
) -> SocketAcceptor:
    """Listen on ``host:port``; port 0 takes a free one.

    Args:
        host: Address or name.
        port: 0..65535.
        send_buffer_bytes: Bound of each connection's buffer in the kernel.
        tls: Clients speak TLS with this; None: in clear.
        is_port_shared: Others of the same user that say so too may listen there. Linux spreads connections over
            them by the client's address and port; macOS gives all of them to the one that listened last.

    Raises:
        OSError: The address cannot be bound; its errno says why.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_port_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return SocketAcceptor(listening, send_buffer_bytes=send_buffer_bytes, tls=tls)
