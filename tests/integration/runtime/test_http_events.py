"""Appends over HTTP: single, batch, keys that race, limits, rate, positions, pages."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import kinds
from runtime.core.limits import RuntimeLimits
from tests.integration.runtime.rig import (
    PROTOBUF,
    SMALL,
    Document,
    RuntimeRig,
    Settings,
    eventually,
    open_runtime,
)

if TYPE_CHECKING:
    import httpx

    from tests.postgres_cluster import Database

THOUGHT = kinds.encode_payload("run_events", "thought", {"text": "hi"})


async def test_curl_of_the_contract(runtime: RuntimeRig) -> None:
    """SPEC section 8: the body of the curl line works as it is written there."""
    run_id = await runtime.make_run()
    body = b'{"events":[{"kind":"thought","data":{"text":"hi"}}]}'
    response = await runtime.call("POST", f"/v1/runs/{run_id}/events", content=body, accept="*/*")
    assert response.status_code == 200
    (ack,) = response.json()["acks"]
    assert ack["seq"] == "2"
    assert len(base64.b64decode(ack["chain"])) == 32
    assert await runtime.texts(run_id) == ["hi"]


async def test_json_and_protobuf_events_are_the_same_row(runtime: RuntimeRig) -> None:
    """ARC-10: both forms of an append store byte-identical payload, kind and version."""
    run_id = await runtime.make_run()
    path = f"/v1/runs/{run_id}/events"
    await runtime.append(run_id, "hi")
    request = m.AppendEventsRequest(events=[m.EventInput(kind="thought", payload_bytes=THOUGHT)])
    response = await runtime.call(
        "POST", path, content=request.SerializeToString(), media_type=PROTOBUF, accept=PROTOBUF
    )
    acks = m.AppendEventsResponse.FromString(response.content).acks
    rows = await runtime.pool.fetch(
        "SELECT event_id, kind, payload, schema_version, actor FROM runtime.events WHERE seq > 1 ORDER BY seq"
    )
    assert tuple(rows[0])[1:] == tuple(rows[1])[1:]
    assert rows[1]["event_id"] == acks[0].event_id


async def test_both_ways_of_a_binary_append_answer_alike(runtime: RuntimeRig) -> None:
    """Past the framework or through it: status, headers and code are the same, for what is refused, too."""
    run_id, finished = await runtime.make_run(), await runtime.make_run()
    await runtime.json("POST", f"/v1/runs/{finished}/transitions", {"to_state": "RUN_STATE_CANCELLED"})
    event = m.EventInput(kind="thought", payload_bytes=THOUGHT)
    one = m.AppendEventsRequest(events=[event])
    cases: list[tuple[str, str, m.AppendEventsRequest, str | None]] = [
        (run_id, "user", one, "key"),
        (run_id, "user", m.AppendEventsRequest(events=[event] * 2), "key"),
        (run_id, "user", m.AppendEventsRequest(events=[event], expected_seq=77), None),
        (run_id, "user", m.AppendEventsRequest(events=[m.EventInput(kind="nothing")]), None),
        (run_id, "user", m.AppendEventsRequest(), None),
        (run_id, "other", one, None),
        (run_id, "nobody", one, None),
        (finished, "user", one, None),
    ]
    for run, bearer, request, key in cases:
        answers = [
            await runtime.call(
                "POST",
                f"/v1/runs/{run}/events",
                content=request.SerializeToString(),
                media_type=PROTOBUF,
                accept=accept,
                bearer=bearer,
                key=key,
            )
            # The second is one that only the framework weighs.
            for accept in (PROTOBUF, f"{PROTOBUF};q=0.9")
        ]
        alike = [
            {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
            for answer in answers
        ]
        assert alike[0] == alike[1]
        assert answers[0].status_code == answers[1].status_code
        if answers[0].status_code == 200:
            assert answers[0].content == answers[1].content
        else:
            codes = [m.Error.FromString(answer.content).code for answer in answers]
            assert codes[0] == codes[1]


async def test_hundred_identical_first_requests(runtime: RuntimeRig) -> None:
    """RT-25: a hundred identical requests that race write one event and get a hundred equal answers."""
    run_id = await runtime.make_run()
    body = {"events": [{"kind": "thought", "data": {"text": "once"}}]}
    answers: list[httpx.Response] = []

    async def post() -> None:
        answers.append(await runtime.call("POST", f"/v1/runs/{run_id}/events", body, key="the-key"))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(post)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert len(answers) == 100
    assert await runtime.texts(run_id) == ["once"]
    assert await runtime.metric("khala_runtime_duplicates_total") == 99


async def test_keys_of_principals_are_apart(runtime: RuntimeRig) -> None:
    """RT-25: another principal's use of the same key is another request."""
    run_id = await runtime.make_run("publisher")
    first, second = [
        await runtime.append(run_id, "x", bearer=bearer, key="k") for bearer in ("publisher", "member")
    ]
    assert first != second
    assert await runtime.texts(run_id) == ["x", "x"]


