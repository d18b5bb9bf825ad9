"""SYNC-003: replay of a topic's journal by operators: who may, from where, how much, and what is stale."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

import pytest

from khala_contracts import http_messages as m
from khala_contracts.chain import chain_start
from khala_contracts.frames import SEQ_MAX
from khala_contracts.topics import format_user_runs
from runtime.core.limits import RuntimeLimits
from tests.actors.runtime.rig import USER, make_id
from tests.integration.runtime.rig import PROTOBUF, eventually, open_runtime
from tests.postgres_cluster import Database  # noqa: TC001  # used in a signature that pytest reads
from tests.replay.rig import ADMIN, SERVICE, chain_through, open_replay, positions, seqs

if TYPE_CHECKING:
    import httpx

    from tests.replay.rig import Replay

pytestmark = pytest.mark.slow

UNKNOWN = f"run:{make_id('run', 99)}:events"


@pytest.mark.parametrize("bearer", [SERVICE, ADMIN])
async def test_acl_services_and_operators_may(replay: Replay, bearer: str) -> None:
    """A service credential or the admin token opens the route, for any topic."""
    topic = await replay.run_of(2)
    assert seqs(await replay.page(topic, bearer=bearer)) == [1, 2]


@pytest.mark.parametrize(
    "bearer", [None, "user", "publisher", "reader", "khs_" + "x" * 43, ADMIN + "x", ADMIN[:-1]]
)
async def test_acl_nobody_else_may(replay: Replay, bearer: str | None) -> None:
    """The owner of the run, keys, wrong and missing credentials: the same 401, topic there or not."""
    topic = await replay.run_of(2)
    answers = [await replay.get(name, bearer=bearer) for name in (topic, UNKNOWN, "nonsense")]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    bodies = [{**answer.json(), "request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]


async def test_acl_without_an_admin_token_no_token_opens(runtime_database: Database) -> None:
    """A runtime that was given none: no token and no scheme alone is an operator."""
    async with open_runtime(runtime_database) as rig:
        for header in ("Bearer", f"Bearer {ADMIN}", "Bearer None"):
            answer = await rig.http.get(
                f"/internal/v1/khala/topics/{UNKNOWN}/messages", headers={"Authorization": header}
            )
            assert answer.status_code == 401


async def test_frames_are_what_was_committed(replay: Replay) -> None:
    """All five fields, the chain from the topic's own start to the head, and the observation."""
    topic = await replay.run_of(5)
    page = await replay.page(topic)
    assert seqs(page) == [1, 2, 3, 4, 5]
    assert [frame["kind"] for frame in page["frames"]] == ["run.started", *["thought"] * 4]
    assert {frame["topic"] for frame in page["frames"]} == {topic}
    assert b64decode(page["chain_before"]) == chain_start(topic)
    assert chain_through(page) == b64decode(page["watermark"]["chain"])
    observation = page["observation"]
    assert (observation["head_seq"], observation["floor_seq"], observation["topic_class"]) == (
        "5",
        "1",
        "run_events",
    )
    assert observation["head_chain"] == page["watermark"]["chain"]
    assert observation["lineage"] == page["watermark"]["lineage"]


async def test_binary_is_the_same_page(replay: Replay) -> None:
    """In protobuf the frames are KhalaFrame, as on the wire."""
    topic = await replay.run_of(3)
    answer = await replay.rig.http.get(
        f"/internal/v1/khala/topics/{topic}/messages",
        headers={"Authorization": f"Bearer {SERVICE}", "Accept": PROTOBUF},
    )
    message = m.TopicMessagesResponse.FromString(answer.content)
    page = await replay.page(topic)
    assert [frame.seq for frame in message.frames] == seqs(page)
    assert [frame.payload_bytes for frame in message.frames] == [
        b64decode(frame["payload_bytes"]) for frame in page["frames"]
    ]


async def test_duplicate_a_retried_append_is_one_frame(replay: Replay) -> None:
    """Remove the dedupe of keys and this finds the event twice."""
    run_id = await replay.rig.make_run()
    for _ in range(3):
        await replay.rig.append(run_id, "once", key="k")
    assert seqs(await replay.page(f"run:{run_id}:events")) == [1, 2]


