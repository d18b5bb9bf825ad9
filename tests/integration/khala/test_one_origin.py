"""Requests through the one origin: where they go, what is said of them, and what their bodies become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from tests.integration.khala.origin_rig import OK, get, open_origin, read_all, read_body, read_until, wait_for

if TYPE_CHECKING:
    from tests.integration.khala.origin_rig import Service

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/", "control"),
        ("/api/auth/session", "control"),
        ("/v1", "runtime"),
        ("/v1/runs?x=/sync/v1/ws", "runtime"),
        ("/v1?x", "runtime"),
        ("/v12", "control"),
        ("/sync/v1/ws", "node"),
        ("/synchronous", "control"),
        ("/%76%31/runs", "control"),
        ("//v1/runs", "control"),
        ("/internally", "control"),
    ],
)
async def test_paths_choose_the_service(path: str, service: str) -> None:
    """By whole segments of what was sent, not decoded, not prefix-matched; the path is passed on unchanged."""
    async with open_origin() as rig:
        assert (await rig.ask(get(path))).startswith(b"HTTP/1.1 200")
        assert rig.heads == getattr(rig, service).heads
        assert rig.heads[0].startswith(f"GET {path} HTTP/1.1".encode())


async def test_a_system_that_ends_is_not_ready() -> None:
    """OPS-12: from the first request to end on, /readyz is answered here, while everything else is served on."""
    async with open_origin() as rig:
        assert (await rig.ask(get("/readyz"))).startswith(b"HTTP/1.1 200")
        rig.leaving.set()
        for path in ("/readyz", "/readyz?verbose"):
            answer = await rig.ask(get(path))
            assert answer.startswith(b"HTTP/1.1 503")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "draining"
        assert (await rig.ask(get("/api/compat"))).startswith(b"HTTP/1.1 200")
        assert len(rig.control.heads) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/internal/v1/revocations",
        "/internal",
        "/metrics",
        "/metrics/",
        "/internal?x=1",
        # What a service would read as one of these.
        "/%69nternal/v1/revocations",
        "/metric%73?x",
        "//internal/v1/revocations",
        "///metrics",
        "/%2Finternal%2fv1/revocations",
    ],
)
async def test_what_is_between_services_is_not_for_outsiders(path: str) -> None:
    """404 as for what does not exist; no service hears of it."""
    async with open_origin() as rig:
        answer = await rig.ask(get(path))
        assert answer.startswith(b"HTTP/1.1 404")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "not_found"
        assert rig.heads == []


async def test_what_is_said_about_forwarding_is_ours() -> None:
    """A client's own claims are dropped, also those that it hides behind Connection; the rest goes through."""
    async with open_origin() as rig:
        await rig.ask(
            get(
                "/v1/runs",
                "X-Forwarded-For: 6.6.6.6",
                "x-forwarded-for: 6.6.6.6",
                "Forwarded: for=6.6.6.6",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: 6.6.6.6",
                "X-Real-IP: 6.6.6.6",
                "Authorization: Bearer t",
                "X-Request-Id: r-1",
                "Proxy-Connection: keep-alive",
                "Connection: close, x-mine",
                "X-Mine: of this hop",
            )
        )
        head = rig.runtime.heads[0].lower()
        for absent in (b"6.6.6.6", b"https", b"x-mine", b"proxy-connection", b"connection:"):
            assert absent not in head
        for line in (b"host: x", b"authorization: bearer t", b"x-request-id: r-1"):
            assert line in head
        assert head.count(b"x-forwarded-for: 127.0.0.1") == 1
        assert head.count(b"x-forwarded-proto: http") == 1


async def test_one_connection_serves_many_requests_also_when_they_come_at_once() -> None:
    """Kept alive across services; pipelined requests are answered in order."""
    paths = ("/v1/runs", "/", "/v1/runs")
    async with open_origin() as rig, await rig.connect() as stream:
        for path in paths:
            await stream.send_all(get(path, "Connection: keep-alive"))
            await read_until(stream, b"ok")
        await stream.send_all(b"".join(get(path, "Connection: keep-alive") for path in paths))
        assert (await _read_count(stream, b"HTTP/1.1 200", 3)).endswith(b"ok")
        assert (len(rig.runtime.heads), len(rig.control.heads)) == (4, 2)


