"""The fault proxy: a process of its own that stands between pairs of processes and harms their TCP.

    python -m chaos.faults.proxy '{"node-1.nats": ["127.0.0.1", 4222], ...}'

Its first line of output says where it listens: ``{"control": port, "links": {name: port}}``. Commands
come over the control port (127.0.0.1 alone), one JSON object a line, each answered by one:

    {"do": "set", "links": "node-1.*", "direction": "both", "fault": {"is_cut": true}}   (fault.Fault)
    {"do": "clear", "links": "*"}          every direction healthy; half-open connections are reset
    {"do": "reset", "links": "*"}          reset every connection now
    {"do": "counters", "links": "*"}       {name: fault.Counters}

``links`` is a shell pattern; one that matches nothing is an error: a fault that hits nobody is none.
It ends when its input does, so it never outlives whoever started it.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from chaos.faults.fault import DIRECTIONS, HEALTHY, Fault, directions_of
from chaos.faults.link import HOST, Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["answer_command", "serve_proxy"]

LINE_MAX_BYTES: Final = 64 * 1024
_INPUT_BYTES: Final = 4096


def answer_command(links: Mapping[str, Link], command: Mapping[str, Any]) -> dict[str, Any]:
    """Do what one command says; return the answer, an ``error`` for one that says nothing known."""
    pattern = str(command.get("links", ""))
    chosen = [link for name, link in links.items() if fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        return {"error": f"no link is {pattern!r}; there are {', '.join(links)}"}
    match command.get("do"):
        case "set":
            direction = command.get("direction", "both")
            if direction not in ("both", *DIRECTIONS):
                return {"error": f"no direction: {direction!r}"}
            try:
                fault = Fault(**command["fault"])
            except (KeyError, TypeError, ValueError) as exc:
                return {"error": f"no fault: {exc}"}
            for link in chosen:
                link.set(fault, directions_of(direction))
        case "clear":
            for link in chosen:
                link.set(HEALTHY, directions_of("both"))
        case "reset":
            return {"reset": sum(link.reset() for link in chosen)}
        case "counters":
            return {"links": {link.name: attrs.asdict(link.counters) for link in chosen}}
        case other:
            return {"error": f"nothing to do: {other!r}"}
    return {"links": [link.name for link in chosen]}


async def serve_proxy(servers: Mapping[str, Sequence[Any]]) -> None:
    """Serve until the input ends."""
    links = {name: Link(name, (str(host), int(port))) for name, (host, port) in servers.items()}
    async with trio.open_nursery() as nursery:
        for link in links.values():
            await nursery.start(link.serve)
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, partial(_serve_commands, links), [listener])
        ready = {
            "control": listener.socket.getsockname()[1],
            "links": {name: link.port for name, link in links.items()},
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await _wait_input_ends()
        nursery.cancel_scope.cancel()


async def _serve_commands(links: Mapping[str, Link], stream: trio.SocketStream) -> None:
    """Answer line by line until whoever commands hangs up."""
    held = b""
    async with stream:
        while len(held) <= LINE_MAX_BYTES:
            try:
                data = await stream.receive_some(LINE_MAX_BYTES)
                if not data:
                    return
                *lines, held = (held + data).split(b"\n")
                for line in lines:
                    answer = answer_command(links, json.loads(line))
                    await stream.send_all(json.dumps(answer).encode() + b"\n")
            except trio.BrokenResourceError:
                return


async def _wait_input_ends() -> None:
    # In a thread: the input may be anything, also a file, which no loop can wait for.
    while await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), _INPUT_BYTES, abandon_on_cancel=True):
        pass


if __name__ == "__main__":
    trio.run(serve_proxy, json.loads(sys.argv[1]))
