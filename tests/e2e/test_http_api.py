"""HTTP of the running system: the golden bodies, both forms of every command, refusals that write nothing.

The runtime asks the real control who a caller is, and control the real runtime whose a run is; the rules
of each service by itself are tested beside that service (tests/integration).
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import httpx
import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import strict_json
from khala_contracts.codec import encode_varint
from khala_contracts.topics import format_run_events
from tests.contract.fixture_files import Row, load, message_classes, rows
from tests.e2e.ledger import Ledger
from tests.e2e.wire import (
    ANSWER_S,
    JSON,
    PROTOBUF,
    Api,
    Document,
    Person,
    events_path,
    open_api,
    positions,
    refusal,
    secret_of,
    sync_address,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.message import Message

    from tests.e2e.system import System

ROOT: Final = Path(__file__).parents[2]
EVENT_STREAM: Final = "text/" + "event-stream"
OTHER_DEVICE: Final = "dev_fedcba9876543210"
RACING: Final = 100
KIB: Final = 1024
CLASSES: Final = message_classes()
RUNTIME: Final = {row["name"]: row for row in rows(load("runtime-orchestration-v1.json"), "bodies")}
CONTROL: Final = {row["name"]: row for row in rows(load("control-auth-session-v1.json"), "bodies")}


@pytest.fixture(scope="module")
def system(own_system: System) -> System:
    """Nobody else's runs are in its lists."""
    return own_system


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


# -- the golden bodies (PR-05, PR-06) ------------------------------------------------------------------


def shape(value: object) -> object:
    """Return a document with types in place of values; a list is the shape of its first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    # 64-bit numbers travel as text.
    return "digits" if isinstance(value, str) and value.isdecimal() else type(value).__name__


def golden(row: Row) -> Document:
    """Return the body of a row."""
    return cast("Document", row["body"])


def filled(row: Row, form: str, **changed: object) -> dict[str, object] | bytes:
    """Return a golden body as it is, but for ids and secrets that only a live system has."""
    body = {**golden(row), **changed}
    if form == JSON:
        return body
    if not changed:
        return bytes.fromhex(row["binary_hex"])
    message = strict_json.parse_strict(strict_json.dump(body), CLASSES[row["message"]])
    return message.SerializeToString(deterministic=True)


def read_as(row: Row, answer: httpx.Response, form: str) -> Document:
    """Return an answer, which must be a whole message of the golden one's type, as JSON."""
    assert answer.is_success, (answer.status_code, answer.content)
    assert answer.headers["Content-Type"] == form
    cls = CLASSES[row["message"]]
    if form == JSON:
        message: Message = strict_json.parse_strict(answer.content, cls)
        assert strict_json.print_json(message) == answer.text
    else:
        message = cls.FromString(answer.content)
        assert message.SerializeToString(deterministic=True) == answer.content
    document: Document = json.loads(strict_json.print_json(message))
    return document


def matches(document: Document, row: Row) -> None:
    """The answer has the golden body's fields and types."""
    assert shape(document) == shape(golden(row)), row["name"]