async def test_a_body_that_was_sent_whole_does_not_end_the_connection() -> None:
    """A service that answers the last byte at once is not taken for one that answered early."""

    async def answer_at_once(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        while head:
            await read_body(stream, head, rest)
            await stream.send_all(OK)
            head = (await _head(stream)) or b""
            rest = b""

    request = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    async with open_origin(runtime=answer_at_once) as rig, await rig.connect() as stream:
        for _ in range(300):
            await stream.send_all(request)
            assert b"connection" not in (await read_until(stream, b"ok")).lower()
        assert rig.runtime.connections == 1


async def test_a_client_that_has_said_everything_gets_its_answer() -> None:
    """Its half of the connection ends with the request (printf | nc); ours does after the answer."""
    async with open_origin() as rig, await rig.connect() as stream:
        await stream.send_all(get("/", "Connection: keep-alive"))
        await stream.send_eof()
        assert (await read_all(stream)).endswith(b"ok")


async def test_connections_to_services_are_kept() -> None:
    """Ten requests of five clients, one after the other, need one connection to the service."""
    async with open_origin() as rig:
        for _ in range(5):
            async with await rig.connect() as stream:
                for _ in range(2):
                    await stream.send_all(get("/v1/runs", "Connection: keep-alive"))
                    await read_until(stream, b"ok")
        assert len(rig.runtime.heads) == 10
        assert rig.runtime.connections == 1


async def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    """A service that closes between two requests costs nobody a request."""

    async def once(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(OK)

    async with open_origin(runtime=once) as rig:
        for _ in range(3):
            assert (await rig.ask(get("/v1/runs"))).endswith(b"ok")
        assert rig.runtime.connections == 3


async def test_a_kept_connection_that_breaks_when_used_is_replaced_if_the_request_is_harmless_twice() -> None:
    """The service resets it on the second request: a GET is sent again, a POST is answered 503."""

    async def break_second(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(OK)
        if len(service.heads) == 1:
            while b"\r\n\r\n" not in rest:
                rest += await stream.receive_some()

    for method, status in (("GET", b"200"), ("POST", b"503")):
        async with open_origin(runtime=break_second) as rig:
            assert (await rig.ask(get("/v1/runs"))).endswith(b"ok")
            answer = await rig.ask(get("/v1/runs", method=method))
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert rig.runtime.connections == (2 if method == "GET" else 1)


async def test_bodies_go_through_in_pieces_both_ways() -> None:
    """A body of 3 MiB arrives whole, with a length as with chunks; the response streams as it comes."""

    async def answer_size(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        if b"chunked" in head:
            body = await _read_chunks(stream, rest)
        else:
            body = await read_body(stream, head, rest)
        await stream.send_all(CHUNKED)
        for piece in (b"%d" % len(body), b" ", b"bytes"):
            await stream.send_all(b"%x\r\n%s\r\n" % (len(piece), piece))
        await stream.send_all(b"0\r\n\r\n")

    body = bytes(range(256)) * 12_288
    length = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    chunks = (
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%s\r\n" % (65_536, body[at : at + 65_536]) for at in range(0, len(body), 65_536))
        + b"0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    )
    for request in (length + body, chunks):
        async with open_origin(runtime=answer_size) as rig:
            answer = await rig.ask(request)
            assert b"3145728" in answer
            assert answer.endswith(b"0\r\n\r\n")


async def test_a_streamed_body_is_acknowledged_while_it_is_sent() -> None:
    """Each part of the body is there before the next is sent, and so is its acknowledgement."""

    async def acknowledge(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(CHUNKED)
        while b"0\r\n\r\n" not in rest:
            while rest.count(b"\r\n") < 2:
                rest += await stream.receive_some()
            size, part, rest = rest.split(b"\r\n", 2)
            if size != b"0":
                await stream.send_all(b"%x\r\nack %s\r\n" % (len(part) + 4, part))
            else:
                break
        await stream.send_all(b"0\r\n\r\n")

    async with open_origin(runtime=acknowledge) as rig, await rig.connect() as stream:
        await stream.send_all(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await stream.send_all(b"6\r\npart %d\r\n" % number)
            await read_until(stream, b"ack part %d\r\n" % number)
        await stream.send_all(b"0\r\n\r\n")
        assert (await read_all(stream)).endswith(b"0\r\n\r\n")


async def test_a_client_that_waits_for_continue_is_told_by_the_service() -> None:
    """Not by us, so that a service can refuse a body before it is sent."""

    async def take(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        assert b"expect: 100-continue" in head.lower()
        if b"GET /v1/no" not in head and b"/v1/no" in head:
            await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            return
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await read_body(stream, head, rest) == b"body"
        await stream.send_all(OK)

    request = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with open_origin(runtime=take) as rig:
        async with await rig.connect() as stream:
            await stream.send_all(request % b"/v1/yes")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
            await stream.send_all(b"body")
            assert (await read_all(stream)).endswith(b"ok")
        answer = await rig.ask(request % b"/v1/no")
        assert answer.startswith(b"HTTP/1.1 413")
        assert answer.endswith(b"no")


async def test_an_answer_before_the_end_of_the_body_arrives() -> None:
    """The client is told while it still sends, and is not reset before it has read that; then it is the end."""

    async def refuse(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    async with open_origin(runtime=refuse) as rig, await rig.connect() as stream:
        await stream.send_all(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nbegin")
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer.lower()
        assert (answer + await read_all(stream)).endswith(b"no")
        # A socket that was closed would answer the first of these with a reset, and break the next.
        for _ in range(20):
            await stream.send_all(b"a" * 10_000)
            await trio.sleep(0.005)


async def test_a_service_that_is_away_is_said_so() -> None:
    """503 with our Error body and a time to wait; other services go on, and it does when it is back."""
    async with open_origin() as rig:
        port, rig.runtime.port = rig.runtime.port, 9
        upstreams = rig.origin._upstreams["/v1"]
        route = upstreams._route
        upstreams._route = type(route)("/v1", (9,))
        answer = await rig.ask(get("/v1/x"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in head.lower()
        said = json.loads(body)
        assert (said["code"], said["retryable"], said["retry_after_ms"]) == ("unavailable", True, 1_000)
        assert (await rig.ask(get("/v1/x", method="HEAD"))).startswith(b"HTTP/1.1 503")
        assert (await rig.ask(get("/"))).endswith(b"ok")
        upstreams._route = type(route)("/v1", (port,))
        assert (await rig.ask(get("/v1/x"))).endswith(b"ok")


async def test_half_a_response_is_not_taken_for_a_whole_one() -> None:
    """A service that dies in the middle: the framing stays unfinished; where there is none, a reset says so."""

    async def die(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        if head.startswith(b"GET /v1/length"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        else:
            await stream.send_all(CHUNKED + b"4\r\nhalf\r\n")

    async with open_origin(runtime=die) as rig:
        assert not (await rig.ask(get("/v1/length"))).endswith(b"\r\n\r\n" + b"half" * 25)
        assert not (await rig.ask(get("/v1/chunks"))).endswith(b"0\r\n\r\n")
        async with await rig.connect() as stream:
            await stream.send_all(b"GET /v1/old HTTP/1.0\r\nHost: x\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass


async def test_a_broken_body_is_no_request() -> None:
    """A chunk that is none, and a client that leaves: the service sees no end of the body."""
    ends: list[bytes] = []

    async def read(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        ends.append(rest + await read_all(stream))

    head = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
    async with open_origin(runtime=read) as rig:
        assert (await rig.ask(head + b"zz\r\n")).startswith(b"HTTP/1.1 400")
        async with await rig.connect() as stream:
            await stream.send_all(head)
        await wait_for(lambda: len(ends) == 2)
        assert not any(end.endswith(b"0\r\n\r\n") for end in ends)


async def test_what_a_service_says_about_its_connection_stays_there() -> None:
    """Its Connection and Keep-Alive headers are not the client's; other informational answers are dropped."""

    async def say(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        await stream.send_all(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            b"HTTP/1.1 200 Fine\r\nConnection: close, x-own\r\nX-Own: 1\r\nKeep-Alive: 5\r\n"
            b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok"
        )

    async with open_origin(control=say) as rig, await rig.connect() as stream:
        await stream.send_all(get("/", "Connection: keep-alive"))
        answer = (await read_until(stream, b"ok")).lower()
        assert answer.startswith(b"http/1.1 200 fine")
        assert answer.count(b"set-cookie") == 2
        for absent in (b"connection:", b"x-own", b"keep-alive"):
            assert absent not in answer


async def _read_count(stream: trio.SocketStream, what: bytes, count: int) -> bytes:
    data = b""
    while data.count(what) < count or not data.endswith(b"ok"):
        data += await stream.receive_some()
    return data


async def _head(stream: trio.SocketStream) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = await stream.receive_some(1)
        if not piece:
            return b""
        data += piece
    return data.removesuffix(b"\r\n\r\n")


async def _read_chunks(stream: trio.SocketStream, rest: bytes) -> bytes:
    body = b""
    while True:
        while b"\r\n" not in rest:
            rest += await stream.receive_some()
        size_line, _, rest = rest.partition(b"\r\n")
        size = int(size_line, 16)
        while len(rest) < size + 2:
            rest += await stream.receive_some()
        if size == 0:
            assert rest == b"\r\n", "no trailers"
            return body
        body, rest = body + rest[:size], rest[size + 2 :]
