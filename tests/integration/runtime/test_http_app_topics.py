"""App topics over HTTP: rights, limits before any write, idempotency, history by pages."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from khala_contracts import http_messages as m
from khala_contracts import kinds
from tests.actors.runtime.rig import ORG, make_id
from tests.integration.runtime.rig import (
    PROTOBUF,
    SMALL,
    Document,
    RuntimeRig,
    Settings,
    open_runtime,
    thought,
)

if TYPE_CHECKING:
    from tests.postgres_cluster import Database

FOREIGN_ORG = make_id("org", 7)
PATH = f"/v1/app-topics/{ORG}/shop/events"
TOPIC = f"app:{ORG}:shop"


def batch(*texts: str) -> Document:
    """Return the body of an append."""
    return {"events": [thought(text) for text in texts]}


async def test_a_topic_begins_with_its_first_event(runtime: RuntimeRig) -> None:
    """SPEC section 4: an ack carries event id, topic, seq, lineage, chain; history and position agree."""
    (first,) = (await runtime.json("POST", PATH, batch("a"), bearer="shop"))["acks"]
    assert (first["topic"], first["seq"]) == (TOPIC, "1")
    second, third = (await runtime.json("POST", PATH, batch("b", "c"), bearer="member"))["acks"]
    page = await runtime.json("GET", f"{PATH}?limit=2", bearer="member")
    assert [event["seq"] for event in page["events"]] == ["1", "2"]
    assert page["watermark"] == {key: second[key] for key in ("topic", "lineage", "seq", "chain")}
    rest = await runtime.json("GET", f"{PATH}?after_seq=2", bearer="shop")
    assert (rest["watermark"]["chain"], rest["chain_before"]) == (third["chain"], second["chain"])
    info = await runtime.json("GET", f"/v1/topics/{TOPIC}", bearer="shop")
    assert (info["head_seq"], info["head_chain"], info["topic_class"]) == ("3", third["chain"], "app")
    ahead = await runtime.json("GET", f"{PATH}?after_seq=4", bearer="shop", status=410)
    assert ahead["code"] == "stale_cursor.lineage_mismatch"


async def test_binary_body(runtime: RuntimeRig) -> None:
    """ARC-10: both forms of a body store the same payload."""
    payload = kinds.encode_payload("app", "thought", {"text": "a"})
    request = m.AppendEventsRequest(events=[m.EventInput(kind="thought", payload_bytes=payload)])
    response = await runtime.call(
        "POST", PATH, content=request.SerializeToString(), media_type=PROTOBUF, accept=PROTOBUF, bearer="shop"
    )
    assert m.AppendEventsResponse.FromString(response.content).acks[0].seq == 1
    page = await runtime.json("GET", PATH, bearer="shop")
    assert page["events"][0]["payload_bytes"] == b64encode(payload).decode()


@pytest.mark.parametrize(
    ("bearer", "org_id", "name"),
    [
        ("user", ORG, "shop"),
        ("member", FOREIGN_ORG, "shop"),
        ("member", make_id("org", 8), "shop"),
        ("reader", ORG, "shop"),
        ("shop", ORG, "shop2"),
        ("shop", FOREIGN_ORG, "shop"),
    ],
)
async def test_no_right_and_no_org_look_alike(
    runtime: RuntimeRig, bearer: str, org_id: str, name: str
) -> None:
    """SPEC section 1, promise 7: foreign, without the right, outside the pattern, nonexistent: one answer."""
    before = await runtime.counts()
    path = f"/v1/app-topics/{org_id}/{name}/events"
    # Also for a body that would be refused by itself: it is not looked at.
    refusals = [
        await runtime.json("POST", path, body, bearer=bearer, status=404) for body in (batch("a"), {})
    ]
    if bearer != "reader":
        await runtime.json("POST", PATH, batch("there"), bearer="publisher")
        refusals.append(await runtime.json("GET", path, bearer=bearer, status=404))
        before = await runtime.counts()
    for refusal in refusals:
        assert {key: refusal[key] for key in ("code", "message", "details")} == {
            "code": "not_found",
            "message": refusals[0]["message"],
            "details": {},
        }
    assert await runtime.counts() == before


async def test_malformed_names_are_said_to_be(runtime: RuntimeRig) -> None:
    """The grammar is public: a wrong name says nothing about what exists."""
    for org_id, name in ((ORG, "Shop!"), ("org_x", "shop"), (ORG, "a:b"), (ORG, "*")):
        path = f"/v1/app-topics/{org_id}/{name}/events"
        refused = await runtime.json("POST", path, batch("a"), bearer="member", status=400)
        assert refused["code"] == "topic_invalid"


async def test_repeats_and_expected_positions(runtime: RuntimeRig) -> None:
    """SPEC section 1, promise 8, and optimistic appends; a refused one leaves nothing."""
    first = await runtime.json("POST", PATH, batch("a"), bearer="shop", key="k")
    assert await runtime.json("POST", PATH, batch("a"), bearer="shop", key="k") == first
    conflict = await runtime.json("POST", PATH, batch("b"), bearer="shop", key="k", status=409)
    assert conflict["code"] == "idempotency_conflict"
    # The same key for another topic is another request.
    other = f"/v1/app-topics/{ORG}/other/events"
    await runtime.json("POST", other, batch("b"), bearer="publisher", key="k")
    before = await runtime.counts()
    stale = await runtime.json("POST", PATH, batch("b") | {"expected_seq": "0"}, bearer="shop", status=409)
    assert (stale["code"], stale["details"]) == ("seq_conflict", {"expected_seq": "0", "head_seq": "1"})
    assert await runtime.counts() == before
    await runtime.json("POST", PATH, batch("b") | {"expected_seq": "1"}, bearer="shop")


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"kind": "no.such"}, "kind_unknown"),
        ({"kind": "khala.erased"}, "kind_unknown"),
        ({"kind": "run.transferred"}, "kind_unknown"),
        ({"kind": "worker.registered"}, "kind_unknown"),
        ({"kind": "custom", "data": {"name": "x" * 66_000}}, "payload_too_large"),
        ({"kind": "thought", "idempotency_key": "k"}, "invalid_argument"),
    ],
)
async def test_what_is_refused_is_refused_before_a_write(
    runtime: RuntimeRig, event: Document, code: str
) -> None:
    """Kinds of the class, and the class's 64 KiB; the event at fault is named, the batch is one decision."""
    before = await runtime.counts()
    body = {"events": [thought("fine"), event]}
    response = await runtime.call("POST", PATH, body, bearer="shop")
    refused = response.json()
    assert refused["code"] == code
    assert refused["details"]["field"].startswith("events[1].")
    assert await runtime.counts() == before


