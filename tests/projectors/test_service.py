"""A whole runtime: commits over HTTP become rows, frames for followers, metrics and operators' answers."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import kinds
from khala_contracts.codec import decode_entries
from khala_contracts.fanout_records import RecordVerifier
from khala_contracts.topics import format_run_events, format_user_runs
from khala_service.config import Secret
from runtime.core.projections import hash_summaries
from tests.actors.runtime.rig import USER, RecordingDriver
from tests.integration.runtime.raw_append import APPEND, RawEvent, append_args
from tests.integration.runtime.rig import FANOUT_KEY, RuntimeRig, Settings, eventually, open_runtime
from tests.postgres_cluster import Database  # noqa: TC001  # used in signatures that pytest reads

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.slow

MINE = format_user_runs(USER)
ADMIN = "admin-token-of-these-tests"
DRIFT = "/internal/v1/projections/drift"
REBUILD = "/internal/v1/projections/rebuild"
SETTINGS = Settings(changes={"admin_token": Secret(ADMIN)})


async def operate(rig: RuntimeRig, method: str, path: str, bearer: str = ADMIN) -> httpx.Response:
    """Call an operators' route."""
    return await rig.http.request(method, path, headers={"Authorization": f"Bearer {bearer}"})


async def states_told(rig: RuntimeRig) -> dict[str, str]:
    """Return the latest state of each run, as the user's list has it."""
    rows = await rig.pool.fetch(
        "SELECT kind, payload FROM runtime.events WHERE topic = $1 ORDER BY seq", MINE
    )
    found: dict[str, str] = {}
    for row in rows:
        data = kinds.decode_payload(row["kind"], row["payload"])
        found[str(data["run_id"])] = str(data["state"])
    return found


async def metrics(rig: RuntimeRig) -> dict[str, float]:
    """Return the projector's metrics."""
    text = (await rig.http.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("khala_runtime_projection")]
    return {name.removeprefix("khala_runtime_projection_"): float(value) for name, value in lines}


async def test_commands_reach_the_list_and_its_followers(runtime_database: Database) -> None:
    """POST /v1/runs and its end: the relay hands both summaries to the driver, sealed, like any commit."""
    driver = RecordingDriver()
    async with open_runtime(runtime_database, attrs.evolve(SETTINGS, driver=driver)) as rig:
        run_id = await rig.make_run(name="listed")

        async def is_in_state(state: str) -> bool:
            return (await states_told(rig)).get(run_id) == state

        await eventually(lambda: is_in_state("RUN_STATE_RUNNING"))
        await rig.json("POST", f"/v1/runs/{run_id}/transitions", {"to_state": "RUN_STATE_FAILED"})
        await eventually(lambda: is_in_state("RUN_STATE_FAILED"))

        async def is_relayed() -> bool:
            return [topic for topic, _ in driver.published].count(MINE) == 2

        await eventually(is_relayed)
        # A read of the list's own position, as its reader may ask for it.
        assert (await rig.json("GET", f"/v1/topics/{MINE}"))["topic_class"] == "user_runs"
        assert (await rig.call("GET", f"/v1/topics/{MINE}", bearer="other")).status_code == 404
    verifier = RecordVerifier({"test": FANOUT_KEY})
    records = [verifier.open_untrusted(data) for topic, data in driver.published if topic == MINE]
    frames = [frame for record in records for frame in decode_entries(b"".join(record.entries))]
    assert [frame.seq for frame in frames] == [1, 2]
    assert [kinds.decode_payload(frame.kind, frame.payload)["state"] for frame in frames] == [
        "RUN_STATE_RUNNING", "RUN_STATE_FAILED",
    ]  # fmt: skip
    assert records[1].chain_before == records[0].chain_after


async def test_what_was_committed_before_the_start_is_found(runtime_database: Database) -> None:
    """An old database: the first start projects every run that it finds."""
    async with open_runtime(runtime_database, SETTINGS) as rig:
        run_id = await rig.make_run()
        await rig.append(run_id, *"abc")

        async def is_told() -> bool:
            return run_id in await states_told(rig)

        await eventually(is_told)
        for table in ("run_summaries", "projector_checkpoints"):
            await rig.pool.execute(f"DELETE FROM runtime.{table}")
    async with open_runtime(runtime_database, SETTINGS) as rig:

        async def is_applied() -> bool:
            row = await rig.pool.fetchrow("SELECT applied_seq FROM runtime.run_summaries")
            return row is not None and row["applied_seq"] == 4

        await eventually(is_applied)