@pytest.mark.parametrize("form", [JSON, PROTOBUF])
async def test_runtime_bodies_of_the_fixture_are_taken_as_they_are(
    system: System, api: Api, ledger: Ledger, form: str
) -> None:
    """PR-05: create, append, finish, owners, in the fixture's order; what is stored is the fixture's bytes."""
    person = await api.sign_in(f"golden-{form[-4:]}")
    token = person.access_token

    created = await api.post("/v1/runs", filled(RUNTIME["create a run"], form), token)
    document = read_as(RUNTIME["created"], created, form)
    run = document["run"]
    wanted = golden(RUNTIME["create a run"])
    assert {name: run[name] for name in ("name", "agent", "source", "attributes")} == {
        name: wanted[name] for name in ("name", "agent", "source", "attributes")
    }
    golden_run = golden(RUNTIME["created"])["run"]
    assert shape({**run, "attributes": {}}) == shape({**golden_run, "attributes": {}})
    topic = format_run_events(run["run_id"])
    path = f"/v1/runs/{run['run_id']}"

    appended = await api.post(f"{path}/events", filled(RUNTIME["append three events"], form), token)
    acks = read_as(RUNTIME["appended"], appended, form)["acks"]
    assert [ack["seq"] for ack in acks] == ["2", "3", "4"]
    assert shape(acks) == shape(golden(RUNTIME["appended"])["acks"])

    one = read_as(RUNTIME["one run"], await api.get(path, token, Accept=form), form)
    assert shape({**one["run"], "attributes": {}}) == shape({**golden_run, "attributes": {}})
    listed = read_as(RUNTIME["runs"], await api.get("/v1/runs", token, Accept=form), form)
    assert [found["run_id"] for found in listed["runs"]] == [run["run_id"]]
    info = read_as(RUNTIME["topic"], await api.get(f"/v1/topics/{topic}", token, Accept=form), form)
    matches(info, RUNTIME["topic"])

    conflict = await api.post(f"{path}/events", filled(RUNTIME["append at an expected head"], form), token)
    error = m.Error.FromString(conflict.content) if form == PROTOBUF else None
    code = error.code if error is not None else conflict.json()["code"]
    assert (conflict.status_code, code) == (409, "seq_conflict")

    changed = await api.post(f"{path}/transitions", filled(RUNTIME["finish the run"], form), token)
    finished = read_as(RUNTIME["changed"], changed, form)
    assert (finished["run"]["state"], finished["ack"]["seq"]) == ("RUN_STATE_SUCCEEDED", "5")
    history = read_as(RUNTIME["history"], await api.get(f"{path}/events", token, Accept=form), form)
    matches(history, RUNTIME["history"])

    asked = filled(RUNTIME["ask for owners"], form, topics=[topic, f"run:run_{1:026d}:events"])
    control_credential = secret_of(system, "service_control")
    answer = await api.post(f"{api.runtime_url}/internal/v1/topics/owners", asked, control_credential)
    owners = read_as(RUNTIME["owners"], answer, form)["owners"]
    assert [(owner["known"], owner["owner_user_id"]) for owner in owners] == [
        (True, person.user_id),
        (False, ""),
    ]

    stored = ledger.rows(
        "SELECT kind, schema_version, payload, event_id FROM runtime.events WHERE topic = $1 ORDER BY seq",
        topic,
    )
    payloads = {
        (row["kind"], row["payload_hex"])
        for row in rows(load("runtime-orchestration-v1.json"), "payloads")
        if row["topic_class"] == "run_events"
    }
    assert [row["kind"] for row in stored] == ["run.started", "thought", "action", "output", "run.finished"]
    # The samples of these three kinds are the payloads of the fixture's append.
    assert {(row["kind"], row["payload"].hex()) for row in stored[1:4]} <= payloads
    assert [row["event_id"] for row in stored[1:4]] == [ack["event_id"] for ack in acks]


@pytest.mark.parametrize("form", [JSON, PROTOBUF])
async def test_control_bodies_of_the_fixture_are_taken_as_they_are(
    system: System, api: Api, form: str
) -> None:
    """PR-06: every request of the fixture against the live control; every answer has its fields and types."""

    async def call(
        request: str, path: str, response: str, bearer: str | None = None, **changed: object
    ) -> Document:
        answer = await api.post(path, filled(CONTROL[request], form, **changed), bearer)
        return read_as(CONTROL[response], answer, form)

    async def look(path: str, response: str, credential: str | None = None) -> Document:
        return read_as(CONTROL[response], await api.get(path, credential, Accept=form), form)

    device_id = str(golden(CONTROL["refresh"])["device_id"])
    signed_in = read_as(CONTROL["signed in"], await api.walk_sign_in("dev", device_id, accept=form), form)
    matches(signed_in, CONTROL["signed in"])
    refresh = {"refresh_token": signed_in["refresh_token"]}
    refreshed = await call("refresh", "/api/auth/refresh", "signed in", **refresh)
    matches(refreshed, CONTROL["signed in"])
    session, token = refreshed["session"], refreshed["access_token"]
    matches(await look("/api/auth/sessions", "sessions", token), CONTROL["sessions"])
    org_id = session["orgs"][0]["org_id"]
    run = await api.post("/v1/runs", {}, token)
    topics = [format_run_events(run.json()["run"]["run_id"]), f"org:{org_id}:runs"]
    minted = await call("ask for a sync token", "/api/sync/token", "sync token", token, topics=topics)
    matches(minted, CONTROL["sync token"])
    assert {grant["topic"] for grant in minted["grants"]} == set(topics)

    created = await call("create a key", "/api/keys", "key created", token, org_id=org_id)
    matches(created, CONTROL["key created"])
    matches(await look("/api/keys", "keys", token), CONTROL["keys"])
    who = await call(
        "who is this",
        "/internal/v1/principals/resolve",
        "it is",
        secret_of(system, "service_runtime"),
        credential=created["secret"],
    )
    matches(who, CONTROL["it is"])
    backend = await call(
        "create a key", "/api/keys", "key created", token, org_id=org_id, rights=["mint"], topics=[]
    )
    own = await call(
        "ask for a user of one's own",
        "/api/sync/token",
        "sync token",
        backend["secret"],
        topics=[f"app:{org_id}:build-log"],
    )
    matches(own, CONTROL["sync token"])
    key_id = created["key"]["key_id"]
    answer = await api.post(f"/api/keys/{key_id}/revoke", b"" if form == PROTOBUF else "", token)
    revoked = read_as(CONTROL["key revoked"], answer, form)
    matches(revoked, CONTROL["key revoked"])
    compat = await look("/api/compat", "compatibility")
    assert compat.keys() == golden(CONTROL["compatibility"]).keys()
    assert await call("log out", "/api/auth/logout", "logged out", token) == golden(CONTROL["logged out"])
    gone = await api.get("/api/auth/session", token)
    assert refusal(gone) == (401, "reauth_required")