async def test_conflict_changes_nothing(runtime: RuntimeRig) -> None:
    """RT-04: the same key with another body is 409 and leaves the first answer valid."""
    run_id = await runtime.make_run()
    first = await runtime.append(run_id, "a", key="k")
    before = await runtime.counts()
    body = {"events": [{"kind": "thought", "data": {"text": "b"}}]}
    conflict = await runtime.json("POST", f"/v1/runs/{run_id}/events", body, key="k", status=409)
    assert conflict["code"] == "idempotency_conflict"
    assert await runtime.append(run_id, "a", key="k") == first
    assert await runtime.counts() == before


async def test_retry_in_the_other_form(runtime: RuntimeRig) -> None:
    """A retry may be sent as protobuf where the first was JSON: the fingerprint is of the meaning."""
    run_id = await runtime.make_run()
    (first,) = await runtime.append(run_id, "hi", key="k")
    request = m.AppendEventsRequest(events=[m.EventInput(kind="thought", payload_bytes=THOUGHT)])
    response = await runtime.call(
        "POST", f"/v1/runs/{run_id}/events", content=request.SerializeToString(), media_type=PROTOBUF,
        accept=PROTOBUF, key="k",
    )  # fmt: skip
    (again,) = m.AppendEventsResponse.FromString(response.content).acks
    assert (again.event_id, str(again.seq)) == (first["event_id"], first["seq"])


async def test_retry_after_the_run_has_ended(runtime: RuntimeRig) -> None:
    """The key is looked at before the run's state: a retried append and a retried end are answered."""
    run_id = await runtime.make_run()
    first = await runtime.append(run_id, "a", key="k")
    path = f"/v1/runs/{run_id}/transitions"
    ended = [await runtime.json("POST", path, {"to_state": "RUN_STATE_FAILED"}, key="end") for _ in range(2)]
    assert ended[0] == ended[1]
    assert await runtime.append(run_id, "a", key="k") == first


async def test_expected_seq(runtime: RuntimeRig) -> None:
    """RT-04: the wrong position is 409 with the head; the right one, also 0 being wrong, decides."""
    run_id = await runtime.make_run()
    path = f"/v1/runs/{run_id}/events"
    event = {"kind": "thought"}
    for wrong in (0, 2):
        refused = await runtime.json("POST", path, {"events": [event], "expected_seq": wrong}, status=409)
        assert refused["code"] == "seq_conflict"
        assert refused["details"] == {"expected_seq": str(wrong), "head_seq": "1"}
    accepted = await runtime.json("POST", path, {"events": [event], "expected_seq": "1"})
    assert accepted["acks"][0]["seq"] == "2"


async def test_concurrent_appenders(runtime: RuntimeRig) -> None:
    """RT-04: 200 concurrent appends leave contiguous positions, each acknowledged once."""
    run_id = await runtime.make_run()
    acks: list[Document] = []

    async def post(number: int) -> None:
        acks.extend(await runtime.append(run_id, str(number)))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(post, number)
    assert sorted(int(ack["seq"]) for ack in acks) == list(range(2, 202))
    assert sorted(await runtime.texts(run_id), key=int) == [str(number) for number in range(200)]
    assert await runtime.metric("khala_runtime_commits_total") < 150


