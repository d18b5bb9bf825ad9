"""Refusals over HTTP of the running system: each its code and its path, and the database as before.

Rights are those of the real control; what each service does by itself is tested beside it.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

import pytest
import trio

from khala_contracts.codec import encode_varint
from khala_contracts.topics import format_run_events
from tests.e2e.ledger import Ledger
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.wire import (
    JSON,
    Api,
    Person,
    events_path,
    open_api,
    open_welcomed,
    read_through,
    refusal,
    run_of,
    secret_of,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import httpx

    from khala_contracts.topics import TopicName
    from tests.e2e.system import System

KIB: Final = 1024


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """What PostgreSQL holds."""
    with Ledger.open(system) as opened:
        yield opened


@pytest.fixture
async def api(system: System) -> AsyncIterator[Api]:
    """HTTP of the system."""
    async with open_api(system) as opened:
        yield opened


@pytest.fixture
async def ann(api: Api) -> Person:
    """Somebody."""
    return await api.sign_in()


# -- what is malformed (PR-11) -------------------------------------------------------------------------


_TEXT: Final = '"kind": "thought", "data": {"text": "x"}'
MALFORMED: Final = {
    "unknown field": ('{"evnts": []}', "evnts"),
    "unknown field inside": (f'{{"events": [{{{_TEXT}, "kid": 1}}]}}', "events[0].kid"),
    "given twice": (f'{{"events": [{{{_TEXT}, "kind": "output"}}]}}', "events[0].kind"),
    "both spellings": (
        f'{{"events": [{{{_TEXT}}}], "expected_seq": "1", "expectedSeq": "1"}}',
        "expected_seq",
    ),
    "null": ('{"events": null}', "events"),
    "null inside": ('{"events": [null]}', "events[0]"),
    "null for text": ('{"events": [{"kind": null}]}', "events[0].kind"),
    "two of a oneof": (f'{{"events": [{{{_TEXT}, "payload_bytes": ""}}]}}', "events[0].payload_bytes"),
    "number for text": ('{"events": [{"kind": 7}]}', "events[0].kind"),
    "object for array": ('{"events": {}}', "events"),
    "text for object": ('{"events": ["x"]}', "events[0]"),
    "no base64": ('{"events": [{"kind": "thought", "payload_bytes": "*"}]}', "events[0].payload_bytes"),
    "fraction for a number": ('{"events": [], "expected_seq": 1.5}', "expected_seq"),
    "2^63": ('{"events": [], "expected_seq": "9223372036854775808"}', "expected_seq"),
    "unpaired surrogate": ('{"events": [{"kind": "\\ud800"}]}', "events[0].kind"),
    "NaN": ('{"events": [], "expected_seq": NaN}', None),
    "trailing data": ('{"events": []} []', None),
    "cut off": ('{"events": [', None),
    "not UTF-8": ('{"events": "\xff"}'.encode("latin-1").decode("latin-1"), None),
    "array": ("[]", None),
    "nothing": ("", None),
    "deep": ('{"events":' * 30 + "1" + "}" * 30, None),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_json_is_refused_with_its_path(
    api: Api, ann: Person, ledger: Ledger, name: str
) -> None:
    """PR-11: 400 malformed_message naming the field, and the database is as before."""
    text, field = MALFORMED[name]
    content: str | bytes = text.encode("latin-1") if name == "not UTF-8" else text
    topic = await api.create_run(ann)
    before = ledger.state()
    headers = {"Content-Type": JSON, "Authorization": f"Bearer {ann.access_token}"}
    answer = await api.http.post(api.runtime_url + events_path(topic), content=content, headers=headers)
    assert refusal(answer) == (400, "malformed_message")
    if field is not None:
        assert answer.json()["details"]["field"] == field
    assert ledger.state() == before


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/runs", '{"nme": "x"}', "nme"),
        ("/v1/runs", '{"name": "x", "name": "y"}', "name"),
        ("/v1/runs", '{"attributes": {"a": 1}}', "attributes"),
        ("/v1/runs/{run}/transitions", '{"to_state": "DONE"}', "to_state"),
        (
            "/v1/runs/{run}/transitions",
            '{"toState": "RUN_STATE_FAILED", "to_state": "RUN_STATE_FAILED"}',
            "to_state",
        ),
        ("/v1/runs/{run}/transitions", '{"exit_status": 2147483648}', "exit_status"),
        ("/api/sync/token", '{"topics": "x"}', "topics"),
        ("/api/sync/token", '{"topics": ["x"], "subject": {"user": "y"}}', "subject.user"),
        ("/api/keys", '{"name": "x", "rights": [1]}', "rights[0]"),
        ("/api/auth/refresh", '{"refresh_token": null}', "refresh_token"),
        ("/api/auth/exchange", '{"code": "a", "code_verifier": 1}', "code_verifier"),
    ],
)
async def test_every_command_is_read_strictly(
    api: Api, ann: Person, ledger: Ledger, path: str, body: str, field: str
) -> None:
    """The same door for every body of every service."""
    topic = await api.create_run(ann)
    before = ledger.state()
    answer = await api.post(path.replace("{run}", run_of(topic)), body, ann.access_token)
    assert refusal(answer) == (400, "malformed_message")
    assert answer.json()["details"]["field"].startswith(field)
    assert ledger.state() == before


async def test_malformed_protobuf_and_other_media(api: Api, ann: Person, ledger: Ledger) -> None:
    """400 for bytes that are no such message, 415 for forms that we do not speak, 405 for other methods."""
    topic = await api.create_run(ann)
    before = ledger.state()
    path, token = events_path(topic), ann.access_token
    for data in (b"\xff", b"\x0a\x05x", b"\x0a\x02\x0a\xff"):
        answer = await api.post(path, data, token, Accept=JSON)
        assert refusal(answer) == (400, "malformed_message")
    for media in (
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
    ):
        answer = await api.post(path, '{"events": []}', token, Content_Type=media)
        assert refusal(answer) == (415, "unsupported_media_type")
    url = api.runtime_url + path
    for verb in ("PUT", "PATCH", "DELETE"):
        assert refusal(await api.http.request(verb, url)) == (405, "method_not_allowed")
    assert ledger.state() == before


# -- errors, limits, strangers -----------------------------------------------------------------------------


async def test_errors_have_one_form_and_carry_the_request_id(api: Api, ann: Person, ledger: Ledger) -> None:
    """SPEC section 4: the seven fields; a good X-Request-Id comes back and is written beside its events."""
    error = await api.get("/v1/runs/run_x", ann.access_token, X_Request_Id="my.request-1")
    assert error.headers["X-Request-Id"] == "my.request-1"
    document = error.json()
    fields = {"code", "message", "retryable", "retry_after_ms", "docs", "details", "request_id"}
    assert fields <= set(document)
    assert (document["request_id"], document["code"]) == ("my.request-1", "not_found")
    bad = await api.get("/v1/runs/run_x", ann.access_token, X_Request_Id="x" * 129)
    assert bad.headers["X-Request-Id"] == bad.json()["request_id"] != "x" * 129
    topic = await api.create_run(ann)
    body = {"events": [thought("x")]}
    done = await api.post(events_path(topic), body, ann.access_token, X_Request_Id="my.request-2")
    assert done.headers["X-Request-Id"] == "my.request-2"
    [row] = ledger.rows("SELECT request_id FROM runtime.events WHERE topic = $1 AND seq = 2", topic)
    assert row["request_id"] == "my.request-2"


async def test_strangers_and_the_unknown_look_the_same(api: Api, ann: Person, ledger: Ledger) -> None:
    """Another person's run, one that nobody has, and one that cannot be: the same 404, whatever is asked."""
    bob = await api.sign_in("bob", OTHER_DEVICE)
    foreign = run_of(await api.create_run(bob))
    before = ledger.state()
    for ask in ("{}", "{}/events", "{}/events?after_seq=3"):
        check_same_refusal(
            [await api.get(f"/v1/runs/{ask.format(i)}", ann.access_token) for i in ids(foreign)]
        )
    topics = [format_run_events(run_id) for run_id in ids(foreign)[:2]]
    check_same_refusal([await api.get(f"/v1/topics/{topic}", ann.access_token) for topic in topics])
    for ask, body in (
        ("events", {"events": [thought("x")]}),
        ("transitions", {"to_state": "RUN_STATE_FAILED"}),
    ):
        paths = [f"/v1/runs/{run_id}/{ask}" for run_id in ids(foreign)]
        check_same_refusal([await api.post(path, body, ann.access_token) for path in paths])
    refused = [(await api.post("/api/sync/token", {"topics": [t]}, ann.access_token)) for t in topics]
    said = {
        json.dumps({**a.json(), "request_id": ""}).replace(t, "T")
        for a, t in zip(refused, topics, strict=True)
    }
    assert len(said) == 1
    assert {answer.status_code for answer in refused} == {403}
    assert ledger.state() == before


