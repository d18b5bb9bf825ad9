"""How a drill, or a person, tells the fault proxy what to do. Sync: drills stand outside of any loop."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import attrs

from chaos.faults.fault import Counters, Direction, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FaultProxy", "ProxyRefused", "running_proxy"]

HOST: Final = "127.0.0.1"
_TIMEOUT_S: Final = 10.0


class BufferedIO(Protocol):
    """What ``socket.makefile("rwb")`` returns."""

    def readline(self) -> bytes: ...
    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


class ProxyRefused(Exception):
    """The proxy does not do what it was told; the message says why."""


@attrs.frozen(eq=False)
class FaultProxy:
    """A running proxy.

    Attributes:
        control_port: Where it takes commands; other programs may, too.
        ports: Where each link is to be connected to, by its name.
    """

    control_port: int
    ports: Mapping[str, int]
    _stream: BufferedIO = attrs.field(repr=False)

    @classmethod
    def connect(cls, control_port: int, ports: Mapping[str, int]) -> Self:
        """Connect to a proxy that runs already."""
        connection = socket.create_connection((HOST, control_port), _TIMEOUT_S)
        stream = connection.makefile("rwb")
        connection.close()  # the file keeps it
        return cls(control_port, ports, stream)

    def set(self, links: str, fault: Fault, *, direction: Direction = "both") -> None:
        """Let a fault begin on the links of a pattern, in place of what was there.

        Raises:
            ProxyRefused: No link matches.
        """
        self._ask(do="set", links=links, direction=direction, fault=attrs.asdict(fault))

    def clear(self, links: str = "*") -> None:
        """End every fault; connections that lost bytes are reset. Raises as ``set``."""
        self._ask(do="clear", links=links)

    def reset(self, links: str) -> int:
        """Reset every connection of these links; return how many there were. Raises as ``set``."""
        return int(self._ask(do="reset", links=links)["reset"])

    def counters(self, link: str) -> Counters:
        """Return what one link has done since the proxy began. Raises as ``set``."""
        return Counters(**self._ask(do="counters", links=link)["links"][link])

    @contextmanager
    def holding(self, links: str, fault: Fault, *, direction: Direction = "both") -> Iterator[None]:
        """Let a fault act for a block."""
        self.set(links, fault, direction=direction)
        try:
            yield
        finally:
            self.clear(links)

    def _ask(self, **command: object) -> dict[str, Any]:
        self._stream.write(json.dumps(command).encode() + b"\n")
        self._stream.flush()
        line = self._stream.readline()
        if not line:
            raise ProxyRefused("the proxy has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ProxyRefused(answer["error"])
        return answer


@contextmanager
def running_proxy(servers: Mapping[str, tuple[str, int]]) -> Iterator[FaultProxy]:
    """Run a proxy for a block; ``servers`` are the links by name and where they lead.

    Raises:
        ProxyRefused: It did not start; its errors are on ours.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "chaos.faults.proxy", json.dumps(servers)],
        env={name: value for name, value in os.environ.items() if not name.startswith("KHALA_")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise ProxyRefused("the proxy did not start")
        ready = json.loads(line)
        yield FaultProxy.connect(ready["control"], ready["links"])
    finally:
        # It ends with its input.
        process.stdin.close()
        try:
            process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