async def test_duplicate_the_same_page_again_is_the_same_bytes(replay: Replay) -> None:
    """Equal observations, equal answers."""
    topic = await replay.run_of(6)
    first, second = [await replay.get(topic, after_seq=2, limit=3) for _ in range(2)]
    assert first.content == second.content


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7])
async def test_paging_gives_everything_once(replay: Replay, limit: int) -> None:
    """Pages from watermark to watermark: no gap, no repeat, each chain continues the one before."""
    topic = await replay.run_of(6)
    found: list[int] = []
    after, chain = 0, chain_start(topic)
    while True:
        page = await replay.page(topic, after_seq=after, limit=limit)
        assert b64decode(page["chain_before"]) == chain
        if not page["frames"]:
            break
        assert len(page["frames"]) <= limit
        found += seqs(page)
        after, chain = int(page["watermark"]["seq"]), b64decode(page["watermark"]["chain"])
        assert chain_through(page) == chain
    assert found == positions(6)


async def test_live_edge_is_an_empty_page(replay: Replay) -> None:
    """At the head: no frame, the position unchanged; after one more event: exactly that one."""
    topic = await replay.run_of(3)
    page = await replay.page(topic, after_seq=3)
    assert (seqs(page), page["watermark"]["seq"]) == ([], "3")
    assert page["watermark"]["chain"] == page["observation"]["head_chain"]
    await replay.rig.append(topic.split(":")[1], "next")
    assert seqs(await replay.page(topic, after_seq=3)) == [4]


@pytest.mark.parametrize(("after_seq", "status"), [(3, 200), (4, 410), (SEQ_MAX - 1, 410), (SEQ_MAX, 410)])
async def test_bad_cursor_ahead_of_the_head(replay: Replay, after_seq: int, status: int) -> None:
    """One beyond the head is another history, never an endless wait."""
    topic = await replay.run_of(3)
    answer = await replay.get(topic, after_seq=after_seq)
    assert answer.status_code == status
    if status == 410:
        assert answer.json()["code"] == "stale_cursor.lineage_mismatch"
        assert answer.json()["details"]["head_seq"] == "3"


@pytest.mark.parametrize("after_seq", ["-1", "one", "01", "1.0", " 1", str(SEQ_MAX + 1), "1&after_seq=2"])
async def test_bad_cursor_is_no_number(replay: Replay, after_seq: str) -> None:
    """Refused with the field; nothing is guessed."""
    topic = await replay.run_of(1)
    answer = await replay.rig.http.get(
        f"/internal/v1/khala/topics/{topic}/messages?after_seq={after_seq}",
        headers={"Authorization": f"Bearer {SERVICE}"},
    )
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "after_seq")


async def test_bad_cursor_of_another_lineage_or_chain(replay: Replay) -> None:
    """What the reader says about its own position is compared; the right one goes on."""
    topic = await replay.run_of(4)
    page = await replay.page(topic, limit=2)
    chain = b64decode(page["watermark"]["chain"]).hex()
    lineage = page["watermark"]["lineage"]
    assert seqs(await replay.page(topic, after_seq=2, lineage=lineage, chain=chain)) == [3, 4]
    for wrong in ({"lineage": "lin_other"}, {"chain": "00" * 32}):
        refused = await replay.refused(topic, 410, after_seq=2, **wrong)
        assert refused["code"] == "stale_cursor.lineage_mismatch"
    refused = await replay.refused(topic, 400, after_seq=2, chain="zz")
    assert refused["details"]["field"] == "chain"


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("retention_expired", "stale_cursor.retention_expired"),
        ("compaction_boundary", "stale_cursor.compaction_boundary"),
    ],
)
async def test_stale_floor_boundary(replay: Replay, reason: str, code: str, deletes: bool) -> None:
    """Retained from 4 on: 3 continues, 2 is stale, whether or not the rows are deleted yet."""
    topic = await replay.run_of(6)
    await replay.move_floor(topic, 4, reason=reason, deletes=deletes)
    page = await replay.page(topic, after_seq=3)
    assert seqs(page) == [4, 5, 6]
    assert page["chain_before"] == page["observation"]["floor_chain"]
    assert chain_through(page) == b64decode(page["observation"]["head_chain"])
    for after_seq in (2, 1, 0):
        refused = await replay.refused(topic, 410, after_seq=after_seq)
        assert refused["code"] == code
        assert (refused["details"]["floor_seq"], refused["details"]["head_seq"]) == ("4", "6")


