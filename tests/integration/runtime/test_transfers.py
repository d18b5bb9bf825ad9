"""A run gets another owner: who may, what changes with it, and what a crash in between leaves."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts import kinds
from khala_service import failpoints
from tests.actors.runtime.rig import ORG, OTHER_USER, USER, make_id
from tests.integration.runtime.raw_append import connected
from tests.integration.runtime.rig import ADMIN, CONTROL_CREDENTIAL, RuntimeRig, eventually

if TYPE_CHECKING:
    from tests.integration.runtime.rig import Document
    from tests.postgres_cluster import Database

STRANGER = make_id("usr", 9)


async def transfer(
    runtime: RuntimeRig,
    run_id: str,
    to: str = OTHER_USER,
    *,
    bearer: str = "colleague",
    status: int = 200,
    key: str | None = None,
) -> Document:
    """Transfer a run and return the answer."""
    path = f"/v1/runs/{run_id}/transfer"
    return await runtime.json("POST", path, {"owner_user_id": to}, bearer=bearer, status=status, key=key)


async def owners(runtime: RuntimeRig, run_id: str) -> list[str]:
    """Return who owns the run, according to its row, its topic's head and the read model."""
    row = await runtime.pool.fetchrow(
        "SELECT r.owner_user_id, h.owner_user_id, s.owner_user_id FROM runtime.runs AS r"
        " JOIN runtime.topic_heads AS h ON h.topic = 'run:' || r.run_id || ':events'"
        " LEFT JOIN runtime.run_summaries AS s ON s.run_id = r.run_id WHERE r.run_id = $1",
        run_id,
    )
    assert row is not None
    return list(row)


async def summaries(runtime: RuntimeRig, topic: str) -> list[tuple[str, bool]]:
    """Return head position and `withdrawn` of each summary in a list of runs."""
    rows = await runtime.pool.fetch("SELECT payload FROM runtime.events WHERE topic = $1 ORDER BY seq", topic)
    told = [kinds.decode_payload("run.summarised", row["payload"]) for row in rows]
    return [(str(data["head_seq"]), bool(data["withdrawn"])) for data in told]


async def applied(runtime: RuntimeRig, run_id: str) -> None:
    """Wait until the projector has applied what was written before the transfer."""

    async def is_applied() -> bool:
        row = await runtime.pool.fetchrow(
            "SELECT h.head_seq = c.published_seq FROM runtime.topic_heads AS h"
            " JOIN runtime.projector_checkpoints AS c ON c.topic = h.topic WHERE h.topic = $1",
            f"run:{run_id}:events",
        )
        return row is not None and bool(row[0])

    await eventually(is_applied)


async def test_everything_that_says_whose_run_it_is_changes_at_once(runtime: RuntimeRig) -> None:
    """INV-29: after the answer row, head, read model and the three lists agree; the run's own topic says it."""
    run_id = await runtime.make_run("colleague", name="fix", org_id=ORG)
    await applied(runtime, run_id)
    answer = await transfer(runtime, run_id)
    assert answer["run"]["owner_user_id"] == OTHER_USER
    assert answer["ack"]["seq"] == answer["run"]["watermark"]["seq"] == "2"
    # No waiting: one transaction.
    assert await owners(runtime, run_id) == [OTHER_USER] * 3
    assert await summaries(runtime, f"user:{OTHER_USER}:runs") == [("2", False)]
    assert await summaries(runtime, f"user:{USER}:runs") == [("1", False), ("2", True)]
    assert await summaries(runtime, f"org:{ORG}:runs") == [("1", False), ("2", False)]
    page = await runtime.json("GET", f"/v1/runs/{run_id}/events", bearer="member")
    event = page["events"][-1]
    payload = kinds.decode_payload("run.transferred", b64decode(event["payload_bytes"]))
    assert (event["kind"], event["actor"]) == ("run.transferred", USER)
    assert payload == {"from_user_id": USER, "to_user_id": OTHER_USER}


