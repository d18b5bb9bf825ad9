"""What operators are told of one event: the commit, the topic's position, when the nodes were told."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from khala_contracts.codec import EntryTemplate
from khala_contracts.topics import TopicName
from khala_service.config import Secret
from khala_service.identifiers import SystemClock
from tests.integration.runtime.process import ADMIN_TOKEN
from tests.integration.runtime.rig import Document, RuntimeRig, Settings, eventually, open_runtime

if TYPE_CHECKING:
    from tests.postgres_cluster import Database

ROUTE = "/internal/v1/explain"
OPEN = Settings(changes={"admin_token": Secret(ADMIN_TOKEN)})


async def explain(runtime: RuntimeRig, topic: str, seq: object) -> Document:
    """Ask as an operator."""
    return await runtime.json("GET", f"{ROUTE}?topic={topic}&seq={seq}", bearer=ADMIN_TOKEN)


async def test_a_published_event(runtime_database: Database) -> None:
    """Every fact of the event but its payload, the position, and the record that told the nodes."""
    async with open_runtime(runtime_database, OPEN) as runtime:
        run_id = await runtime.make_run()
        began_us = SystemClock().now() * 1e6
        acks = await runtime.append(run_id, "secret-payload", "b")
        topic = f"run:{run_id}:events"

        async def is_told() -> bool:
            return bool((await explain(runtime, topic, 2))["hint"])

        await eventually(is_told)
        answer = await explain(runtime, topic, 2)
        assert set(answer) == {"topic", "seq", "event", "observation", "hint"}
        assert (answer["topic"], answer["seq"]) == (topic, "2")
        row = await runtime.pool.fetchrow(
            "SELECT payload, request_id, actor FROM runtime.events WHERE topic = $1 AND seq = 2", topic
        )
        assert row is not None
        event = answer["event"]
        chain = base64.b64decode(acks[0]["chain"])
        entry = EntryTemplate(TopicName(topic)).entry(2, "thought", row["payload"], 1)
        committed_at_us = event.pop("committed_at_us")
        assert event == {
            "event_id": acks[0]["event_id"],
            "request_id": row["request_id"],
            "actor": row["actor"],
            "kind": "thought",
            "schema_version": 1,
            "chain": chain.hex(),
            "entry_bytes": len(entry),
        }
        assert began_us - 5e6 < committed_at_us < began_us + 60e6
        assert answer["observation"] == {
            "topic_class": "run_events",
            "lineage": acks[0]["lineage"],
            "head_seq": "3",
            "head_chain": base64.b64decode(acks[1]["chain"]).hex(),
            "floor_seq": "1",
            "floor_reason": "none",
        }
        published_at_us = answer["hint"].pop("published_at_us")
        assert began_us < published_at_us < began_us + 60e6
        assert answer["hint"] == {
            "driver": "memory", "kind": "copy", "record_first_seq": "2", "record_last_seq": "3",
        }  # fmt: skip
        assert "secret-payload" not in str(answer)


async def test_what_is_not_known(runtime_database: Database) -> None:
    """A position that is not there, a topic that is not there, an event of a process before this one."""
    async with open_runtime(runtime_database, OPEN) as runtime:
        run_id = await runtime.make_run()
        topic = f"run:{run_id}:events"
        ahead = await explain(runtime, topic, 2)
        assert (ahead["event"], ahead["hint"], ahead["observation"]["head_seq"]) == (None, None, "1")
        another = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
        nobodys = await explain(runtime, f"run:{another}:events", 1)
        assert [nobodys[name] for name in ("event", "observation", "hint")] == [None, None, None]
    async with open_runtime(runtime_database, OPEN) as successor:
        answer = await explain(successor, topic, 1)
        assert answer["event"]["kind"] == "run.started"
        assert answer["hint"] is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("seq=1", "topic_invalid"),
        ("topic=run:x:events&seq=1", "topic_invalid"),
        ("topic={topic}", "invalid_argument"),
        ("topic={topic}&seq=0", "invalid_argument"),
        ("topic={topic}&seq=-1", "invalid_argument"),
        ("topic={topic}&seq=01", "invalid_argument"),
        ("topic={topic}&seq=9223372036854775808", "invalid_argument"),
        ("topic={topic}&seq=1&seq=1", "invalid_argument"),
        ("topic={topic}&topic={topic}&seq=1", "invalid_argument"),
        ("topic={topic}&seq=1&after=1", "invalid_argument"),
    ],
)
async def test_wrong_questions(runtime_database: Database, query: str, code: str) -> None:
    """The question is judged as strictly as a body."""
    async with open_runtime(runtime_database, OPEN) as runtime:
        topic = f"run:{await runtime.make_run()}:events"
        path = f"{ROUTE}?{query.format(topic=topic)}"
        refused = await runtime.json("GET", path, status=400, bearer=ADMIN_TOKEN)
        assert refused["code"] == code


async def test_who_may_ask(runtime_database: Database) -> None:
    """The admin token alone opens it; without one, and outside mode dev, the routes are not there."""
    async with open_runtime(runtime_database, OPEN) as runtime:
        topic = f"run:{await runtime.make_run()}:events"
        for bearer in ("user", "publisher", "c" * 47, ADMIN_TOKEN + "x"):
            refused = await runtime.json("GET", f"{ROUTE}?topic={topic}&seq=1", status=401, bearer=bearer)
            assert refused["code"] == "unauthenticated"
        await runtime.json(
            "POST",
            "/internal/v1/failpoints",
            {"arm": "runtime.committed=kill"},
            status=404,
            bearer=ADMIN_TOKEN,
        )
        assert await runtime.append(topic.split(":")[1], "alive")
    async with open_runtime(runtime_database) as closed:
        await closed.json("GET", f"{ROUTE}?topic={topic}&seq=1", status=404, bearer=ADMIN_TOKEN)
    async with open_runtime(runtime_database, Settings(changes={"mode": "dev"})) as keyless:
        await keyless.json("POST", "/internal/v1/failpoints", {"arm": ""}, status=404, bearer=ADMIN_TOKEN)
