"""What nodes report to the audit log, and what operators read from it, on a real database."""

import datetime as dt
import re
from typing import Final

import httpx
import pytest
import trio

from control.adapters.postgres import statements
from khala_contracts.topics import format_org_runs
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import DEVICE, ControlRig, Document, refusal

ROUTE: Final = "/internal/v1/audit"
IDS: Final = SystemIds()
NODE: Final = IDS.new("nod")
TOPIC: Final = format_org_runs(IDS.new("org"))
NOTED_MS: Final = 1_760_000_000_000


def event(action: str = "SUBSCRIBE", **fields: object) -> Document:
    """Return an event of a node: a subscribe that was allowed, unless told otherwise."""
    return {
        "action": f"NODE_AUDIT_ACTION_{action}",
        "noted_at": str(NOTED_MS),
        "connection_id": IDS.new("con"),
        "request_id": IDS.new("req"),
        **fields,
    }


def unwritten(count: int, **fields: object) -> Document:
    """Return denials that were only counted."""
    return {
        "action": "NODE_AUDIT_ACTION_SUBSCRIBE",
        "reason": "forbidden",
        "gap": "AUDIT_GAP_RATIONED",
        "count": str(count),
        "since": str(NOTED_MS),
        **fields,
    }


async def send(control: ControlRig, *events: Document, **fields: object) -> httpx.Response:
    """Send a batch as a node."""
    body = {"node_id": NODE, "batch_id": IDS.new("bat"), "events": list(events), **fields}
    return await control.post(ROUTE, body, control.config.node_credential.reveal())


async def read(control: ControlRig, **query: object) -> Document:
    """Read the log as an operator."""
    assert control.config.admin_token is not None
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await control.get(f"{ROUTE}?{asked}", control.config.admin_token.reveal())
    assert answer.status_code == 200, answer.text
    document: Document = answer.json()
    return document


async def test_an_allow_and_a_deny_are_two_rows(control: ControlRig) -> None:
    """SEC-11: exactly two, with the connection's and the request's id, who it was, the topic and the reason."""
    person = await control.sign_in()
    connection_id, request_id, jti = IDS.new("con"), IDS.new("req"), IDS.new("jti")
    who = {
        "connection_id": connection_id,
        "request_id": request_id,
        "user_id": person.user_id,
        "session_id": person.session_id,
        "device_id": DEVICE,
        "principal_kind": "PRINCIPAL_KIND_PERSON",
        "principal_id": person.user_id,
        "jti": jti,
        "topic": TOPIC,
    }
    answer = await send(control, event(**who), event(**who, reason="forbidden", cause="not_granted"))
    assert answer.json() == {"written": 2}
    allowed, denied = (await read(control, connection_id=connection_id))["rows"]
    assert (allowed["action"], allowed["outcome"], allowed["reason"]) == ("subscription.open", "done", "")
    assert (denied["action"], denied["outcome"], denied["reason"]) == (
        "subscription.open",
        "refused",
        "forbidden:not_granted",
    )
    for row in (allowed, denied):
        said = {name: row[name] for name in who if name not in ("topic", "principal_kind")}
        assert said == {name: who[name] for name in said}
        assert (row["node_id"], row["principal_kind"]) == (NODE, "person")
        assert row["detail"] == {"noted_at": str(NOTED_MS), "topic": TOPIC}


async def test_a_batch_is_written_once(control: ControlRig) -> None:
    """Sent again after a lost answer, ten times at once, or by another body: the rows of the first."""
    batch_id, events = IDS.new("bat"), [event() for _ in range(5)]
    answers = []

    async def send_once() -> None:
        answers.append((await send(control, *events, batch_id=batch_id)).json()["written"])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(send_once)
    assert sorted(answers) == [0] * 9 + [5]
    assert (await send(control, event(), batch_id=batch_id)).json() == {"written": 0}
    assert len((await read(control, action="subscription.open"))["rows"]) == 5
    # Another node may use the same name for a batch of its own.
    assert (await send(control, event(), batch_id=batch_id, node_id="node-2")).json() == {"written": 1}


