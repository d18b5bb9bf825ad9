"""Streamed appends over real sockets: chunks, acks, keys, the first wrong event, the client that leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import kinds
from runtime.adapters.http.stream_framing import ProtobufFraming
from runtime.core.limits import RuntimeLimits
from tests.integration.runtime.open_stream import open_stream
from tests.integration.runtime.rig import (
    NDJSON,
    PROTOBUF_STREAM,
    Document,
    RuntimeRig,
    Settings,
    eventually,
    open_runtime,
    stream_body,
    thought,
)

if TYPE_CHECKING:
    from tests.postgres_cluster import Database


async def post_stream(
    runtime: RuntimeRig, run_id: str, body: bytes, *, bearer: str = "user"
) -> list[Document]:
    """Send a whole stream and return the lines of its answer."""
    response = await runtime.call(
        "POST", f"/v1/runs/{run_id}/events", content=body, media_type=NDJSON, accept=NDJSON, bearer=bearer
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == NDJSON
    return [json.loads(line) for line in response.text.splitlines()]


def acks_of(lines: list[Document]) -> list[Document]:
    """Return the acks of all committed chunks."""
    return [ack for line in lines if "committed" in line for ack in line["committed"]["acks"]]


async def test_acks_come_while_the_body_is_open(runtime: RuntimeRig) -> None:
    """Each chunk is acknowledged as soon as it is committed, long before the stream ends."""
    run_id = await runtime.make_run()
    async with open_stream(runtime.http.base_url.port or 0, run_id) as stream:
        await stream.send(thought("a", "1"))
        assert [ack["seq"] for ack in acks_of([await stream.line()])] == ["2"]
        await trio.sleep(0.2)
        await stream.send(thought("b", "2"), thought("c", "3"))
        assert [ack["seq"] for ack in acks_of([await stream.line()])] == ["3", "4"]
        assert await runtime.texts(run_id) == ["a", "b", "c"]
        await stream.finish()


async def test_what_arrives_meanwhile_is_the_next_chunk(runtime_database: Database) -> None:
    """While a chunk is being committed the body piles up; the next chunk takes it, up to its limit."""
    limits = RuntimeLimits(stream_chunk_events_max=8)
    async with open_runtime(runtime_database, Settings(limits=limits)) as runtime:
        run_id = await runtime.make_run()
        events = [thought(str(number), f"k{number}") for number in range(20)]
        async with open_stream(runtime.http.base_url.port or 0, run_id) as stream:
            async with runtime.pool.acquire() as holder, holder.transaction():
                await holder.execute("SELECT FROM runtime.topic_heads FOR UPDATE")
                await stream.send(events[0])
                await trio.sleep(0.2)
                for event in events[1:]:
                    await stream.send(event)
            await stream.finish()
            sizes: list[int] = []
            while sum(sizes) < 20:
                sizes.append(len(acks_of([await stream.line()])))
        assert sizes[0] == 1
        assert max(sizes) == 8
        assert await runtime.texts(run_id) == [str(number) for number in range(20)]


async def test_large_stream_in_both_framings(runtime: RuntimeRig) -> None:
    """A thousand events: contiguous acks, one per event; the same for length-delimited protobuf."""
    run_id = await runtime.make_run()
    lines = await post_stream(
        runtime, run_id, stream_body([thought(str(number), f"k{number}") for number in range(1_000)])
    )
    assert [int(ack["seq"]) for ack in acks_of(lines)] == list(range(2, 1_002))
    assert all(len(line["committed"]["acks"]) <= 512 for line in lines)
    framing = ProtobufFraming(1 << 20)
    payload = kinds.encode_payload("run_events", "thought", {"text": "p"})
    body = b"".join(
        framing.frame(m.EventInput(kind="thought", payload_bytes=payload, idempotency_key=f"p{number}"))
        for number in range(300)
    )
    response = await runtime.call(
        "POST", f"/v1/runs/{run_id}/events", content=body, media_type=PROTOBUF_STREAM, accept=PROTOBUF_STREAM
    )
    assert response.headers["content-type"] == PROTOBUF_STREAM
    framing.feed(response.content)
    answers = list(framing.take(m.AppendStreamAck, is_last=True))
    assert [ack.seq for answer in answers for ack in answer.committed.acks] == list(range(1_002, 1_302))


async def test_retried_stream(runtime: RuntimeRig) -> None:
    """A stream sent again with its keys returns the same acks and appends only what is missing."""
    run_id = await runtime.make_run()
    events = [thought(text, f"k-{text}") for text in "abcdef"]
    first = acks_of(await post_stream(runtime, run_id, stream_body(events[:4])))
    again = acks_of(await post_stream(runtime, run_id, stream_body(events)))
    assert again[:4] == first
    assert [ack["seq"] for ack in again] == ["2", "3", "4", "5", "6", "7"]
    assert await runtime.texts(run_id) == list("abcdef")


async def test_stream_without_keys(runtime: RuntimeRig) -> None:
    """Keys are the client's choice: without them every event is appended."""
    run_id = await runtime.make_run()
    lines = await post_stream(runtime, run_id, stream_body([thought("a"), thought("a"), thought("b", "k")]))
    assert [ack["seq"] for ack in acks_of(lines)] == ["2", "3", "4"]
    assert await runtime.texts(run_id) == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("line", "code", "field"),
    [
        (b'{"kind":"unheard.of"}\n', "kind_unknown", "kind"),
        (b'{"kind":"thought","data":{"x":1}}\n', "invalid_argument", "data.x"),
        (b'{"kind":"run.finished"}\n', "invalid_argument", "kind"),
        (b'{"kind":"thought","idempotency_key":"k\\u0000"}\n', "invalid_argument", "idempotency_key"),
        (b"nonsense\n", "malformed_message", None),
        (b'{"kind":"thought","kind":"thought"}\n', "malformed_message", "kind"),
        (b'{"kind":"thought","data":{"text":"x"}', "malformed_message", None),
    ],
)
async def test_a_bad_line_stops_the_stream(
    runtime: RuntimeRig, line: bytes, code: str, field: str | None
) -> None:
    """What came before the bad line is committed and acknowledged; its index is named; nothing follows."""
    run_id = await runtime.make_run()
    good = [thought("a", "1"), thought("b", "2")]
    body = stream_body(good) + line
    if line.endswith(b"\n"):
        body += stream_body([thought("never", "3")])
    lines = await post_stream(runtime, run_id, body)
    assert [ack["seq"] for ack in acks_of(lines)] == ["2", "3"]
    failed = lines[-1]["failed"]
    assert (failed["code"], failed["event_index"], failed["retryable"]) == (code, "2", False)
    if field is not None:
        assert failed["details"]["field"] == field
    assert await runtime.texts(run_id) == ["a", "b"]