# -- both forms of every command (ARC-10) ----------------------------------------------------------------


EVENTS: Final = [
    {"kind": "thought", "data": {"text": "Grüße, 世界 \U0001f9ed", "role": "assistant"}},
    {"kind": "action", "data": {"tool": "bash", "args": {"a": [1, 2.5, None, True], "b": {"c": "d"}}}},
    {"kind": "custom", "data": {"name": "n", "data": {"deep": {"er": [1]}}}},
    {"kind": "output", "payload_bytes": base64.b64encode(b"\x08\x02\x12\x02hi").decode()},
    {"kind": "error"},
]
STREAMS: Final = {JSON: "application/x-ndjson", PROTOBUF: "application/x-protobuf-stream"}


async def test_both_forms_of_every_command_store_the_same_row(api: Api, ann: Person, ledger: Ledger) -> None:
    """ARC-10: create, append one, a batch and a stream, transition: byte-identical rows, ids and times aside."""
    stored = []
    for form in (JSON, PROTOBUF):

        def body(message: Message, form: str = form) -> str | bytes:
            return strict_json.print_json(message) if form == JSON else message.SerializeToString()

        create = m.CreateRunRequest(agent="a", source="s", attributes={"k": "v", "a": "b"}, org_id=ann.org_id)
        created = await api.post("/v1/runs", body(create), ann.access_token, Accept=JSON)
        assert created.status_code == 201
        run_id = created.json()["run"]["run_id"]
        path = f"/v1/runs/{run_id}"
        batch = strict_json.parse_strict(json.dumps({"events": EVENTS}), m.AppendEventsRequest)
        for message in (m.AppendEventsRequest(events=batch.events[:1]), batch):
            appended = await api.post(f"{path}/events", body(message), ann.access_token, Accept=JSON)
            assert appended.status_code == 200, appended.text
        streamed = [framed(event, form) for event in batch.events]
        headers = {"Authorization": f"Bearer {ann.access_token}", "Content-Type": STREAMS[form]}
        url = f"{api.runtime_url}{path}/events"
        acks = await api.http.post(url, content=b"".join(streamed), headers=headers)
        assert (acks.status_code, acks.headers["Content-Type"]) == (200, STREAMS[form])
        to_paused = m.TransitionRunRequest(to_state="RUN_STATE_PAUSED", reason="why")
        ended = m.TransitionRunRequest(to_state="RUN_STATE_FAILED", reason="x", exit_status=3, result="r")
        for transition in (to_paused, ended):
            changed = await api.post(f"{path}/transitions", body(transition), ann.access_token, Accept=JSON)
            assert changed.status_code == 200, changed.text
        events = ledger.rows(
            "SELECT seq, kind, schema_version, payload, actor FROM runtime.events WHERE topic = $1 ORDER BY seq",
            format_run_events(run_id),
        )
        run_row = ledger.rows(
            "SELECT owner_user_id, org_id, name, agent, source, attributes, state FROM runtime.runs "
            "WHERE run_id = $1",
            run_id,
        )
        stored.append((events, run_row))
    assert len(stored[0][0]) == 1 + 1 + len(EVENTS) * 2 + 2
    assert stored[0] == stored[1]


def framed(event: m.EventInput, form: str) -> bytes:
    """Return one event of a stream."""
    if form == JSON:
        return strict_json.print_json(event).encode() + b"\n"
    data = event.SerializeToString()
    return encode_varint(len(data)) + data