@pytest.mark.parametrize(
    ("event", "status", "code", "field"),
    [
        ({"kind": "unheard.of"}, 400, "kind_unknown", "events[1].kind"),
        ({"kind": "run.finished"}, 400, "invalid_argument", "events[1].kind"),
        ({"kind": "thought", "data": {"x": 1}}, 400, "invalid_argument", "events[1].data.x"),
        ({"kind": "thought", "payload_bytes": "/w=="}, 400, "invalid_argument", "events[1].payload_bytes"),
        ({"kind": "thought", "idempotency_key": "k"}, 400, "invalid_argument", "events[1].idempotency_key"),
        (
            {"kind": "thought", "data": {"text": "x" * 256 * 1024}},
            413,
            "payload_too_large",
            "events[1].payload_bytes",
        ),
    ],
)
async def test_one_wrong_event_refuses_the_batch(
    runtime: RuntimeRig, event: Document, status: int, code: str, field: str
) -> None:
    """A batch is atomic: the first wrong event is named, and none is written."""
    run_id = await runtime.make_run()
    before = await runtime.counts()
    body = {"events": [{"kind": "thought"}, event]}
    refused = await runtime.json("POST", f"/v1/runs/{run_id}/events", body, status=status)
    assert (refused["code"], refused["details"]["field"]) == (code, field)
    assert await runtime.counts() == before


async def test_limits_of_a_request(runtime_database: Database) -> None:
    """Events, bytes and key lengths: at the limit accepted, one beyond refused before any write."""
    async with open_runtime(runtime_database, Settings(limits=SMALL)) as runtime:
        run_id = await runtime.make_run()
        path = f"/v1/runs/{run_id}/events"
        assert len(await runtime.append(run_id, *"abcde")) == 5
        before = await runtime.counts()
        too_many = await runtime.json("POST", path, {"events": [{"kind": "thought"}] * 6}, status=413)
        assert (too_many["code"], too_many["details"]["limit_events"]) == ("payload_too_large", "5")
        for over, status in ((1, 413), (0, 200)):
            frame = b'{"events":[{"kind":"thought","data":{"text":"%s"}}]}'
            body = frame % (b"x" * (SMALL.append_bytes_max + over - len(frame) + 2))
            assert len(body) == SMALL.append_bytes_max + over
            assert (await runtime.call("POST", path, content=body)).status_code == status
        assert (await runtime.counts())[0] == before[0] + 1
        for key, status in (("k" * 10, 200), ("k" * 11, 400), ("", 400), ("ä", 400)):
            response = await runtime.http.post(
                path,
                json={"events": [{"kind": "thought"}]},
                headers={b"Authorization": b"Bearer user", b"Idempotency-Key": key.encode("latin-1")},
            )
            assert response.status_code == status, key
        assert (await runtime.counts())[0] == before[0] + 2


async def test_default_limit_of_events(runtime: RuntimeRig) -> None:
    """SPEC section 6: 500 events are accepted, 501 are not."""
    run_id = await runtime.make_run()
    path = f"/v1/runs/{run_id}/events"
    for count, status in ((501, 413), (500, 200)):
        request = m.AppendEventsRequest(events=[m.EventInput(kind="thought", payload_bytes=THOUGHT)] * count)
        response = await runtime.call(
            "POST", path, content=request.SerializeToString(), media_type=PROTOBUF, accept=PROTOBUF
        )
        assert response.status_code == status
    assert len(await runtime.texts(run_id)) == 500


async def test_rate_before_any_write(runtime_database: Database) -> None:
    """The burst passes, one more is 429 with a time to wait, writes nothing, and passes after that time."""
    async with open_runtime(runtime_database, Settings(publish_rate_per_s={"run_events": 20.0})) as runtime:
        run_id = await runtime.make_run()
        await runtime.append(run_id, *["x"] * 200, key="burst")
        before = await runtime.counts()
        body = {"events": [{"kind": "thought"}] * 20}
        response = await runtime.call("POST", f"/v1/runs/{run_id}/events", body, key="more")
        refused = response.json()
        assert (response.status_code, refused["code"]) == (429, "rate_limited")
        assert 0 < refused["retry_after_ms"] <= 1_001
        assert response.headers["Retry-After"] == "1" or refused["retry_after_ms"] > 1_000
        assert await runtime.counts() == before
        assert len(await runtime.append(run_id, *["x"] * 200, key="burst")) == 200
        assert await runtime.counts() == before
        await trio.sleep(refused["retry_after_ms"] / 1000)
        await runtime.json("POST", f"/v1/runs/{run_id}/events", body, key="more")
        # The end of a run is never refused for its rate.
        await runtime.json("POST", f"/v1/runs/{run_id}/transitions", {"to_state": "RUN_STATE_FAILED"})