async def test_an_eviction_names_the_last_seqs(control: ControlRig) -> None:
    """Outcome ended, with what was on the socket by topic; numbers above 2^53 are exact."""
    positions = [{"topic": TOPIC, "seq": str(2**53 + 1)}]
    evicted = event(
        "EVICT_CONNECTION",
        reason="reauth_required",
        cause="session_ended",
        positions=positions,
        topic_count=3,
    )
    assert (await send(control, evicted)).status_code == 200
    (row,) = (await read(control, action="connection.evict"))["rows"]
    assert (row["outcome"], row["reason"]) == ("ended", "reauth_required:session_ended")
    assert row["detail"] == {
        "noted_at": str(NOTED_MS),
        "topic_count": "3",
        "last_seqs": {TOPIC: str(2**53 + 1)},
    }


async def test_what_was_only_counted_has_a_row(control: ControlRig) -> None:
    """Rows and counts add up, and the row says of what, why and since when."""
    denied = event(reason="forbidden")
    assert (
        await send(control, denied, unwritten=[unwritten(9_000), unwritten(7, gap="AUDIT_GAP_NO_ROOM")])
    ).json() == {"written": 3}
    rows = (await read(control))["rows"]
    counted = [row["detail"] for row in rows if row["action"] == "audit.node_unwritten"]
    assert [(d["action"], d["reason"], d["gap"], d["count"]) for d in counted] == [
        ("subscription.open", "forbidden", "rationed", "9000"),
        ("subscription.open", "forbidden", "no_room", "7"),
    ]


async def test_the_log_is_read_by_what_one_knows(control: ControlRig) -> None:
    """Each filter alone and together; pages go on where the last one ended, and nothing is left out."""
    start_ms = int(control.clock.now() * 1000) - 5_000
    person = await control.sign_in()
    mine = [event(user_id=person.user_id, session_id=person.session_id) for _ in range(7)]
    await send(control, *mine)
    for filters in (
        {"user_id": person.user_id, "action": "subscription.open"},
        {"session_id": person.session_id, "action": "subscription.open"},
        {"action": "subscription.open", "from": start_ms, "before": start_ms + 600_000},
    ):
        seen, after = [], 0
        while True:
            page = await read(control, **filters, after=after, limit=3)
            seen += [row["connection_id"] for row in page["rows"]]
            after = page["next_after"]
            if not page["has_more"]:
                break
        assert seen == [one["connection_id"] for one in mine], filters
        assert (await read(control, **filters, after=after)) == {
            "rows": [],
            "next_after": after,
            "has_more": False,
        }
    (row,) = (await read(control, request_id=mine[3]["request_id"]))["rows"]
    assert row["connection_id"] == mine[3]["connection_id"]
    assert (await read(control, before=start_ms))["rows"] == []
    # What control did itself is in the same log.
    assert (await read(control, user_id=person.user_id))["rows"][0]["action"] == "session.sign_in"


@pytest.mark.parametrize("action", ["subscription.open", "connection.evict"])
@pytest.mark.parametrize(("begins_s", "ends_s"), [(900, 600), (900, None), (-60, None)])
async def test_a_window_of_time_is_found_without_reading_the_log(
    control: ControlRig, action: str, begins_s: int, ends_s: int | None
) -> None:
    """What lies before the window, which is months, is not looked at; nor what lies after it."""
    count = 20_000
    await control.rows(
        "INSERT INTO control.audit_log (action, outcome, reason, request_id, occurred_at, detail)"
        " SELECT 'subscription.open', 'done', '', 'r', clock_timestamp() - make_interval(secs => $1 - g), '{}'"
        " FROM generate_series(1, $1::integer) AS g",
        count,
    )
    await control.rows("ANALYZE control.audit_log")
    now = dt.datetime.fromtimestamp(control.clock.now(), dt.UTC)
    asked: list[object] = [0, None, None, None, None, action, now - dt.timedelta(seconds=begins_s)]
    asked += [None if ends_s is None else now - dt.timedelta(seconds=ends_s), 101]
    (row,) = await control.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {statements.LIST_AUDIT}", *asked)
    skipped = [int(number) for number in re.findall(r'"Rows Removed by [^"]*": (\d+)', row["QUERY PLAN"])]
    assert sum(skipped) < 1_200, row["QUERY PLAN"]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("after", "x"),
        ("limit", "0"),
        ("limit", "501"),
        ("from", "-1"),
        ("action", "nothing"),
        ("user_id", "%00"),
    ],
)
async def test_a_wrong_question(control: ControlRig, parameter: str, value: str) -> None:
    """Refused with the parameter."""
    assert control.config.admin_token is not None
    answer = await control.get(f"{ROUTE}?{parameter}={value}", control.config.admin_token.reveal())
    assert refusal(answer) == (400, "invalid_argument")
    assert answer.json()["details"]["field"] == parameter