async def test_refusals_in_the_middle(runtime_database: Database) -> None:
    """A conflict, the rate, the end of the run: the stream stops at the event and says whether to retry."""
    settings = Settings(publish_rate_per_s={"run_events": 1.0})
    async with open_runtime(runtime_database, settings) as runtime:
        run_id = await runtime.make_run()
        await post_stream(runtime, run_id, stream_body([thought("a", "1")]))
        conflict = await post_stream(
            runtime,
            run_id,
            stream_body([thought("a", "1"), thought("b", "2"), thought("other", "1"), thought("c")]),
        )
        assert len(acks_of(conflict)) == 2
        assert (conflict[-1]["failed"]["code"], conflict[-1]["failed"]["event_index"]) == (
            "idempotency_conflict",
            "2",
        )
        flood = await post_stream(
            runtime, run_id, stream_body([thought(str(number), f"f{number}") for number in range(12)])
        )
        failed = flood[-1]["failed"]
        assert (failed["code"], failed["event_index"], failed["retryable"]) == ("rate_limited", "8", True)
        assert 0 < failed["retry_after_ms"] <= 1_001
        await runtime.json("POST", f"/v1/runs/{run_id}/transitions", {"to_state": "RUN_STATE_FAILED"})
        late = await post_stream(runtime, run_id, stream_body([thought("a", "1"), thought("late", "late")]))
        assert (len(acks_of(late)), late[-1]["failed"]["code"]) == (1, "run_finished")


async def test_refused_before_it_begins(runtime: RuntimeRig) -> None:
    """Without the right to append, a stream is refused with a status, like any other request."""
    run_id = await runtime.make_run()
    for bearer, status in (("other", 404), ("nobody", 401)):
        response = await runtime.call(
            "POST",
            f"/v1/runs/{run_id}/events",
            content=stream_body([thought("x")]),
            media_type=NDJSON,
            bearer=bearer,
        )
        assert response.status_code == status


