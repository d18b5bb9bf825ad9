"""WebSockets through the one origin: when a connection becomes a wire, and what a wire does at its ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from khala.adapters.origin_routes import OriginLimits, Route, RouteTable
from tests.integration.khala.origin_rig import (
    UPGRADE,
    Service,
    get,
    open_origin,
    read_all,
    read_until,
    wait_for,
)

if TYPE_CHECKING:
    from tests.integration.khala.origin_rig import OriginRig

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: a\r\n\r\n"
)
WS = get("/sync/v1/ws", *UPGRADE, "X-Forwarded-For: 6.6.6.6", "Origin: http://x")


async def _echo(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
    await stream.send_all(SWITCHED + b"hello")
    while rest or (rest := await stream.receive_some()):
        await stream.send_all(rest)
        if rest.endswith(b"bye"):
            return
        rest = b""


async def test_a_websocket_becomes_a_wire() -> None:
    """Once the node has agreed, bytes flow both ways, those sent early included, until either end leaves."""
    async with open_origin(node=_echo) as rig, await rig.connect() as stream:
        await stream.send_all(WS + b"early")
        answer = await read_until(stream, b"helloearly")
        assert answer.startswith(b"HTTP/1.1 101")
        for line in (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-accept: a"):
            assert line in answer.lower()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"x" * 3_000_000 + b"bye")
            rest = await read_all(stream)
        assert rest == b"x" * 3_000_000 + b"bye"
        sent = rig.node.heads[0].lower()
        for line in (
            b"upgrade: websocket",
            b"connection: upgrade",
            b"origin: http://x",
            b"x-forwarded-for: 127",
        ):
            assert sent.count(line) == 1
        assert b"6.6.6.6" not in sent
        await stream.aclose()
        await wait_for(lambda: rig.origin.connections_open == 0)


async def test_a_refused_upgrade_opens_nothing() -> None:
    """After the node's 403 the connection is HTTP as before: what follows is judged, not passed through."""

    async def refuse(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        service.heads.append(b"more:" + await read_all(stream))

    async with open_origin(node=refuse) as rig, await rig.connect() as stream:
        await stream.send_all(WS + get("/internal/v1/revocations", "X-Forwarded-For: 6.6.6.6"))
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"HTTP/1.1 404" in answer
        await wait_for(lambda: len(rig.node.heads) == 2)
        assert rig.node.heads[1] == b"more:"


async def test_only_nodes_are_asked_to_upgrade() -> None:
    """Elsewhere an Upgrade is dropped, and the request is one like any other; so is h2c, everywhere."""
    async with open_origin() as rig:
        for path, protocol in (("/v1/runs", "websocket"), ("/", "h2c"), ("/sync/v1/ws", "h2c")):
            answer = await rig.ask(get(path, "Connection: Upgrade, close", f"Upgrade: {protocol}"))
            assert answer.endswith(b"ok")
        assert len(rig.heads) == 3
        assert not any(b"upgrade" in head.lower() for head in rig.heads)


async def test_a_switch_that_nobody_asked_for_is_no_answer() -> None:
    """A service that sends 101 to a plain request is broken: 503."""

    async def switch(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(SWITCHED)

    async with open_origin(control=switch) as rig:
        assert (await rig.ask(get("/"))).startswith(b"HTTP/1.1 503")


async def test_a_node_that_leaves_before_it_answers_is_passed_over() -> None:
    """Race: it stops listening between the kernel's accepting a connection and its own. The next is asked, once."""

    async def leave(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.aclose()

    leaver = Service(leave)

    def both(rig: OriginRig) -> RouteTable:
        routes = (Route("/"), Route("/sync", (leaver.port, rig.node.port), is_upgradable=True))
        return RouteTable(routes)

    async with trio.open_nursery() as nursery:
        await nursery.start(leaver.serve)
        async with open_origin(node=_echo, table=both) as rig:
            for number in (1, 2):
                async with await rig.connect() as stream:
                    await stream.send_all(WS)
                    assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 101")
                assert (leaver.connections, rig.node.connections) == (number, number)
        async with open_origin(node=leave) as rig:
            assert (await rig.ask(WS)).startswith(b"HTTP/1.1 503")
            assert rig.node.connections == 2
        nursery.cancel_scope.cancel()


async def test_nodes_take_turns_and_one_that_is_away_is_passed_over() -> None:
    """Four sockets over two nodes are two each; with one of them gone all go to the other; with none: 503."""
    other = Service(_echo)

    def both(rig: OriginRig) -> RouteTable:
        routes = (Route("/"), Route("/sync", (rig.node.port, other.port), is_upgradable=True))
        return RouteTable(routes)

    async with trio.open_nursery() as nursery:
        await nursery.start(other.serve)
        async with open_origin(node=_echo, table=both) as rig:
            sockets = [await _open_socket(rig) for _ in range(4)]
            assert (len(rig.node.heads), len(other.heads)) == (2, 2)
            upstreams = rig.origin._upstreams["/sync"]
            upstreams._route = Route("/sync", (9, other.port), is_upgradable=True)
            sockets += [await _open_socket(rig) for _ in range(4)]
            assert (len(rig.node.heads), len(other.heads)) == (2, 6)
            upstreams._route = Route("/sync", (9, 10), is_upgradable=True)
            assert (await rig.ask(WS)).startswith(b"HTTP/1.1 503")
            for socket in sockets:
                await trio.aclose_forcefully(socket)
        nursery.cancel_scope.cancel()


async def test_the_last_words_of_a_node_arrive() -> None:
    """A node says its close and leaves, while the client still sends: the client reads it all."""

    async def say_and_leave(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(SWITCHED + b"x" * 500_000 + b"goodbye")

    async with open_origin(node=say_and_leave) as rig, await rig.connect() as stream:
        await stream.send_all(WS + b"y" * 100_000)
        await wait_for(lambda: len(rig.node.heads) == 1)
        assert (await read_all(stream)).endswith(b"goodbye")


async def test_the_end_of_one_direction_is_passed_on_and_the_other_goes_on() -> None:
    """A client that has said everything still gets the answer; then both are closed."""

    async def answer_at_end(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(SWITCHED)
        said = rest + await read_all(stream)
        await stream.send_all(b"you said " + said)

    async with open_origin(node=answer_at_end) as rig, await rig.connect() as stream:
        await stream.send_all(WS + b"this")
        await stream.send_eof()
        assert (await read_all(stream)).endswith(b"you said this")
        await wait_for(lambda: rig.origin.connections_open == 0)


async def test_a_half_open_socket_does_not_stay() -> None:
    """A node that goes on after its client has left is cut after the linger time."""

    async def go_on(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(SWITCHED)
        await trio.sleep_forever()

    async with open_origin(OriginLimits(linger_s=0.1), node=go_on) as rig:
        stream = await _open_socket(rig, end=b"\r\n\r\n")
        await stream.send_eof()
        assert await read_all(stream) == b""
        await wait_for(lambda: rig.origin.connections_open == 0)
        await stream.aclose()


async def test_a_client_that_takes_nothing_stops_the_node_soon() -> None:
    """The node's own socket fills up, as it would without us in between: little is held for such a client."""
    taken = 0

    async def flood(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        nonlocal taken
        await stream.send_all(SWITCHED)
        while True:
            await stream.send_all(b"x" * 65_536)
            taken += 65_536

    async with open_origin(node=flood) as rig:
        stream = await _open_socket(rig, end=b"\r\n\r\n" + b"x")
        still = 0
        # Until nothing has moved for a while; the numbers are those of a kernel, so they are only bounded.
        while still < 20:
            before = taken
            await trio.sleep(0.01)
            still = still + 1 if taken == before else 0
        stalled_at = taken
        assert stalled_at < 8 * 1024 * 1024
        # And taking it starts it again.
        got = 0
        while got < stalled_at + 1_000_000:
            got += len(await stream.receive_some())
        await trio.aclose_forcefully(stream)


async def test_sockets_are_quiet_for_as_long_as_they_like() -> None:
    """The limits of requests do not count for a wire."""
    limits = OriginLimits(silence_s=0.1, idle_timeout_s=0.1, head_timeout_s=0.5)
    async with open_origin(limits, node=_echo) as rig:
        stream = await _open_socket(rig)
        await trio.sleep(0.5)
        await stream.send_all(b"still there")
        assert await stream.receive_some() == b"still there"
        await stream.aclose()


async def _open_socket(rig: OriginRig, *, end: bytes = b"hello") -> trio.SocketStream:
    stream = await rig.connect()
    await stream.send_all(WS)
    data = b""
    while end not in data:
        piece = await stream.receive_some(1 if len(end) != len(b"hello") else 4096)
        assert piece, data
        data += piece
    return stream