async def test_full_inbox(runtime_database: Database) -> None:
    """While a head is held, inbox_requests_max requests wait; one more is 503 with a time to come back."""
    async with open_runtime(
        runtime_database, Settings(limits=RuntimeLimits(inbox_requests_max=3))
    ) as runtime:
        run_id = await runtime.make_run()
        statuses: list[int] = []

        async def post(text: str) -> None:
            body = {"events": [{"kind": "thought", "data": {"text": text}}]}
            response = await runtime.call("POST", f"/v1/runs/{run_id}/events", body)
            statuses.append(response.status_code)
            if response.status_code == 503:
                assert response.json()["code"] == "unavailable"
                assert response.json()["retry_after_ms"] > 0

        async def is_refused() -> bool:
            await trio.lowlevel.checkpoint()
            return statuses == [503]

        async with (
            trio.open_nursery() as nursery,
            runtime.pool.acquire() as holder,
            holder.transaction(),
        ):
            await holder.execute("SELECT FROM runtime.topic_heads FOR UPDATE")
            for number in range(4):
                nursery.start_soon(post, str(number))
            await eventually(is_refused)
        assert sorted(statuses) == [200, 200, 200, 503]
        assert await runtime.metric("khala_runtime_inbox_requests") == 0


async def test_pages_of_history(runtime_database: Database) -> None:
    """Pages are cut by count and bytes, say where they end, and continue each other by chain."""
    limits = RuntimeLimits(page_events_max=10, page_bytes_max=1_000)
    async with open_runtime(runtime_database, Settings(limits=limits)) as runtime:
        run_id = await runtime.make_run()
        path = f"/v1/runs/{run_id}/events"
        acks = await runtime.append(run_id, *["x" * 100] * 20)
        pages = [await runtime.json("GET", path)]
        while int(pages[-1]["watermark"]["seq"]) < 21:
            pages.append(await runtime.json("GET", f"{path}?after_seq={pages[-1]['watermark']['seq']}"))
        assert [len(page["events"]) for page in pages] == [10, 9, 2]
        assert all(page["head_seq"] == "21" and page["floor_seq"] == "1" for page in pages)
        for earlier, later in itertools.pairwise(pages):
            assert earlier["watermark"]["chain"] == later["chain_before"]
        assert pages[-1]["watermark"]["chain"] == acks[-1]["chain"]
        events = [event for page in pages for event in page["events"]]
        assert [event["event_id"] for event in events[1:]] == [ack["event_id"] for ack in acks]
        empty = await runtime.json("GET", f"{path}?after_seq=21")
        assert (empty["events"], empty["watermark"]["seq"]) == ([], "21")
        ahead = await runtime.json("GET", f"{path}?after_seq=22", status=410)
        assert ahead["code"] == "stale_cursor.lineage_mismatch"
        assert len((await runtime.json("GET", f"{path}?limit=10"))["events"]) == 10
        for query in (
            "limit=11",
            "limit=0",
            "after_seq=-1",
            "after_seq=1.5",
            "after_seq=9223372036854775808",
        ):
            assert (await runtime.json("GET", f"{path}?{query}", status=400))["code"] == "invalid_argument"


async def test_request_id_follows_the_event(runtime: RuntimeRig) -> None:
    """X-Request-Id is taken over, answered and written beside the event."""
    run_id = await runtime.make_run()
    response = await runtime.http.post(
        f"/v1/runs/{run_id}/events",
        json={"events": [{"kind": "thought"}]},
        headers={"Authorization": "Bearer user", "X-Request-Id": "my-request.1"},
    )
    assert response.headers["X-Request-Id"] == "my-request.1"
    page = await runtime.json("GET", f"/v1/runs/{run_id}/events?after_seq=1")
    assert page["events"][0]["request_id"] == "my-request.1"
