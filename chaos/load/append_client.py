"""A cheap producer: keep-alive connections that post prepared batches, one request in flight each.

Plain sockets, because it shares the machine with what it measures: at 100 requests/s this client
costs a few per cent of a core, and its own CPU time is reported. Answers are kept as bytes while the
clock runs and read afterwards.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from khala_contracts import http_messages as m
from khala_contracts.kinds import encode_payload, payload_type

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Answer", "AppendConnection", "AppendFailedError", "LoadResult", "append_for", "batch_of"]

KIND: Final = "output"
_RECEIVE_BYTES: Final = 256 * 1024
# A commit takes milliseconds. An answer that takes longer than this is a failure, not a figure.
_ANSWER_TIMEOUT_S: Final = 30.0


class AppendFailedError(Exception):
    """A request was not answered with 200; no figure is given then."""


@attrs.frozen
class Answer:
    """One acknowledged batch."""

    run_id: str
    key: str
    body: bytes = attrs.field(repr=False)
    seconds: float

    def acks(self) -> Sequence[m.Ack]:
        """Return the acknowledgements in it."""
        return m.AppendEventsResponse.FromString(self.body).acks


@attrs.frozen
class LoadResult:
    """What was acknowledged within one measurement.

    Attributes:
        answers: In the order in which they came, the warm-up's first.
        warm_up: How many of them came before the clock started.
        seconds: From the start to the last answer.
        cpu_s: Of this process.
    """

    answers: Sequence[Answer]
    warm_up: int
    seconds: float
    cpu_s: float


def payload_of(size_bytes: int) -> bytes:
    """Return an encoded payload of exactly this size."""
    text_bytes = size_bytes
    while True:
        payload = encode_payload("run_events", KIND, {"text": "x" * text_bytes})
        if len(payload) <= size_bytes:
            return payload
        text_bytes -= len(payload) - size_bytes


def batch_of(events: int, payload_bytes: int) -> bytes:
    """Return the body of one append request."""
    version = payload_type("run_events", KIND).schema_version
    assert version == 1
    event = m.EventInput(kind=KIND, payload_bytes=payload_of(payload_bytes))
    return m.AppendEventsRequest(events=[event] * events).SerializeToString(deterministic=True)


async def append_for(
    seconds: float, *, url: str, bearer: str, run_ids: Sequence[str], connections: int, body: bytes
) -> LoadResult:
    """Append ``body`` again and again for ``seconds``, each time under a new key.

    Args:
        seconds: No request is begun later; those in flight are waited for and counted.
        url: Base URL of the runtime.
        bearer: Credential of the owner of the runs.
        run_ids: Connection i appends to run i modulo their number.
        connections: How many, each with one request in flight.
        body: From ``batch_of``.

    Raises:
        AppendFailedError: A request was refused, or a connection ended.
    """
    producers = [
        _Producer(index, url, bearer, run_ids[index % len(run_ids)], body) for index in range(connections)
    ]
    async with trio.open_nursery() as nursery:
        for producer in producers:
            nursery.start_soon(producer.warm_up)
    warm_up = sum(len(producer.answers) for producer in producers)
    started, cpu_started = time.perf_counter(), time.process_time()
    deadline = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for producer in producers:
            nursery.start_soon(producer.append_until, deadline)
    result = LoadResult(
        answers=[answer for producer in producers for answer in producer.answers],
        warm_up=warm_up,
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_started,
    )
    for producer in producers:
        await producer.aclose()
    return result


class AppendConnection:
    """One keep-alive connection to the runtime, one request in flight."""

    def __init__(self, url: str, bearer: str, run_id: str) -> None:
        """Append to this run, later, as the owner of ``bearer``."""
        self._url = url
        self._head = (
            f"POST /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
            f"Authorization: Bearer {bearer}\r\nContent-Type: application/x-protobuf\r\n"
            "Accept: application/x-protobuf\r\nContent-Length: "
        ).encode()
        self._stream: trio.SocketStream | None = None
        self._received = bytearray()
        # The server ends a connection after some requests, and says so with the last answer.
        self._is_over = False

    async def open(self) -> None:
        """Connect."""
        parts = urlsplit(self._url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._stream = await trio.open_tcp_stream(parts.hostname, parts.port)
        self._is_over = False

    async def append(self, key: str, body: bytes) -> bytes:
        """Append one request under a key; return the body of its answer.

        Raises:
            AppendFailedError: It was refused, or the connection ended.
            trio.TooSlowError: No answer in time.
        """
        if self._is_over:
            await self.aclose()
            await self.open()
        assert self._stream is not None
        with trio.fail_after(_ANSWER_TIMEOUT_S):
            rest = f"{len(body)}\r\nIdempotency-Key: {key}\r\n\r\n"
            await self._stream.send_all(self._head + rest.encode() + body)
            status, answer = await self._receive_answer()
        if status != b"200":
            detail = m.Error.FromString(answer).code if answer else ""
            raise AppendFailedError(f"an append was answered {status.decode()} {detail}")
        return answer

    async def aclose(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            await self._stream.aclose()

    async def _receive_answer(self) -> tuple[bytes, bytes]:
        """Return status and body of the next answer; our servers always say its length."""
        received = self._received
        while (end := received.find(b"\r\n\r\n")) < 0:
            await self._receive()
        status_line, *headers = bytes(received[:end]).split(b"\r\n")
        fields = dict(header.lower().split(b": ", 1) for header in headers)
        self._is_over = fields.get(b"connection") == b"close"
        size = end + 4 + int(fields[b"content-length"])
        while len(received) < size:
            await self._receive()
        body = bytes(received[end + 4 : size])
        del received[:size]
        return status_line.split(b" ", 2)[1], body

    async def _receive(self) -> None:
        assert self._stream is not None
        data = await self._stream.receive_some(_RECEIVE_BYTES)
        if not data:
            raise AppendFailedError("the runtime closed a connection")
        self._received += data


class _Producer:
    """One connection and what was acknowledged on it."""

    def __init__(self, index: int, url: str, bearer: str, run_id: str, body: bytes) -> None:
        self.answers: list[Answer] = []
        self._name = f"{run_id}-{index}"
        self._run_id = run_id
        self._body = body
        self._connection = AppendConnection(url, bearer, run_id)

    async def warm_up(self) -> None:
        """Connect, and append once."""
        await self._connection.open()
        await self._append()

    async def append_until(self, deadline: float) -> None:
        """Append until ``deadline`` of trio's clock."""
        while trio.current_time() < deadline:
            await self._append()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.aclose()

    async def _append(self) -> None:
        key = f"{self._name}-{len(self.answers)}"
        started = time.perf_counter()
        answer = await self._connection.append(key, self._body)
        self.answers.append(Answer(self._run_id, key, answer, time.perf_counter() - started))
