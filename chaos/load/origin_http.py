"""Small requests over kept connections, one in flight each, and how long their answers took."""

from __future__ import annotations

import statistics
import time
from typing import Final

import attrs
import trio

# Far above what any router needs; one that answers something else is found out.
ANSWER_TIMEOUT_S: Final = 10.0

__all__ = ["HttpRun", "WrongAnswerError", "run_requests"]


class WrongAnswerError(Exception):
    """An answer was not the body that was sent."""


@attrs.frozen
class HttpRun:
    """One measurement."""

    requests_per_s: float
    latency_ms: float
    latency_p99_ms: float
    requests: int


def run_requests(port: int, *, connections: int, body_bytes: int, seconds: float) -> HttpRun:
    """Post bodies that come back, for so long; the first request of each connection does not count.

    Raises:
        WrongAnswerError: One did not come back.
        OSError: Nobody listens there.
    """
    return trio.run(_run, port, connections, body_bytes, seconds)


async def _run(port: int, connections: int, body_bytes: int, seconds: float) -> HttpRun:
    latencies: list[float] = []
    request = (
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        b"Authorization: Bearer x\r\nContent-Length: %d\r\n\r\n" % body_bytes + b"x" * body_bytes
    )
    wrong: list[WrongAnswerError] = []
    async with trio.open_nursery() as nursery:

        async def post() -> None:
            try:
                await _post(port, request, body_bytes, seconds, latencies)
            except WrongAnswerError as error:
                # Outside the nursery, which would wrap it in a group.
                wrong.append(error)
                nursery.cancel_scope.cancel()

        for _ in range(connections):
            nursery.start_soon(post)
    if wrong:
        raise wrong[0]
    ordered = sorted(latencies)
    return HttpRun(
        requests_per_s=len(ordered) / seconds,
        latency_ms=statistics.median(ordered) * 1_000,
        latency_p99_ms=ordered[int(len(ordered) * 0.99)] * 1_000,
        requests=len(ordered),
    )


async def _post(port: int, request: bytes, body_bytes: int, seconds: float, latencies: list[float]) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await _ask(stream, request, body_bytes)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await _ask(stream, request, body_bytes)
            latencies.append(time.perf_counter() - began)


async def _ask(stream: trio.SocketStream, request: bytes, body_bytes: int) -> None:
    await stream.send_all(request)
    data = b""
    body = b"x" * body_bytes
    while True:
        with trio.move_on_after(ANSWER_TIMEOUT_S) as waiting:
            piece = await stream.receive_some()
        if waiting.cancelled_caught:
            raise WrongAnswerError(data[:100])
        if not piece:
            raise WrongAnswerError(data[:100])
        data += piece
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found or len(rest) < body_bytes:
            continue
        # The answer has the length of the body, or is one chunk of it and the last, empty one.
        is_chunked = b"chunked" in head.lower()
        if rest == body or (is_chunked and rest.endswith(b"0\r\n\r\n") and body in rest):
            return
        if not is_chunked:
            raise WrongAnswerError(head)