async def test_the_former_owner_writes_no_more_and_the_new_one_does(runtime: RuntimeRig) -> None:
    """What this process remembers of a run must not outlive the transfer."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    await runtime.append(run_id, "mine", bearer="user")
    await transfer(runtime, run_id)
    body = {"events": [{"kind": "thought"}]}
    # The same person without the membership: only the ownership gave it the right.
    refused = await runtime.json("POST", f"/v1/runs/{run_id}/events", body, bearer="user", status=404)
    assert refused["code"] == "not_found"
    await runtime.json("GET", f"/v1/runs/{run_id}", bearer="user", status=404)
    await runtime.append(run_id, "now mine", bearer="other")
    assert await runtime.texts(run_id) == ["mine", "now mine"]


@pytest.mark.parametrize(
    ("bearer", "status", "code"),
    [("admin", 200, ""), ("member", 403, "forbidden"), ("publisher", 404, "not_found"), ("reader", 403, "forbidden"),
     ("other", 404, "not_found")],
)  # fmt: skip
async def test_who_may(runtime: RuntimeRig, bearer: str, status: int, code: str) -> None:
    """SEC-12: the owner or an admin of the run's org; whoever cannot see the run is told that there is none."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    before = await runtime.counts()
    answer = await transfer(runtime, run_id, bearer=bearer, status=status)
    assert answer.get("code", "") == code
    if code:
        assert await runtime.counts() == before
        assert (await owners(runtime, run_id))[0] == USER


@pytest.mark.parametrize("wanted", [STRANGER, "", "usr_x", ORG])
async def test_only_a_member_of_the_org_gets_it(runtime: RuntimeRig, wanted: str) -> None:
    """A user who exists elsewhere, one who does not exist, and no user at all look alike."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    refused = await transfer(runtime, run_id, wanted, status=400)
    assert (refused["code"], refused["details"]["field"]) == ("invalid_argument", "owner_user_id")
    assert (await owners(runtime, run_id))[0] == USER


async def test_a_run_without_an_org_stays_with_its_owner(runtime: RuntimeRig) -> None:
    """Nobody can be given what no org vouches for."""
    run_id = await runtime.make_run("user")
    refused = await transfer(runtime, run_id, bearer="user", status=400)
    assert "no org" in refused["details"]["problem"]


async def test_names_stay_unique_per_owner(runtime: RuntimeRig) -> None:
    """The new owner's run of the same name is named, and nothing has changed."""
    run_id = await runtime.make_run("colleague", name="fix", org_id=ORG)
    held = await runtime.make_run("member", name="fix", org_id=ORG)
    before = await runtime.counts()
    refused = await transfer(runtime, run_id, status=409)
    assert (refused["code"], refused["details"]) == ("name_taken", {"run_id": held})
    assert await runtime.counts() == before
    assert (await owners(runtime, run_id))[:2] == [USER, USER]


async def test_a_name_that_was_freed_at_the_same_moment(runtime: RuntimeRig) -> None:
    """INV-29: refused by the index, with no holder left to name: all of it is run again, never half of it."""
    await runtime.pool.execute("CREATE SEQUENCE public.clashes")
    await runtime.pool.execute(
        "CREATE FUNCTION public.clash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$ BEGIN IF nextval('public.clashes') = 1 THEN RAISE unique_violation; END IF; RETURN NEW; END $$"
    )
    await runtime.pool.execute(
        "CREATE TRIGGER clash BEFORE UPDATE OF owner_user_id ON runtime.runs"
        " FOR EACH ROW EXECUTE FUNCTION public.clash()"
    )
    run_id = await runtime.make_run("colleague", name="fix", org_id=ORG)
    await applied(runtime, run_id)
    answer = await transfer(runtime, run_id)
    assert answer["ack"]["seq"] == "2"
    assert await owners(runtime, run_id) == [OTHER_USER] * 3


@pytest.mark.parametrize("run_id", ["run_x", "%00", "run_%00", "%20"])
async def test_what_is_no_run_is_not_looked_for(runtime: RuntimeRig, run_id: str) -> None:
    """Also with a key, whose scope would hold what PostgreSQL cannot."""
    for key in (None, "k"):
        assert (await transfer(runtime, run_id, key=key, status=404))["code"] == "not_found"


async def test_repeats_have_one_effect(runtime: RuntimeRig) -> None:
    """The same key gets the same answer, also from who lost the run by it; another body is a conflict."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    first = await transfer(runtime, run_id, key="k")
    assert await transfer(runtime, run_id, key="k") == first
    assert (await transfer(runtime, run_id, ADMIN, key="k", status=409))["code"] == "idempotency_conflict"
    # Without a key: it is that owner's already, so nothing is written.
    again = await transfer(runtime, run_id, bearer="admin")
    assert "ack" not in again
    assert again["run"]["watermark"] == first["run"]["watermark"]


async def test_a_run_that_has_ended_can_be_given_away_and_back(runtime: RuntimeRig) -> None:
    """ADR-0013: the state stays; the list of who gets it back shows it again."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    await runtime.json(
        "POST",
        f"/v1/runs/{run_id}/transitions",
        {"to_state": "RUN_STATE_SUCCEEDED"},
        bearer="colleague",
    )
    given = await transfer(runtime, run_id)
    assert given["run"]["state"] == "RUN_STATE_SUCCEEDED"
    await transfer(runtime, run_id, USER, bearer="member")
    assert await owners(runtime, run_id) == [USER] * 3
    assert (await summaries(runtime, f"user:{USER}:runs"))[-1] == ("4", False)
    assert (await summaries(runtime, f"user:{OTHER_USER}:runs"))[-1] == ("4", True)