async def test_nobody_speaks_grpc(system: System) -> None:
    """ARC-10: an HTTP/2 request with prior knowledge, as gRPC sends it, is 404 or 415, or no HTTP/2 at all."""
    headers = {"Content-Type": "application/grpc", "TE": "trailers"}
    path = "/openagents.runtime.v1.Runs/Create"
    async with httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=5) as http:
        for name in ("control_url", "runtime_url", "admin_url"):
            answer = await http.post(system.ready[name] + path, headers=headers, content=b"\x00" * 5)
            assert answer.status_code in {404, 415}, name
            known = await http.post(f"{system.ready[name]}/v1/runs", headers=headers, content=b"\x00" * 5)
            assert known.status_code in {401, 404, 415}, name
    host, port, _ = sync_address(system)
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        with trio.fail_after(ANSWER_S):
            answered = bytes(await stream.receive_some())
        assert answered == b"" or answered.startswith(b"HTTP/1.1 4")


# -- one live lane (ARC-04) ------------------------------------------------------------------------------


def routes() -> list[tuple[str, str, str]]:
    """Return (service, method, path) of every route, as the sources register them."""
    found = []
    folders = {
        "control_url": "control/adapters/http",
        "runtime_url": "runtime/adapters/http",
    }
    pattern = re.compile(r"@app\.(get|post|put|delete|patch|route)\(\"([^\"]+)\"")
    for service, folder in folders.items():
        for path in sorted((ROOT / folder).glob("*.py")):
            found += [(service, *match) for match in pattern.findall(path.read_text("utf-8"))]
    probes = pattern.findall((ROOT / "khala/service/khala_service/http_edge.py").read_text("utf-8"))
    found += [(service, *probe) for service in (*folders, "admin_url") for probe in probes]
    return found


async def test_no_route_is_an_event_stream(system: System, api: Api, ann: Person, ledger: Ledger) -> None:
    """ARC-04: asked for nothing else, every route refuses (406; 404 where there is none) and does nothing."""
    before = ledger.state()
    known = routes()
    assert {path for _, _, path in known} >= {
        "/v1/runs", "/v1/runs/<run_id>/events", "/v1/topics/<topic>", "/api/sync/token", "/api/auth/refresh",
        "/healthz", "/metrics", "/", "/.well-known/jwks.json", "/internal/v1/sync-tokens/redeem",
    }  # fmt: skip
    headers = {"Accept": EVENT_STREAM, "Authorization": f"Bearer {ann.access_token}", "Content-Type": JSON}
    for service, method, path in known:
        url = system.ready[service] + re.sub(r"<\w+>", "x", path)
        for verb in {method.upper(), "GET"}:
            answer = await api.http.request(
                verb, url, headers=headers, content="{}" if verb == "POST" else None
            )
            assert answer.status_code in {404, 405, 406}, (verb, url, answer.status_code)
            if verb == method.upper():
                assert answer.status_code == 406, (verb, url)
            assert EVENT_STREAM not in answer.headers["Content-Type"]
            assert EVENT_STREAM not in answer.text
    for url in (
        f"{api.runtime_url}/v1/events",
        f"{api.control_url}/sync/v1/events",
        f"{api.runtime_url}/events",
    ):
        assert (await api.http.get(url, headers=headers)).status_code in {404, 406}
    host, port, path = sync_address(system)
    answer = await api.http.get(f"http://{host}:{port}{path}", headers=headers)
    assert 400 <= answer.status_code < 500
    assert ledger.state() == before


# -- the call of the contract, with a key of the command ------------------------------------------------

# SPEC section 8, verbatim.
CURL: Final = (
    'curl -sS "$KHALA_URL/v1/runs/$RUN/events" -H "Authorization: Bearer $KHALA_KEY" '
    """-H 'Content-Type: application/json' -d '{"events":[{"kind":"thought","data":{"text":"hi"}}]}'"""
)


