"""TLS over a TCP socket as ByteTransport: the engine's non-blocking sends, encrypted.

OpenSSL works on two byte buffers in memory; what it makes is handed to the kernel at once. The handshake
happens in the first ``receive_some``, under whatever deadline its caller has.

Invariants (tests/actors/khala/test_tls_transport.py):
    plain bytes are reported as taken only once the kernel has every encrypted byte of them, so that whoever
    was told "all taken" needs nobody to come back for the rest;
    encrypted bytes that wait are those of one TLS record, and short messages of TLS itself: bounded.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from khala.ports import TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala.ports import ByteTransport

__all__ = ["TlsTransport"]

# The most that one TLS record carries (RFC 8446 section 5.1).
RECORD_MAX_BYTES: Final = 16 * 1024
# One record and its overhead, or what TLS says by itself. More: the client makes us answer and reads nothing.
PENDING_MAX_BYTES: Final = 64 * 1024
_RECEIVE_BYTES: Final = 64 * 1024


class TlsTransport:
    """One TLS connection over a transport in clear, whose owner it becomes."""

    def __init__(self, wire: ByteTransport, context: ssl.SSLContext) -> None:
        """Serve TLS on ``wire``; nothing is sent yet."""
        self._wire = wire
        self.remote_address = wire.remote_address
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False
        self._is_aborted = False
        # Encrypted bytes that the kernel has not taken.
        self._pending = memoryview(b"")
        # Plain bytes of the record in _pending: encrypted already, not reported as taken.
        # Invariant: the next try_send begins with them, as it does for every ByteTransport.
        self._unreported_bytes = 0

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """See ByteTransport."""
        return self.try_send

    def try_send(self, data: bytes | memoryview) -> int:
        """Encrypt and send as much as the kernel takes now; see ByteTransport."""
        if self._is_aborted:
            raise TransportBrokenError
        if not self._is_open or not self._flush():
            return 0
        taken, self._unreported_bytes = self._unreported_bytes, 0
        plain = memoryview(data)
        assert taken <= len(plain), "what was not taken is offered again"
        while taken < len(plain):
            record = plain[taken : taken + RECORD_MAX_BYTES]
            try:
                written = self._tls.write(record)
            except ssl.SSLError as exc:
                raise TransportBrokenError from exc
            if not self._flush():
                self._unreported_bytes = written
                break
            taken += written
        return taken

    async def wait_writable(self) -> None:
        """Wait for room in the kernel's buffer; see ByteTransport."""
        await self._wire.wait_writable()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Receive what has arrived, shaking hands first; see ByteTransport."""
        if not self._is_open:
            await self._shake_hands()
        # Whatever is buffered or over already: a client that says much, or nothing more, holds no loop.
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                # What TLS answers by itself (new keys, alerts) goes with the next bytes at the latest.
                self._flush()
            except ssl.SSLEOFError:
                return b""
            except ssl.SSLError as exc:
                raise TransportBrokenError from exc
            await self._take_in()

    def abort(self) -> None:
        """Say that nothing follows, if that can be said at once, and close the socket."""
        if self._is_aborted:
            return
        if self._is_open:
            with suppress(ssl.SSLError, OSError, ValueError):
                self._tls.unwrap()  # would wait for the client's own end, which nobody needs
            with suppress(TransportBrokenError):
                self._flush()
        self._is_aborted = True
        self._wire.abort()

    async def _shake_hands(self) -> None:
        while True:
            is_over = False
            try:
                self._tls.do_handshake()
                is_over = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as exc:
                # The client is told why by an alert, if the kernel takes it.
                self._flush()
                raise TransportBrokenError from exc
            while not self._flush():
                await self._wire.wait_writable()
            if is_over:
                self._is_open = True
                return
            await self._take_in()

    async def _take_in(self) -> None:
        received = await self._wire.receive_some(_RECEIVE_BYTES)
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()

    def _flush(self) -> bool:
        """Hand the kernel what is encrypted; return whether it took all of it."""
        if self._outgoing.pending:
            self._pending = memoryview(bytes(self._pending) + self._outgoing.read())
            if len(self._pending) > PENDING_MAX_BYTES:
                raise TransportBrokenError
        while self._pending:
            sent = self._wire.try_send(self._pending)
            if sent == 0:
                return False
            self._pending = self._pending[sent:]
        return True
