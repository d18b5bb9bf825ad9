"""A port that somebody else has: how a drill keeps a server away that its supervisor starts again."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_answering", "taken_port"]

HOST: Final = "127.0.0.1"
_CONNECT_TIMEOUT_S: Final = 1.0


@contextmanager
def taken_port(port: int) -> Iterator[None]:
    """Listen on the port for a block; whoever connects is hung up on at once.

    Raises:
        OSError: A server listens there.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
        thread = threading.Thread(target=_hang_up_on_everybody, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            # Closing alone would leave the thread waiting in accept.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def is_answering(port: int) -> bool:
    """Whether a server on the port says something to whoever connects, as a NATS server does."""
    with suppress(OSError), socket.create_connection((HOST, port), _CONNECT_TIMEOUT_S) as connection:
        return bool(connection.recv(1))
    return False


def _hang_up_on_everybody(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.close()