async def test_stale_a_topic_of_which_nothing_is_retained(replay: Replay) -> None:
    """The floor is head + 1: the head continues with nothing, one below it is stale."""
    topic = await replay.run_of(3)
    await replay.move_floor(topic, 4, reason="retention_expired", deletes=True)
    page = await replay.page(topic, after_seq=3)
    assert (seqs(page), page["watermark"]["seq"]) == ([], "3")
    assert page["watermark"]["chain"] == page["observation"]["head_chain"]
    await replay.refused(topic, 410, after_seq=2)


async def test_unknown_topic(replay: Replay) -> None:
    """A topic that nobody wrote is not found; a name that is none is said to be none."""
    assert (await replay.refused(UNKNOWN, 404))["code"] == "not_found"
    for name in ("run:x:events", "nonsense", "run:*:events"):
        assert (await replay.refused(name, 400))["code"] == "topic_invalid"


LIMITS = RuntimeLimits(page_events_max=5, page_bytes_max=1_000)


@pytest.mark.parametrize(("limit", "status"), [(1, 200), (5, 200), (6, 400), (0, 400)])
async def test_count_bound(runtime_database: Database, limit: int, status: int) -> None:
    """At the limit and one beyond; without a limit a page has the limit."""
    async with open_replay(runtime_database, LIMITS) as replay:
        topic = await replay.run_of(8)
        assert (await replay.get(topic, limit=limit)).status_code == status
        assert len(seqs(await replay.page(topic))) == 5


async def test_bytes_bound(runtime_database: Database) -> None:
    """A page ends before the bytes do; a frame that is larger than a page comes alone, never not at all."""
    async with open_replay(runtime_database, LIMITS) as replay:
        run_id = await replay.rig.make_run()
        topic = f"run:{run_id}:events"
        await replay.rig.append(run_id, "a" * 300, "b" * 300, "c" * 300, "d" * 3_000, "e")
        pages, after = [], 0
        while True:
            page = await replay.page(topic, after_seq=after)
            if not page["frames"]:
                break
            pages.append(seqs(page))
            after = int(page["watermark"]["seq"])
        assert pages == [[1, 2, 3], [4], [5], [6]]


async def test_state_topics_are_replayed_like_logs(replay: Replay) -> None:
    """The list of a user's runs, written by the projector: summaries in order, the chain whole."""
    run_id = await replay.rig.make_run(name="listed")
    await replay.rig.json("POST", f"/v1/runs/{run_id}/transitions", {"to_state": "RUN_STATE_SUCCEEDED"})
    topic = format_user_runs(USER)

    async def is_told() -> bool:
        answer: httpx.Response = await replay.get(topic)
        if answer.status_code != 200 or not answer.json()["frames"]:
            return False
        payload = b64decode(answer.json()["frames"][-1]["payload_bytes"])
        return b"\x18\x04" in payload  # state = RUN_STATE_SUCCEEDED

    await eventually(is_told)
    page = await replay.page(topic)
    assert seqs(page) == positions(len(page["frames"]))
    assert {frame["kind"] for frame in page["frames"]} == {"run.summarised"}
    assert chain_through(page) == b64decode(page["observation"]["head_chain"])
    assert page["observation"]["topic_class"] == "user_runs"


async def test_history_at_the_largest_position_is_no_error_of_ours(replay: Replay) -> None:
    """The page of history beside this route: 2^63 - 1 is ahead of the head, not an overflow."""
    run_id = await replay.rig.make_run()
    answer = await replay.rig.json("GET", f"/v1/runs/{run_id}/events?after_seq={SEQ_MAX}", status=410)
    assert answer["code"] == "stale_cursor.lineage_mismatch"
