"""What TLS costs a node: non-blocking sends of one frame to many sockets, in clear and encrypted.

    python -m chaos.load.tls_speed [--connections 200] [--seconds 1] [--rounds 9]

Alternates the two in one run. The sockets are those of the node's listener (khala/adapters/sockets.py); one
child process shakes hands on every connection and then takes bytes without looking at them. Prints one JSON
document: sends per second of wall time and per second of CPU of this process, and its memory per connection.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.authority import Authority
from khala.adapters.sockets import open_acceptor

if TYPE_CHECKING:
    from khala.ports import ByteTransport

FRAME: Final = bytes(200)
READ_BYTES: Final = 1 << 20
# Of the kernel, as the node has it.
SEND_BUFFER_BYTES: Final = 128 * 1024
GREETING: Final = b"!"


@attrs.frozen
class Round:
    """One measurement: sends that the kernel took whole, per second."""

    per_wall_s: float
    per_cpu_s: float


def measure(transports: list[ByteTransport], seconds: float) -> Round:
    """Send one frame to each in turn, for a time."""
    sends, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while (wall_s := time.perf_counter() - began) < seconds:
        for transport in transports:
            sends += transport.try_send(FRAME) == len(FRAME)
    return Round(sends / wall_s, sends / (time.process_time() - cpu_began))


async def connect(count: int, context: ssl.SSLContext | None, ca: Path) -> list[ByteTransport]:
    """Return connected transports whose clients take everything; their process ends with our pipe."""
    acceptor = open_acceptor("127.0.0.1", 0, send_buffer_bytes=SEND_BUFFER_BYTES, tls=context)
    command = [sys.executable, "-m", __spec__.name, "--take", str(count), "--port", str(acceptor.port)]
    if context is not None:
        command += ["--trust", str(ca)]
    # It lives until our end of the pipe closes; starting it waits for nothing.
    subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: ASYNC220
    transports = []
    for _ in range(count):
        transport = await acceptor.accept()
        assert await transport.receive_some(len(GREETING)) == GREETING
        transports.append(transport)
    acceptor.close()
    return transports


def take(count: int, port: int, trust: str | None) -> None:
    """Be the clients: connect, greet, then take bytes until standard input ends."""
    context = None if trust is None else ssl.create_default_context(cafile=trust)
    selector, kept = selectors.DefaultSelector(), []
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    for _ in range(count):
        raw = socket.create_connection(("127.0.0.1", port))
        if context is None:
            raw.sendall(GREETING)
        else:
            client = context.wrap_socket(raw, server_hostname="localhost")
            client.sendall(GREETING)
            # Without decrypting: the receiver is not what is measured.
            raw = socket.socket(fileno=client.detach())
        raw.setblocking(False)
        selector.register(raw, selectors.EVENT_READ)
        kept.append(raw)
    buffer = bytearray(READ_BYTES)
    while True:
        for key, _ in selector.select():
            if not isinstance(key.fileobj, socket.socket):
                return
            try:
                if not key.fileobj.recv_into(buffer):
                    return
            except OSError:
                return


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def run(connections: int, seconds: float, rounds: int) -> dict[str, object]:
    """Alternate clear and encrypted, and return the document."""
    with TemporaryDirectory() as folder:
        authority = Authority.make(Path(folder))
        cert, key, _ = authority.certify("node")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        before = resident_bytes()
        clear = await connect(connections, None, authority.ca)
        between = resident_bytes()
        encrypted = await connect(connections, context, authority.ca)
        memory = {"clear": between - before, "tls": resident_bytes() - between}
        results: dict[str, list[Round]] = {"clear": [], "tls": []}
        for _ in range(rounds):
            results["clear"].append(measure(clear, seconds))
            results["tls"].append(measure(encrypted, seconds))
        for transport in (*clear, *encrypted):
            transport.abort()
    return {
        "connections": connections,
        "seconds": seconds,
        "frame_bytes": len(FRAME),
        **{name: _summary(found, memory[name] // connections) for name, found in results.items()},
        "tls_to_clear_per_cpu": statistics.median(
            t.per_cpu_s / c.per_cpu_s for c, t in zip(results["clear"], results["tls"], strict=True)
        ),
    }


def _summary(rounds: list[Round], memory_bytes: int) -> dict[str, object]:
    summary: dict[str, object] = {"memory_bytes_per_connection": memory_bytes}
    for name in ("per_wall_s", "per_cpu_s"):
        values = [getattr(one, name) for one in rounds]
        summary[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return summary


def main() -> None:
    """Measure, or be the clients of a measurement."""
    parser = argparse.ArgumentParser(description="What TLS costs a node.")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--take", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--trust", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.take is not None:
        take(given.take, given.port, given.trust)
        return
    document = trio.run(run, given.connections, given.seconds, given.rounds)
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