async def test_payload_limit_of_the_class(runtime: RuntimeRig) -> None:
    """64 KiB pass, one byte more does not."""
    empty = len(kinds.encode_payload("app", "output", {"text": "x" * 65_000})) - 65_000
    for size, status in ((64 * 1024, 200), (64 * 1024 + 1, 413)):
        event = {"kind": "output", "data": {"text": "x" * (size - empty)}}
        await runtime.json("POST", PATH, {"events": [event]}, bearer="shop", status=status)


async def test_batch_limits(runtime_database: Database) -> None:
    """As for runs: so many events, so many bytes."""
    async with open_runtime(runtime_database, Settings(limits=SMALL)) as runtime:
        await runtime.json("POST", PATH, batch(*"abcde"), bearer="shop")
        for texts in ("abcdef", ["x" * 2_000]):
            refused = await runtime.json("POST", PATH, batch(*texts), bearer="shop", status=413)
            assert refused["code"] == "payload_too_large"


async def test_rate_per_topic_before_a_write(runtime_database: Database) -> None:
    """SPEC section 2: a bucket per topic; refused with the time to wait, nothing written, retries pass."""
    settings = Settings(publish_rate_per_s={"app": 0.1})
    async with open_runtime(runtime_database, settings) as runtime:
        first = await runtime.json("POST", PATH, batch("a"), bearer="shop", key="k")
        before = await runtime.counts()
        commits = await runtime.metric("khala_runtime_requests_total")
        response = await runtime.call("POST", PATH, batch("b"), bearer="shop")
        refused = response.json()
        assert (response.status_code, refused["code"]) == (429, "rate_limited")
        assert refused["details"] == {"limit": "publish_rate_per_s", "max": "0.1", "topic_class": "app"}
        assert 0 < refused["retry_after_ms"] <= 10_001
        assert await runtime.counts() == before
        # It never came to a transaction, and what is committed may be asked for again.
        assert await runtime.metric("khala_runtime_requests_total") == commits
        assert await runtime.json("POST", PATH, batch("a"), bearer="shop", key="k") == first
        await runtime.json("POST", f"/v1/app-topics/{ORG}/other/events", batch("a"), bearer="publisher")


async def test_metrics_name_classes_only(runtime: RuntimeRig) -> None:
    """STYLE section 1: no topic, org or name in a label."""
    await runtime.json("POST", PATH, batch("a"), bearer="shop")
    text = (await runtime.http.get("/metrics")).text
    assert "shop" not in text
    assert ORG not in text
