"""Ports for servers of our own that nobody is given in the meantime.

Kernels give outgoing connections ports of a range of their own (Linux from 32768, macOS from 49152 on). A
server that takes its port from there loses it to any connection that is made while it is being restarted,
for as long as that connection lives. So these are drawn below.
"""

from __future__ import annotations

import errno
import secrets
import socket
from typing import Final

__all__ = ["HOST", "draw_port", "is_free"]

HOST: Final = "127.0.0.1"
LOWEST: Final = 10_000
HIGHEST: Final = 32_000


def draw_port() -> int:
    """Return a random number below every range of outgoing connections; it may be in use."""
    return LOWEST + secrets.randbelow(HIGHEST - LOWEST)


def is_free(port: int) -> bool:
    """Return whether a listener could be opened on the port now."""
    with socket.socket() as probe:
        # As servers do it: a port in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
                return False
            raise
    return True