async def test_each_door_has_its_key(control: ControlRig) -> None:
    """Nodes add and cannot read; operators read and cannot add; nobody else does either."""
    assert control.config.admin_token is not None
    person = await control.sign_in()
    body = {"node_id": NODE, "batch_id": "b", "events": [event()]}
    for token in (None, person.access_token, control.config.admin_token.reveal()):
        assert refusal(await control.post(ROUTE, body, token)) == (401, "unauthenticated")
    for token in (None, person.access_token, control.config.node_credential.reveal()):
        assert refusal(await control.get(ROUTE, token)) == (401, "unauthenticated")
    assert (await read(control, action="subscription.open"))["rows"] == []


async def test_a_runtime_reports_exceeded_limits_only(control: ControlRig) -> None:
    """KH-45: its rows name limit and value; who may see what is none of its business, and such a batch writes nothing."""
    exceeded = event("LIMIT", reason="payload_too_large", limit="append_events_max", limit_value="500")
    runtime = control.config.runtime_credential.reveal()
    for batch_id, events, status in (("b1", [exceeded, event()], 400), ("b2", [exceeded], 200)):
        body = {"node_id": "runtime", "batch_id": batch_id, "events": events}
        assert (await control.post(ROUTE, body, runtime)).status_code == status
    (row,) = (await read(control))["rows"]
    assert (row["action"], row["outcome"], row["reason"], row["node_id"]) == (
        "limit.exceed",
        "refused",
        "payload_too_large",
        "runtime",
    )
    forged = {"node_id": "nod_1", "batch_id": "b3", "events": [exceeded]}
    assert (await control.post(ROUTE, forged, runtime)).status_code == 400
    assert (row["detail"]["limit"], row["detail"]["value"]) == ("append_events_max", "500")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"reason": "no such code"}, "events[1].reason"),
        ({"reason": "forbidden", "cause": "Token abc"}, "events[1].cause"),
        ({"cause": "not_granted"}, "events[1].cause"),
        ({"action": "HELLO"}, "events[1].reason"),
        ({"connection_id": ""}, "events[1].connection_id"),
        ({"request_id": "x" * 129}, "events[1].request_id"),
        ({"user_id": "a\nb"}, "events[1].user_id"),
        ({"topic": "run:*:events"}, "events[1].topic"),
        ({"noted_at": "0"}, "events[1].noted_at"),
        ({"topic_count": 1}, "events[1].positions"),
        (
            {
                "action": "EVICT_TOPIC",
                "reason": "forbidden",
                "positions": [{"topic": TOPIC, "seq": "1"}],
            },
            "events[1].positions",
        ),
    ],
)
async def test_a_faulty_batch_writes_nothing(control: ControlRig, wrong: Document, field: str) -> None:
    """Refused with the place; the good event beside it is not written either."""
    answer = await send(control, event(), event(**wrong))
    assert refusal(answer) == (400, "invalid_argument")
    assert answer.json()["details"]["field"] == field
    assert (await read(control))["rows"] == []


async def test_a_batch_at_its_bounds(control: ControlRig) -> None:
    """256 events and 256 counts are taken, 64 positions of the longest names too; one more is not."""
    topics = [f"app:{IDS.new('org')}:{'x' * 61}{number:02d}" for number in range(65)]

    def evicted(count: int) -> Document:
        positions = [{"topic": topic, "seq": str(2**62)} for topic in topics[:count]]
        return event("EVICT_CONNECTION", reason="reauth_required", positions=positions, topic_count=256)

    full = [evicted(64) for _ in range(8)] + [event() for _ in range(248)]
    counts = [unwritten(1) for _ in range(256)]
    assert (await send(control, *full, unwritten=counts)).json() == {"written": 512}
    assert refusal(await send(control, *full, event())) == (400, "invalid_argument")
    assert refusal(await send(control, unwritten=[*counts, unwritten(1)])) == (400, "invalid_argument")
    assert refusal(await send(control, evicted(65))) == (400, "invalid_argument")
    assert refusal(await send(control)) == (400, "invalid_argument")