def ids(foreign: str) -> tuple[str, ...]:
    """Return a foreign run, one that does not exist, and text that is no id."""
    return foreign, f"run_{1:026d}", "run_x"


def check_same_refusal(answers: list[httpx.Response]) -> None:
    """All are 404 not_found with equal bodies."""
    assert {refusal(answer) for answer in answers} == {(404, "not_found")}
    assert len({json.dumps({**answer.json(), "request_id": ""}) for answer in answers}) == 1


async def test_a_payload_at_its_limit_is_delivered_and_one_byte_more_is_not_written(
    system: System, api: Api, ann: Person, ledger: Ledger
) -> None:
    """256 KiB of payload reach the wire whole; 256 KiB + 1 are payload_too_large, 413 (SPEC section 2)."""
    topic = await api.create_run(ann)
    whole = padded_thought(256 * KIB)
    [ack] = await api.append(
        ann, topic, {"kind": "thought", "payload_bytes": base64.b64encode(whole).decode()}
    )
    before = ledger.state()
    over = base64.b64encode(padded_thought(256 * KIB + 1)).decode()
    body: Mapping[str, object] = {"events": [thought("fits"), {"kind": "thought", "payload_bytes": over}]}
    assert refusal(await api.post(events_path(topic), body, ann.access_token)) == (413, "payload_too_large")
    many = {"events": [{"kind": "thought"}] * 501}
    assert refusal(await api.post(events_path(topic), many, ann.access_token)) == (413, "payload_too_large")
    assert ledger.state() == before
    async with open_welcomed(system, api, ann, topic) as wire:
        follower = await subscribe(wire, topic)
        await read_through(wire, follower, ack.seq)
        assert follower.frames[-1].payload == whole
        assert follower.chain == ack.chain
    assert len(await api.append(ann, topic, *[{"kind": "thought"}] * 500)) == 500