async def test_poison_stops_one_run_and_is_alarmed(runtime_database: Database) -> None:
    """INV-9: the poisoned run is set aside, counted and shown; a run beside it is listed as ever."""
    async with open_runtime(runtime_database, SETTINGS) as rig:
        poisoned = await rig.make_run()
        generation = await rig.pool.fetchrow("SELECT generation FROM runtime.generation")
        assert generation is not None
        await rig.pool.fetch(
            APPEND,
            *append_args(
                [(format_run_events(poisoned), [RawEvent("evt_poison", "run.finished", b"\xff")])],
                generation=generation["generation"],
            ),
        )
        await rig.append(poisoned, "after it")

        async def is_set_aside() -> bool:
            return (await metrics(rig))["set_aside"] == 1

        await eventually(is_set_aside)
        healthy = await rig.make_run()

        async def is_told() -> bool:
            return healthy in await states_told(rig)

        await eventually(is_told)
        seen = await metrics(rig)
        assert seen['failures_total{reason="poison"}'] >= 1
        assert seen["set_aside"] == 1

        async def is_not_behind() -> bool:
            now = await metrics(rig)
            return now["events_behind"] == now["lag_seconds"] == 0

        # The page is for what waits; this run has its ticket.
        await eventually(is_not_behind)
        assert (await rig.http.get("/readyz")).status_code == 200


async def test_drift_and_rebuild_over_http(runtime_database: Database) -> None:
    """Operators see no drift, then the damage, repair it, and see that the hashes are equal."""
    async with open_runtime(runtime_database, SETTINGS) as rig:
        run_id = await rig.make_run()

        async def is_applied() -> bool:
            seen = await metrics(rig)
            return seen["events_total"] == 1 and seen["queue_sources"] == 0

        await eventually(is_applied)
        report: dict[str, Any] = (await operate(rig, "GET", DRIFT)).json()
        assert (report["checked"], report["difference_count"]) == ("1", "0")
        assert report["stored_hash"] == report["folded_hash"]
        await rig.pool.execute("UPDATE runtime.run_summaries SET title = 'damaged'")
        report = (await operate(rig, "GET", DRIFT)).json()
        assert report["differences"] == [{"run_id": run_id, "problem": "differs in title"}]
        rebuilt = (await operate(rig, "POST", REBUILD)).json()
        assert (rebuilt["rebuilt"], rebuilt["changed"], rebuilt["summaries"]) == ("1", "1", "0")
        report = (await operate(rig, "GET", DRIFT)).json()
        assert report["stored_hash"] == report["folded_hash"] == rebuilt["hash"]
        assert len(b64decode(rebuilt["hash"])) == len(hash_summaries([]))


@pytest.mark.parametrize(("method", "path"), [("GET", DRIFT), ("POST", REBUILD)])
async def test_only_operators_compare_and_rebuild(runtime_database: Database, method: str, path: str) -> None:
    """Users and keys get the 401 of a missing credential; a wrong limit is refused."""
    async with open_runtime(runtime_database, SETTINGS) as rig:
        for bearer in ("user", "publisher", "khs_" + "x" * 43, "x"):
            answer = await operate(rig, method, path, bearer)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        for limit, status in (("1", 200), ("10000", 200), ("0", 400), ("10001", 400)):
            assert (await operate(rig, method, f"{path}?limit={limit}")).status_code == status
        assert (await operate(rig, method, f"{path}?page_token=nonsense")).status_code == 400


async def test_binary_answers(runtime_database: Database) -> None:
    """The internal routes speak protobuf too."""
    async with open_runtime(runtime_database, SETTINGS) as rig:
        headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "application/x-protobuf"}
        drift = m.ProjectionDriftResponse.FromString((await rig.http.get(DRIFT, headers=headers)).content)
        rebuilt = m.RebuildProjectionsResponse.FromString(
            (await rig.http.post(REBUILD, headers=headers)).content
        )
        assert drift.checked == rebuilt.rebuilt == 0
        assert drift.stored_hash == rebuilt.hash


async def test_many_writers_and_the_list_ends_with_the_truth(runtime_database: Database) -> None:
    """Twelve runs written at once over HTTP: in the end the list's latest per key is each run's state."""
    async with open_runtime(runtime_database, SETTINGS) as rig:
        expected: dict[str, str] = {}

        async def live(number: int) -> None:
            run_id = await rig.make_run()
            for index in range(4):
                await rig.append(run_id, f"{index}")
            state = ("RUN_STATE_SUCCEEDED", "RUN_STATE_FAILED", "RUN_STATE_PAUSED")[number % 3]
            await rig.json("POST", f"/v1/runs/{run_id}/transitions", {"to_state": state})
            expected[run_id] = state

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(live, number)

        async def is_told() -> bool:
            return await states_told(rig) == expected and (await metrics(rig))["queue_sources"] == 0

        await eventually(is_told)
        report = (await operate(rig, "GET", DRIFT)).json()
        assert (report["checked"], report["difference_count"]) == ("12", "0")
        seen = await metrics(rig)
        assert seen["events_total"] == 12 * 6
        # Writers and the projector lock in one order: none of them was rolled back for the other.
        assert sum(value for name, value in seen.items() if name.startswith("failures_total")) == 0
