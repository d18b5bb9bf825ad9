"""Runs over HTTP: create, read, list, transition, positions, owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts import http_messages as m
from tests.actors.runtime.rig import OTHER_USER, USER, make_id
from tests.integration.runtime.rig import (
    CONTROL_CREDENTIAL,
    PROTOBUF,
    RUNTIME_CREDENTIAL,
    SMALL,
    RuntimeRig,
    Settings,
    eventually,
    open_runtime,
)

if TYPE_CHECKING:
    from tests.postgres_cluster import Database


async def test_life_of_a_run(runtime: RuntimeRig) -> None:
    """RT-03, RT-14: created running, appended to, paused, resumed, finished; each answer says where."""
    created = await runtime.json(
        "POST", "/v1/runs", {"name": "fix", "agent": "a", "attributes": {"k": "v"}}, status=201
    )
    run = created["run"]
    assert (run["state"], run["name"], run["owner_user_id"]) == ("RUN_STATE_RUNNING", "fix", USER)
    assert created["ack"]["seq"] == run["watermark"]["seq"] == "1"
    (ack,) = await runtime.append(run["run_id"], "hi")
    assert (ack["topic"], ack["seq"], ack["lineage"]) == (run["topic"], "2", run["watermark"]["lineage"])
    path = f"/v1/runs/{run['run_id']}"
    for number, state in enumerate(["PAUSED", "RUNNING", "SUCCEEDED"], start=3):
        moved = await runtime.json("POST", f"{path}/transitions", {"to_state": f"RUN_STATE_{state}"})
        assert (moved["run"]["state"], moved["ack"]["seq"]) == (f"RUN_STATE_{state}", str(number))
    refused = await runtime.json("POST", f"{path}/transitions", {"to_state": "RUN_STATE_FAILED"}, status=409)
    assert (refused["code"], refused["details"]) == (
        "invalid_transition",
        {"from": "succeeded", "to": "failed"},
    )
    late = await runtime.json("POST", f"{path}/events", {"events": [{"kind": "thought"}]}, status=409)
    assert late["code"] == "run_finished"
    read = (await runtime.json("GET", path))["run"]
    assert (read["state"], read["watermark"]["seq"]) == ("RUN_STATE_SUCCEEDED", "5")
    assert int(read["finished_at_us"]) >= int(read["created_at_us"]) > 0
    page = await runtime.json("GET", f"{path}/events")
    assert [event["kind"] for event in page["events"]] == [
        "run.started", "thought", "run.state_changed", "run.state_changed", "run.finished",
    ]  # fmt: skip
    assert page["watermark"] == read["watermark"]


async def test_both_forms_give_the_same_row(runtime: RuntimeRig) -> None:
    """ARC-10: a JSON and a protobuf command store byte-identical payloads and answer alike."""
    forms = []
    for media_type in (PROTOBUF, "application/json"):
        create = m.CreateRunRequest(agent="a", attributes={"k": "v"})
        body = {"agent": "a", "attributes": {"k": "v"}}
        is_binary = media_type == PROTOBUF
        response = await runtime.call(
            "POST", "/v1/runs", None if is_binary else body,
            content=create.SerializeToString() if is_binary else None, media_type=media_type, accept=media_type,
        )  # fmt: skip
        assert response.status_code == 201
        assert response.headers["content-type"] == media_type
        run_id = (
            m.CreateRunResponse.FromString(response.content).run.run_id
            if is_binary
            else response.json()["run"]["run_id"]
        )
        rows = await runtime.pool.fetch(
            "SELECT kind, payload, schema_version FROM runtime.events WHERE topic = $1",
            f"run:{run_id}:events",
        )
        forms.append([tuple(row) for row in rows])
    assert forms[0] == forms[1]


async def test_name_is_unique_per_owner(runtime: RuntimeRig) -> None:
    """A second run with the name is refused and names the first; another owner may use it."""
    run_id = await runtime.make_run(name="n")
    refused = await runtime.json("POST", "/v1/runs", {"name": "n"}, status=409)
    assert (refused["code"], refused["details"]) == ("name_taken", {"run_id": run_id})
    assert await runtime.make_run("other", name="n") != run_id


async def test_retried_create_returns_the_first_run(runtime: RuntimeRig) -> None:
    """RT-25: the same key and body return the same run, byte for byte; another body is a conflict."""
    first, again = [await runtime.call("POST", "/v1/runs", {"name": "n"}, key="k") for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    conflict = await runtime.json("POST", "/v1/runs", {"name": "m"}, key="k", status=409)
    assert conflict["code"] == "idempotency_conflict"


async def test_two_conflicting_transitions(runtime: RuntimeRig) -> None:
    """RT-03: of transitions that race exactly one wins, each other gets 409."""
    run_id = await runtime.make_run()
    statuses: list[int] = []

    async def move(state: str) -> None:
        body = {"to_state": f"RUN_STATE_{state}"}
        statuses.append((await runtime.call("POST", f"/v1/runs/{run_id}/transitions", body)).status_code)

    async with trio.open_nursery() as nursery:
        for state in ("SUCCEEDED", "FAILED", "CANCELLED") * 3:
            nursery.start_soon(move, state)
    assert sorted(statuses) == [200] + [409] * 8
    page = await runtime.json("GET", f"/v1/runs/{run_id}/events")
    assert [event["kind"] for event in page["events"]] == ["run.started", "run.finished"]


async def test_foreign_and_unknown_look_the_same(runtime: RuntimeRig) -> None:
    """Nobody learns from an answer whether somebody else's run exists."""
    run_id, nobody = await runtime.make_run(), make_id("run", 1)
    before = await runtime.counts()
    calls = [
        ("GET", "/v1/runs/{}", None),
        ("GET", "/v1/runs/{}/events", None),
        ("POST", "/v1/runs/{}/events", {"events": [{"kind": "thought"}]}),
        ("POST", "/v1/runs/{}/transitions", {"to_state": "RUN_STATE_FAILED"}),
        ("GET", "/v1/topics/run:{}:events", None),
    ]
    for method, path, body in calls:
        foreign, unknown = [
            await runtime.json(method, path.format(target), body, bearer="other", status=404)
            for target in (run_id, nobody)
        ]
        for answer in (foreign, unknown):
            del answer["request_id"]
        assert foreign == unknown
    assert await runtime.counts() == before