def padded_thought(size: int) -> bytes:
    """Return a thought's payload of exactly this many bytes."""
    text = b"x" * (size - 4)
    payload = b"\x0a" + encode_varint(len(text)) + text
    assert len(payload) == size
    return payload


async def test_more_than_the_rate_is_refused_before_any_write(api: Api, ann: Person, ledger: Ledger) -> None:
    """2,400 events at once pass, more are rate_limited with a time that suffices; a retry of what is there passes."""
    topic: TopicName = await api.create_run(ann)
    batch = {"events": [{"kind": "thought"}] * 480}
    first = await api.post(events_path(topic), batch, ann.access_token, Idempotency_Key="0")
    for number in range(1, 5):
        answer = await api.post(events_path(topic), batch, ann.access_token, Idempotency_Key=str(number))
        assert answer.status_code == 200, answer.text
    before = ledger.state()
    refused = await api.post(events_path(topic), batch, ann.access_token)
    assert refusal(refused) == (429, "rate_limited")
    wait_ms = refused.json()["retry_after_ms"]
    assert 0 < wait_ms <= 2_001
    assert int(refused.headers["Retry-After"]) * 1000 >= wait_ms
    again = await api.post(events_path(topic), batch, ann.access_token, Idempotency_Key="0")
    assert (again.status_code, again.text) == (200, first.text)
    assert ledger.state() == before
    await trio.sleep(wait_ms / 1000)
    assert (await api.post(events_path(topic), batch, ann.access_token)).status_code == 200


async def test_credentials_of_every_other_kind_open_nothing(system: System, api: Api, ann: Person) -> None:
    """None, noise, a sync token, a refresh token, a service's credential, a token in the URL: 401 everywhere."""
    topic = await api.create_run(ann)
    sync_token = await api.mint(ann, topic)
    wrong = [
        None,
        "noise",
        sync_token,
        ann.refresh_token,
        secret_of(system, "service_node"),
        "khk_" + "0" * 60,
    ]
    for credential in wrong:
        for path in (f"/v1/runs/{run_of(topic)}", "/v1/runs", "/api/auth/session", "/api/keys"):
            answer = await api.get(path, credential)
            assert refusal(answer) == (401, "unauthenticated"), (credential, path)
        posted = await api.post(events_path(topic), {"events": [thought("x")]}, credential)
        assert refusal(posted) == (401, "unauthenticated")
    in_url = await api.get(f"/v1/runs?access_token={ann.access_token}&token={ann.access_token}")
    assert refusal(in_url) == (401, "unauthenticated")
    for path in ("/internal/v1/sync-tokens/redeem", "/internal/v1/principals/resolve"):
        for credential in (*wrong[:4], ann.access_token, secret_of(system, "service_control")):
            assert (await api.post(path, {}, credential)).status_code == 401
    owners = f"{api.runtime_url}/internal/v1/topics/owners"
    for credential in (None, ann.access_token, secret_of(system, "service_node")):
        assert (await api.post(owners, {"topics": [topic]}, credential)).status_code == 401