async def test_two_that_meet_are_judged_one_after_the_other(runtime: RuntimeRig) -> None:
    """Of two transfers by the owner one wins; the other is no longer the owner's to make."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    statuses: list[int] = []

    async def give(to: str) -> None:
        response = await runtime.call(
            "POST", f"/v1/runs/{run_id}/transfer", {"owner_user_id": to}, bearer="user"
        )
        statuses.append(response.status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give, OTHER_USER)
        nursery.start_soon(give, ADMIN)
    assert sorted(statuses) == [200, 404]
    page = await runtime.json("GET", f"/v1/runs/{run_id}/events", bearer="admin")
    assert [event["kind"] for event in page["events"]].count("run.transferred") == 1


async def test_clients_do_not_write_the_event_themselves(runtime: RuntimeRig) -> None:
    """In the log run.transferred is true."""
    run_id = await runtime.make_run()
    body = {"events": [{"kind": "run.transferred", "data": {"to_user_id": USER}}]}
    refused = await runtime.json("POST", f"/v1/runs/{run_id}/events", body, status=400)
    assert (refused["code"], refused["details"]["field"]) == ("invalid_argument", "events[0].kind")


async def test_a_rebuild_agrees(runtime: RuntimeRig) -> None:
    """INV-19 holds across a transfer: the fold takes the owner from the head, as the row has it."""
    run_id = await runtime.make_run("colleague", name="fix", org_id=ORG)
    await transfer(runtime, run_id)
    response = await runtime.http.get(
        "/internal/v1/projections/drift",
        headers={"Authorization": f"Bearer {CONTROL_CREDENTIAL.reveal()}", "Accept": "application/json"},
    )
    assert response.status_code == 200, response.text
    assert response.json()["stored_hash"] == response.json()["folded_hash"]


def test_a_projector_that_waited_finds_the_new_owner(fresh_database: Database) -> None:
    """INV-29: lock_checkpoints_v2 reads owners after it has the locks, not as they were when it began."""

    async def scenario() -> None:
        topic = f"run:{make_id('run', 1)}:events"
        async with (
            connected(fresh_database.superuser_dsn) as holder,
            connected(fresh_database.superuser_dsn) as waiter,
        ):
            generation = await holder.fetchval("SELECT runtime.take_generation_v1('test')")
            await holder.execute(
                "SELECT runtime.lock_heads_v1($1, $2, $3, $4)", [topic], ["run_events"], [USER], [ORG]
            )
            lock = "SELECT owner_user_id FROM runtime.lock_checkpoints_v2($1, 'p', $2)"
            await holder.fetch(lock, generation, [topic])
            async with holder.transaction():
                await holder.fetch(lock, generation, [topic])
                await holder.execute("UPDATE runtime.topic_heads SET owner_user_id = $1", OTHER_USER)
                waiting = asyncio.ensure_future(waiter.fetchval(lock, generation, [topic]))
                is_blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('tuple', 'transactionid')"
                async with asyncio.timeout(20):
                    while not await holder.fetchval(is_blocked):
                        await asyncio.sleep(0.01)
            assert await waiting == OTHER_USER

    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["runtime.before_lock", "runtime.after_insert", "runtime.before_commit"])
async def test_what_fails_in_between_leaves_nothing(runtime: RuntimeRig, point: str) -> None:
    """INV-29: owner, event, lists and key are one transaction; the same request then does all of it."""
    run_id = await runtime.make_run("colleague", org_id=ORG)
    await applied(runtime, run_id)
    before = await runtime.counts(), await summaries(runtime, f"user:{USER}:runs")
    failpoints.arm(f"{point}=raise")
    await transfer(runtime, run_id, status=500, key="k")
    assert (await runtime.counts(), await summaries(runtime, f"user:{USER}:runs")) == before
    assert await owners(runtime, run_id) == [USER] * 3
    await transfer(runtime, run_id, key="k")
    assert await owners(runtime, run_id) == [OTHER_USER] * 3
