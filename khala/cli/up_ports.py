"""The ports of ``khala up``: one block from ``--port-base`` on, tried before anything is started."""

from __future__ import annotations

from typing import Final, Self

import attrs

from khala.adapters.free_ports import HOST, draw_port, is_free
from khala.cli.failures import EXIT_REFUSED, CommandFailed

__all__ = ["HOST", "PORT_BASE", "UpPorts", "choose_ports"]

# The default.
PORT_BASE: Final = 8470
PORT_MAX: Final = 65_535
_TRIES: Final = 50


@attrs.frozen
class UpPorts:
    """The block of one ``khala up``: the one origin, control, runtime, two for each node, then the broker.

    Attributes:
        base: The first number: the one origin of all services.
        nodes: How many nodes there are.
        has_nats: Whether a NATS server takes one, too.
        is_shared: Whether all nodes listen on the first one's port.
    """

    base: int
    nodes: int = 1
    has_nats: bool = False
    is_shared: bool = False

    @property
    def origin(self) -> int:
        """Port at which everything is reached."""
        return self.base

    @property
    def control(self) -> int:
        """Port of control."""
        return self.base + 1

    @property
    def runtime(self) -> int:
        """Port of the runtime."""
        return self.base + 2

    def node(self, number: int = 1) -> int:
        """Port of a node's WebSocket listener; nodes count from 1."""
        return self.base + 1 + 2 * (1 if self.is_shared else number)

    def admin(self, number: int = 1) -> int:
        """Port of a node's health and metrics."""
        return self.base + 2 + 2 * number

    @property
    def nats(self) -> int:
        """Port of the NATS server."""
        return self.base + 3 + 2 * self.nodes

    @property
    def last(self) -> int:
        """The highest number of the block."""
        return self.nats if self.has_nats else self.admin(self.nodes)

    def taken(self) -> list[tuple[str, int]]:
        """Return the names and ports of the block that cannot be bound now."""
        used = {"origin": self.origin, "control": self.control, "runtime": self.runtime}
        for number in range(1, self.nodes + 1):
            suffix = "" if self.nodes == 1 else f"-{number}"
            if self.is_shared and number > 1:
                used |= {f"admin{suffix}": self.admin(number)}
                continue
            used |= {f"node{suffix}": self.node(number), f"admin{suffix}": self.admin(number)}
        if self.has_nats:
            used["nats"] = self.nats
        return [(name, port) for name, port in used.items() if not is_free(port)]

    @classmethod
    def free(cls, *, nodes: int = 1, has_nats: bool = False, is_shared: bool = False) -> Self:
        """Return a block that is free now.

        Raises:
            CommandFailed: Nothing was found.
        """
        for _ in range(_TRIES):
            ports = cls(draw_port(), nodes, has_nats, is_shared)
            if not ports.taken():
                return ports
        raise CommandFailed("not enough free ports in a row were found; name some with --port-base")


def choose_ports(base: int, *, nodes: int = 1, has_nats: bool = False, is_shared: bool = False) -> UpPorts:
    """Return the block that begins with ``base``; 0 means any free one.

    Raises:
        CommandFailed: A port of it is taken, or does not exist; exit status 78.
    """
    if base == 0:
        return UpPorts.free(nodes=nodes, has_nats=has_nats, is_shared=is_shared)
    ports = UpPorts(base, nodes, has_nats, is_shared)
    if ports.last > PORT_MAX:
        raise CommandFailed(
            f"port {ports.last} does not exist; choose a lower --port-base", exit_status=EXIT_REFUSED
        )
    taken = ports.taken()
    if taken:
        named = ", ".join(f"{port} ({name})" for name, port in taken)
        one_or_more = "port" if len(taken) == 1 else "ports"
        raise CommandFailed(
            f"{one_or_more} {named} of {HOST} cannot be used: something else listens there; "
            "`khala up --port-base 0` takes any free block",
            exit_status=EXIT_REFUSED,
        )
    return ports
