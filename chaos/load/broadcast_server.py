"""A peer of the stadium: `websockets.asyncio` and its ``broadcast``, in a process of its own.

    python -m chaos.load.broadcast_server CONNECTIONS

Prints its port, waits for the clients, prints how many there are; then, for each line ``run FILE`` on
standard input, broadcasts each message of the file and answers one JSON line. Nothing is checked, sealed
or stored, no broker feeds it: the messages are in memory. FILE: u32 length (little-endian), bytes.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from websockets.asyncio.server import broadcast, serve

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

_LENGTH: Final = struct.Struct("<I")


async def run(connections: int) -> None:
    """Serve until the input ends."""
    clients: set[ServerConnection] = set()
    are_all_here = asyncio.Event()

    async def keep(client: ServerConnection) -> None:
        clients.add(client)
        if len(clients) == connections:
            are_all_here.set()
        await client.wait_closed()
        clients.discard(client)

    # Its pings would be answered by clients that do not speak; compression is not asked for by any.
    async with serve(keep, "127.0.0.1", 0, ping_interval=None, compression=None, backlog=4096) as server:
        (socket, *_) = server.sockets
        _say(str(socket.getsockname()[1]))
        await are_all_here.wait()
        _say(str(len(clients)))
        while line := await asyncio.to_thread(sys.stdin.readline):
            messages = _read_messages(Path(line.removeprefix("run ").strip()))
            started, cpu_started = time.perf_counter(), time.process_time()
            for message in messages:
                broadcast(clients, message)
                # So that what a socket did not take at once goes out while the next is broadcast.
                await asyncio.sleep(0)
            _say(
                json.dumps(
                    {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_started}
                )
            )


def _read_messages(file: Path) -> list[bytes]:
    data, messages, at = file.read_bytes(), [], 0
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        messages.append(data[at + _LENGTH.size : at + _LENGTH.size + size])
        at += _LENGTH.size + size
    return messages


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1])))
