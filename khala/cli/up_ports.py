"""The ports of ``khala up``: one block above ``--port-base``, tried before anything is started."""

from __future__ import annotations

import errno
import socket
from typing import Final, Self

import attrs

from khala.cli.failures import EXIT_REFUSED, CommandFailed

__all__ = ["PORT_BASE", "UpPorts", "choose_ports"]

HOST: Final = "127.0.0.1"
# The default; the base itself is kept for the one origin of all services.
PORT_BASE: Final = 8470
_BLOCK: Final = 5
_TRIES: Final = 50


@attrs.frozen
class UpPorts:
    """The block of one ``khala up``."""

    base: int

    @property
    def control(self) -> int:
        """Port of control."""
        return self.base + 1

    @property
    def runtime(self) -> int:
        """Port of the runtime."""
        return self.base + 2

    @property
    def node(self) -> int:
        """Port of the node's WebSocket listener."""
        return self.base + 3

    @property
    def admin(self) -> int:
        """Port of the node's health and metrics."""
        return self.base + 4

    @classmethod
    def taken_in(cls, base: int) -> list[tuple[str, int]]:
        """Return the names and ports of the block that cannot be bound now."""
        ports = cls(base)
        used = {"control": ports.control, "runtime": ports.runtime, "node": ports.node, "admin": ports.admin}
        return [(name, port) for name, port in used.items() if not is_free(port)]

    @classmethod
    def free(cls) -> Self:
        """Return a block that is free now.

        Raises:
            CommandFailed: Nothing was found.
        """
        for _ in range(_TRIES):
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                base: int = probe.getsockname()[1]
            if base + _BLOCK <= 65_535 and not cls.taken_in(base):
                return cls(base)
        raise CommandFailed("no five free ports in a row were found; name some with --port-base")


def choose_ports(base: int) -> UpPorts:
    """Return the block above ``base``; 0 means any free one.

    Raises:
        CommandFailed: A port of it is taken; exit status 78.
    """
    if base == 0:
        return UpPorts.free()
    taken = UpPorts.taken_in(base)
    if taken:
        ports = ", ".join(f"{port} ({name})" for name, port in taken)
        one_or_more = "port" if len(taken) == 1 else "ports"
        raise CommandFailed(
            f"{one_or_more} {ports} of {HOST} cannot be used: something else listens there; "
            "choose another block with --port-base, or 0 for any free one",
            exit_status=EXIT_REFUSED,
        )
    return UpPorts(base)


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
