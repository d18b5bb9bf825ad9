"""What the one origin does not pass on: requests with two readings, too much of anything, too slowly."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from khala.adapters.one_origin import REFUSALS_MAX
from khala.adapters.origin_routes import HEAD_MAX_BYTES, OriginLimits
from tests.integration.khala.origin_rig import OK, UPGRADE, get, open_origin, read_all, read_until, wait_for

if TYPE_CHECKING:
    from tests.integration.khala.origin_rig import Service

SMUGGLED = b"GET /internal/v1/revocations HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", id="cl-cl"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            % (len(SMUGGLED) + 5)
            + SMUGGLED,
            id="cl-te",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
            + SMUGGLED,
            id="te-cl",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
            id="te-te",
        ),
        pytest.param(
            b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="te-1.0"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", id="te-gzip"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="te-space"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd", id="cl-sign"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="no-host-1.0"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", id="two-hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", id="bad-name"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", id="nul"),
        pytest.param(b"GET http://y/v1/runs HTTP/1.1\r\nHost: x\r\n\r\n", id="absolute"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", id="asterisk"),
        pytest.param(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", id="connect"),
        pytest.param(b"CONNECT /v1 HTTP/1.1\r\nHost: x\r\n\r\n", id="connect-path"),
        pytest.param(b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", id="trace"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(get("/sync/v1/ws", *UPGRADE, "Content-Length: 4") + b"body", id="upgrade-with-body"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="tls"),
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(request_bytes: bytes) -> None:
    """4xx or 501, the end of the connection, and no service hears of any of it."""
    async with open_origin() as rig:
        answer = await rig.ask(request_bytes)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405", b"HTTP/1.1 501"))
        assert answer.count(b"HTTP/1.1") == 1
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["retryable"] is False
        assert rig.heads == []


@pytest.mark.parametrize(("excess", "status"), [(0, b"200"), (1, b"431")])
@pytest.mark.parametrize("is_slow", [False, True])
async def test_the_size_of_headers_is_bounded(excess: int, status: bytes, *, is_slow: bool) -> None:
    """At the limit it is forwarded, one byte more is 431: at once or in two pieces, whole or not."""
    line = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
    head = line + b"a" * (HEAD_MAX_BYTES - len(line) - 4 + excess) + b"\r\n\r\n"
    assert len(head) == HEAD_MAX_BYTES + excess
    async with open_origin() as rig, await rig.connect() as stream:
        await stream.send_all(head[:10_000] if is_slow else b"")
        await wait_for(lambda: rig.origin.connections_open == 1)
        await stream.send_all(head[10_000:] if is_slow else head)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 " + status)
        assert len(rig.heads) == (status == b"200")


async def test_headers_without_end_are_refused() -> None:
    """A line that goes on and on is answered 431 long before it has filled anything."""
    async with open_origin() as rig, await rig.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 431")
        assert rig.heads == []


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_never_ends_is_not_waited_for(said: bytes) -> None:
    """The whole head has one deadline, so that a byte now and then does not help; so has silence."""
    async with open_origin(OriginLimits(head_timeout_s=0.1, idle_timeout_s=0.1)) as rig:
        async with await rig.connect() as stream, trio.open_nursery() as nursery:

            async def drip() -> None:
                while said:
                    await trio.sleep(0.02)
                    await stream.send_all(b"x")

            await stream.send_all(said)
            nursery.start_soon(_until_broken, drip)
            assert await read_all(stream) == b""
            nursery.cancel_scope.cancel()
        await wait_for(lambda: rig.origin.connections_open == 0)
        assert rig.heads == []


async def test_a_kept_connection_that_stays_idle_is_closed() -> None:
    """After an answer the idle limit counts, not the one of heads."""
    limits = OriginLimits(head_timeout_s=60, idle_timeout_s=0.1)
    async with open_origin(limits) as rig, await rig.connect() as stream:
        await stream.send_all(get("/", "Connection: keep-alive"))
        assert (await read_all(stream)).endswith(b"ok")


@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_service_that_falls_silent_is_given_up(part: str) -> None:
    """503 before the response has begun; after that a response that breaks off."""

    async def fall_silent(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        if part == "body":
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await trio.sleep_forever()

    async with open_origin(OriginLimits(silence_s=0.2), runtime=fall_silent) as rig:
        answer = await rig.ask(get("/v1/x"))
        assert answer.startswith(b"HTTP/1.1 503") if part == "head" else not answer.endswith(b"half" * 25)
        await wait_for(lambda: rig.origin.connections_open == 0)


async def test_a_body_that_moves_slowly_is_not_silent() -> None:
    """Pieces within the limit keep a request alive for as long as it takes."""

    async def count(service: Service, stream: trio.SocketStream, head: bytes, rest: bytes) -> None:
        while len(rest) < 10:
            rest += await stream.receive_some()
        await stream.send_all(OK)

    async with open_origin(OriginLimits(silence_s=0.5), runtime=count) as rig, await rig.connect() as stream:
        await stream.send_all(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await trio.sleep(0.1)
            await stream.send_all(b"x")
        assert (await read_until(stream, b"ok")).startswith(b"HTTP/1.1 200")


async def test_connections_are_bounded_and_the_next_is_told() -> None:
    """One above the bound reads a 503 with a time to wait; when another leaves there is room again."""
    async with open_origin(OriginLimits(connections_max=2)) as rig:
        kept = [await rig.connect() for _ in range(2)]
        await wait_for(lambda: rig.origin.connections_open == 2)
        answer = await rig.ask(get("/"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer.lower()
        assert rig.heads == []
        await kept.pop().aclose()
        await wait_for(lambda: rig.origin.connections_open == 1)
        assert (await rig.ask(get("/"))).endswith(b"ok")
        await kept.pop().aclose()


async def test_those_who_are_being_refused_are_bounded_too() -> None:
    """Clients that do not read their refusal take up no more than REFUSALS_MAX; beyond that: closed unsaid."""
    async with open_origin(OriginLimits(connections_max=1, linger_s=60)) as rig:
        crowd = [await rig.connect() for _ in range(1 + REFUSALS_MAX)]
        await wait_for(lambda: rig.origin.connections_open == 1 + REFUSALS_MAX)
        assert await rig.ask(b"") == b""
        for stream in crowd:
            await trio.aclose_forcefully(stream)


async def test_one_connection_that_crashes_is_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in one request ends that connection; others and the listener go on."""
    async with open_origin() as rig:
        find = rig.origin._table.find

        def find_or_crash(target: bytes) -> object:
            if target == b"/crash":
                raise ZeroDivisionError
            return find(target)

        monkeypatch.setattr(rig.origin._table, "find", find_or_crash)
        assert await rig.ask(get("/crash")) == b""
        assert (await rig.ask(get("/"))).endswith(b"ok")
        await wait_for(lambda: rig.origin.connections_open == 0)


async def _until_broken(work: object) -> None:
    assert callable(work)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await work()