async def test_credentials(runtime: RuntimeRig) -> None:
    """No credential, a wrong one, another scheme, a revoked one: 401, and nothing is written."""
    run_id = await runtime.make_run()
    before = await runtime.counts()
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic user"},
        {"Authorization": "Bearer"},
    ):
        response = await runtime.http.post(f"/v1/runs/{run_id}/events", json={"events": []}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    runtime.control.revoked.add("user")

    async def is_out() -> bool:
        return (await runtime.call("GET", f"/v1/runs/{run_id}")).status_code == 401

    await eventually(is_out)
    assert await runtime.counts() == before


async def test_rights_of_keys(runtime: RuntimeRig) -> None:
    """A key's run belongs to its org: members see it, publish does not read, read does not publish."""
    run_id = await runtime.make_run("publisher")
    await runtime.append(run_id, "x", bearer="publisher")
    await runtime.append(run_id, "y", bearer="member")
    await runtime.json("GET", f"/v1/runs/{run_id}", bearer="reader")
    await runtime.json("GET", f"/v1/runs/{run_id}", bearer="member")
    for bearer, method, body in (
        ("reader", "POST", {"events": [{"kind": "thought"}]}),
        ("publisher", "GET", None),
    ):
        await runtime.json(method, f"/v1/runs/{run_id}/events", body, bearer=bearer, status=404)
    await runtime.json("POST", "/v1/runs", {}, bearer="reader", status=403)
    await runtime.json("GET", "/v1/runs", bearer="publisher", status=403)


async def test_list_of_runs(runtime_database: Database) -> None:
    """RT-19: pages of own runs, newest first, each with its position; at the limit and one beyond."""
    async with open_runtime(runtime_database, Settings(limits=SMALL)) as runtime:
        made = [await runtime.make_run() for _ in range(5)]
        await runtime.make_run("other")
        first = await runtime.json("GET", "/v1/runs?limit=3")
        second = await runtime.json("GET", f"/v1/runs?limit=3&page_token={first['next_page_token']}")
        ids = [[run["run_id"] for run in page["runs"]] for page in (first, second)]
        assert ids == [made[:1:-1], made[1::-1]]
        assert second["next_page_token"] == ""
        assert {run["watermark"]["seq"] for run in first["runs"]} == {"1"}
        for query in (
            "limit=4",
            "limit=0",
            "limit=x",
            "limit=1&limit=2",
            "page_token=x",
            "limit=-1",
            "limit=01",
        ):
            refused = await runtime.json("GET", f"/v1/runs?{query}", status=400)
            assert refused["code"] == "invalid_argument"
            assert refused["details"]["field"] == query.partition("=")[0]


async def test_position_of_a_topic(runtime: RuntimeRig) -> None:
    """The position is the one that the acks and the journal say."""
    run_id = await runtime.make_run()
    (ack,) = await runtime.append(run_id, "x")
    info = await runtime.json("GET", f"/v1/topics/run:{run_id}:events")
    assert (info["head_seq"], info["head_chain"], info["lineage"]) == (
        ack["seq"],
        ack["chain"],
        ack["lineage"],
    )
    assert (info["topic_class"], info["floor_seq"], info["floor_reason"]) == ("run_events", "1", "none")
    row = await runtime.pool.fetchrow(
        "SELECT sum(octet_length(entry)) AS size FROM runtime.journal WHERE topic = $1",
        f"run:{run_id}:events",
    )
    assert row is not None
    assert int(info["retained_bytes"]) == row["size"]
    await runtime.json("GET", "/v1/topics/run:x:events", status=400)


async def test_owners_are_for_control_only(runtime: RuntimeRig) -> None:
    """The internal route answers control's credential, nobody else's, and says "not known" of nonsense."""
    run_id = await runtime.make_run("other")
    body = {"topics": [f"run:{run_id}:events", f"run:{make_id('run', 1)}:events", "nonsense"]}
    path = "/internal/v1/topics/owners"
    answer = await runtime.json("POST", path, body, bearer=CONTROL_CREDENTIAL.reveal())
    assert [(owner["known"], owner["owner_user_id"]) for owner in answer["owners"]] == [
        (True, OTHER_USER), (False, ""), (False, ""),
    ]  # fmt: skip
    for bearer in ("user", RUNTIME_CREDENTIAL.reveal(), "khs_x"):
        await runtime.json("POST", path, body, bearer=bearer, status=401)


async def test_reads_continue_exactly_at_their_watermark(runtime: RuntimeRig) -> None:
    """RT-19: while a writer runs, history read page by page from a run's watermark has no gap or repeat."""
    run_id = await runtime.make_run()
    path = f"/v1/runs/{run_id}/events"
    seen: list[int] = []

    async def write() -> None:
        for number in range(40):
            await runtime.append(run_id, f"{number}-a", f"{number}-b")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(0.05)
        run = (await runtime.json("GET", f"/v1/runs/{run_id}"))["run"]
        position = start = int(run["watermark"]["seq"])
        chain = run["watermark"]["chain"]
        while position < 81:
            page = await runtime.json("GET", f"{path}?after_seq={position}&limit=7")
            assert page["chain_before"] == chain
            seen += [int(event["seq"]) for event in page["events"]]
            position, chain = int(page["watermark"]["seq"]), page["watermark"]["chain"]
    assert seen == list(range(start + 1, 82))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/runs", '{"name":"a","name":"b"}'),
        ("/v1/runs", '{"name":null}'),
        ("/v1/runs", '{"nam":"a"}'),
        ("/v1/runs", '{"org_id":"","orgId":""}'),
        ("/v1/runs", '{"name":1}'),
        ("/v1/runs", '{"attributes":{"a":1}}'),
        ("/v1/runs", '{"attributes":{"a":"x","a":"y"}}'),
        ("/v1/runs", '{"name":"\\ud800"}'),
        ("/v1/runs", '{"name":"a"} trailing'),
        ("/v1/runs", '{"name":"a"'),
        ("/v1/runs", "[]"),
        ("/v1/runs", ""),
        ("{run}/transitions", '{"to_state":"RUN_STATE_FAILED","exit_status":1.5}'),
        ("{run}/transitions", '{"to_state":"running"}'),
        ("{run}/transitions", '{"to_state":"RUN_STATE_UNSPECIFIED"}'),
        ("{run}/transitions", "{}"),
        ("{run}/events", '{"events":[{"kind":"observation","data":{"duration_s":NaN}}]}'),
        ("{run}/events", '{"events":[{"kind":"thought","data":{},"payload_bytes":""}]}'),
        ("{run}/events", '{"events":[{"kind":"thought","payload_bytes":"a"}]}'),
        ("{run}/events", '{"events":[{"kind":"thought"}],"expected_seq":"x"}'),
        ("{run}/events", '{"events":[{"kind":"thought"}],"expected_seq":9223372036854775808}'),
        ("{run}/events", '{"events":{"kind":"thought"}}'),
        ("{run}/events", '{"events":[{"kind":"thought","data":{"text":{"a":1,"a":2}}}]}'),
    ],
)
async def test_malformed_json_changes_nothing(runtime: RuntimeRig, path: str, body: str) -> None:
    """PR-11: what is not exactly the mapping is malformed_message, and the database is as before."""
    run_id = await runtime.make_run()
    before = await runtime.counts()
    target = path.format(run=f"/v1/runs/{run_id}")
    response = await runtime.call("POST", target, content=body.encode())
    assert (response.status_code, response.json()["code"]) == (400, "malformed_message")
    assert await runtime.counts() == before


async def test_malformed_protobuf_and_media_types(runtime: RuntimeRig) -> None:
    """Bytes that are no message: 400; other media types: 415; other answers: 406; other methods: 405."""
    run_id = await runtime.make_run()
    before = await runtime.counts()
    path = f"/v1/runs/{run_id}/events"
    cases = [
        (
            await runtime.call("POST", path, content=b"\xff\xff", media_type=PROTOBUF),
            400,
            "malformed_message",
        ),
        (
            await runtime.call("POST", path, content=b"{}", media_type="text/plain"),
            415,
            "unsupported_media_type",
        ),
        (
            await runtime.call("POST", path, content=b"{}", media_type="application/grpc"),
            415,
            "unsupported_media_type",
        ),
        (await runtime.call("POST", path, {}, accept="image/x-icon"), 406, "not_acceptable"),
        (await runtime.call("PUT", path, {}), 405, "method_not_allowed"),
        (await runtime.call("GET", "/v1/nothing"), 404, "not_found"),
    ]
    assert [(response.status_code, response.json()["code"]) for response, _, _ in cases] == [
        (status, code) for _, status, code in cases
    ]
    assert await runtime.counts() == before