async def test_the_curl_call_of_the_contract(system: System, api: Api, ledger: Ledger) -> None:
    """A key of `khala keys create` publishes by the documented line, and can do nothing else."""
    done = await trio.to_thread.run_sync(
        system.run, "keys", "create", "--name", "ci", "--can", "publish", "--topics", "run:*:events"
    )
    key = done.stdout.strip()
    assert key.startswith("khk_")
    created = await api.post("/v1/runs", {"name": "by-curl"}, key)
    run_id: str = created.json()["run"]["run_id"]
    environment = {"PATH": os.environ["PATH"], "KHALA_URL": api.runtime_url, "RUN": run_id, "KHALA_KEY": key}
    said = await trio.run_process(
        ["bash", "-c", CURL], env=environment, capture_stdout=True, capture_stderr=True
    )
    assert said.stderr == b""
    [ack] = positions(json.loads(said.stdout)["acks"])
    assert (ack.topic, ack.seq) == (format_run_events(run_id), 2)
    [event] = ledger.rows(
        "SELECT kind, payload, actor FROM runtime.events WHERE topic = $1 AND seq = 2", ack.topic
    )
    assert (event["kind"], event["payload"]) == ("thought", b"\x0a\x02hi")
    # The right to publish is not the right to read, to mint, or to make keys.
    assert refusal(await api.get(f"/v1/runs/{run_id}", key)) == (404, "not_found")
    minted = await api.post("/api/sync/token", {"topics": [ack.topic]}, key)
    assert minted.status_code == 403
    assert (await api.post("/api/keys", {"name": "more", "rights": ["read"]}, key)).status_code in {401, 403}


# -- idempotency -----------------------------------------------------------------------------------------


async def test_a_hundred_racing_requests_are_one_event(api: Api, ann: Person, ledger: Ledger) -> None:
    """Identical first requests, half of them in each form: one event, a hundred equal answers."""
    topic = await api.create_run(ann)
    batch = strict_json.parse_strict(json.dumps({"events": EVENTS}), m.AppendEventsRequest)
    bodies = (strict_json.print_json(batch), batch.SerializeToString())
    answers: list[httpx.Response] = []

    async def send(number: int) -> None:
        headers = {"Idempotency_Key": "race", "Accept": JSON}
        answers.append(await api.post(events_path(topic), bodies[number % 2], ann.access_token, **headers))

    async with trio.open_nursery() as nursery:
        for number in range(RACING):
            nursery.start_soon(send, number)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(answers) == RACING
    [count] = ledger.rows("SELECT count(*) AS count FROM runtime.events WHERE topic = $1", topic)
    assert count["count"] == 1 + len(EVENTS)


async def test_a_key_with_another_body_is_refused(api: Api, ann: Person, ledger: Ledger) -> None:
    """409 idempotency_conflict whatever differs, nothing written; the original answer is still there."""
    topic = await api.create_run(ann)
    path, key = events_path(topic), {"Idempotency_Key": "k 1"}
    first = await api.post(path, {"events": [thought("a")]}, ann.access_token, **key)
    before = ledger.state()
    for body in (
        {"events": [thought("b")]},
        {"events": [thought("a"), thought("a")]},
        {"events": [{"kind": "output", "data": {"text": "a"}}]},
        {"events": [thought("a")], "expected_seq": "1"},
    ):
        assert refusal(await api.post(path, body, ann.access_token, **key)) == (409, "idempotency_conflict")
    again = await api.post(path, {"events": [thought("a")]}, ann.access_token, **key)
    assert (again.status_code, again.text) == (200, first.text)
    assert ledger.state() == before
    # The scope is principal and route: another run, another person.
    other_topic = await api.create_run(ann)
    [elsewhere] = await api.append(ann, other_topic, thought("b"), key="k 1")
    assert elsewhere.seq == 2


async def test_racing_creates_and_transitions_happen_once(api: Api, ann: Person, ledger: Ledger) -> None:
    """One run for twenty creates with one key; one end for twenty transitions; a late retry gets the same."""
    before = ledger.rows("SELECT count(*) AS count FROM runtime.runs")[0]["count"]
    created: list[str] = []

    async def create() -> None:
        answer = await api.post("/v1/runs", {"agent": "a"}, ann.access_token, Idempotency_Key="once")
        assert answer.status_code == 201
        created.append(answer.text)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(create)
    assert len(set(created)) == 1
    assert ledger.rows("SELECT count(*) AS count FROM runtime.runs")[0]["count"] == before + 1
    path = f"/v1/runs/{json.loads(created[0])['run']['run_id']}/transitions"
    ended: list[httpx.Response] = []

    async def end() -> None:
        body = {"to_state": "RUN_STATE_SUCCEEDED"}
        ended.append(await api.post(path, body, ann.access_token, Idempotency_Key="end"))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(end)
    assert {(answer.status_code, answer.text) for answer in ended} == {(200, ended[0].text)}
    late = await api.post(path, {"to_state": "RUN_STATE_SUCCEEDED"}, ann.access_token)
    assert refusal(late) == (409, "invalid_transition")
    await end()
    assert ended[-1].text == ended[0].text