async def test_revoked_in_the_middle(runtime: RuntimeRig) -> None:
    """Rights are looked at again for each chunk: a revoked bearer's next chunk is refused."""
    run_id = await runtime.make_run()
    async with open_stream(runtime.http.base_url.port or 0, run_id) as stream:
        await stream.send(thought("a", "1"))
        assert acks_of([await stream.line()])
        runtime.control.revoked.add("user")
        await trio.sleep(1.1)
        await stream.send(thought("b", "2"))
        failed = (await stream.line())["failed"]
        assert (failed["code"], failed["event_index"]) == ("unauthenticated", "1")
    assert await runtime.texts(run_id) == ["a"]


async def test_client_that_leaves(runtime: RuntimeRig) -> None:
    """What was sent before the client vanished is committed or not, whole; the service goes on."""
    run_id = await runtime.make_run()
    async with open_stream(runtime.http.base_url.port or 0, run_id) as stream:
        await stream.send(thought("a", "1"))
        await stream.line()
        await stream.socket.send_all(b'20\r\n{"kind":"thought"')
    await runtime.append(run_id, "after")
    assert await runtime.texts(run_id) == ["a", "after"]

    async def is_over() -> bool:
        return await runtime.metric("khala_http_requests_active") <= 1

    await eventually(is_over)


@pytest.mark.parametrize(("over", "is_refused"), [(0, False), (1, True)])
async def test_event_size(
    runtime_database: Database, over: int, is_refused: bool
) -> None:  # a column of the table
    """A line of stream_event_bytes_max bytes passes; one byte more ends the stream."""
    limits = RuntimeLimits(stream_event_bytes_max=2_000)
    async with open_runtime(runtime_database, Settings(limits=limits)) as runtime:
        run_id = await runtime.make_run()
        frame = b'{"kind":"thought","data":{"text":"%s"}}'
        line = frame % (b"x" * (2_000 + over - len(frame) + 2))
        lines = await post_stream(runtime, run_id, line + b"\n")
        assert ("failed" in lines[-1]) is is_refused
        if is_refused:
            assert lines[-1]["failed"]["code"] == "payload_too_large"


async def test_drain_ends_a_stream_with_what_was_committed(runtime: RuntimeRig) -> None:
    """OPS: asked to end, the service acknowledges what has arrived, names the next event and says draining."""
    run_id = await runtime.make_run()
    async with open_stream(runtime.http.base_url.port or 0, run_id) as stream:
        await stream.send(thought("a"), thought("b"))
        acks = acks_of([await stream.line()])
        assert [ack["seq"] for ack in acks] == ["2", "3"]
        # Half an event: it will never be whole.
        await stream.socket.send_all(b"5\r\n" + b'{"kin' + b"\r\n")
        runtime.drain.set()
        failed = (await stream.line())["failed"]
        assert (failed["code"], failed["event_index"]) == ("draining", "2")
        assert failed["retryable"] is True
        assert failed["retry_after_ms"] > 0
        await stream.wait_end()
    assert await runtime.texts(run_id) == ["a", "b"]


async def test_drain_finishes_requests_in_flight(runtime_database: Database) -> None:
    """A request that was taken before the drain is answered, although it has to wait for its commit."""
    async with open_runtime(runtime_database) as runtime:
        run_id = await runtime.make_run()
        async with runtime.pool.acquire() as connection, trio.open_nursery() as nursery:
            answers: list[list[Document]] = []

            async def append() -> None:
                answers.append(await runtime.append(run_id, "late"))

            async with connection.transaction():
                await connection.execute(
                    "SELECT 1 FROM runtime.topic_heads WHERE topic = $1 FOR UPDATE", f"run:{run_id}:events"
                )
                nursery.start_soon(append)

                async def is_waiting() -> bool:
                    return await runtime.metric("khala_runtime_inbox_requests") == 1

                await eventually(is_waiting)
                runtime.drain.set()
                await trio.sleep(0.1)
                assert answers == []
        assert [ack["seq"] for ack in answers[0]] == ["2"]
        assert await runtime.texts(run_id) == ["late"]
