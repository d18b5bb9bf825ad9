"""Real faults: connections cut around COMMIT, content that PostgreSQL refuses, a second runtime."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from fanout_drivers.base import RecordCopy
from fanout_drivers.memory import MemoryDriver
from khala_contracts import reason_codes
from khala_contracts.codec import decode_entries
from khala_contracts.fanout_records import RecordVerifier
from khala_contracts.topics import TOPIC_CLASSES, TopicName
from khala_service import failpoints
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from runtime.actors.appender import Appender
from runtime.actors.relay import Relay
from runtime.adapters.postgres.journal_store import PostgresJournalStore
from runtime.app import migrate, serve_runtime
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import Submission
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Answered, Appended, Refused
from runtime.core.rate_limit import RateLimiter, rates_of
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.rig import (
    LINEAGE,
    SIGNER,
    CountedMetrics,
    FixedClock,
    RecordingDriver,
    append,
    create,
    facts,
    make_id,
    thoughts,
    transition,
)
from tests.integration.runtime.cutting_proxy import cutting_proxy
from tests.integration.runtime.rig import (
    FANOUT_KEY,
    RuntimeRig,
    Settings,
    StubControl,
    eventually,
    make_config,
    open_runtime,
    running_runtime,
)

if TYPE_CHECKING:
    from typing import Literal

    from runtime.core.outcomes import Outcome
    from tests.postgres_cluster import Database

DEADLINE_S = 20.0
LOCK_HEAD = "SELECT runtime.lock_heads_v1(ARRAY[$1], ARRAY['x'], ARRAY['x'], ARRAY['x'])"


@pytest.mark.parametrize("key", ["mine", None])
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_connection_cut_around_commit(
    runtime_database: Database, cut: Literal["before", "after"], key: str | None
) -> None:
    """Whether COMMIT took effect or not, with a key or without: the event is there once and is acked."""
    async with open_asyncio_loop(), cutting_proxy(runtime_database.dsn("khala_runtime")) as proxy:
        settings = Settings(dsn=proxy.dsn(runtime_database.dsn("khala_runtime")))
        async with running_runtime(runtime_database, settings) as runtime:
            run_id = await runtime.make_run()
            proxy.cut, proxy.cuts_left, proxy.writers_only = cut, 1, True
            (ack,) = await runtime.append(run_id, "once", key=key)
            assert proxy.cuts_left == 0
            assert ack["seq"] == "2"
            assert await runtime.texts(run_id) == ["once"]
            assert await runtime.metric("khala_runtime_commit_retries_total") == 1
            assert await runtime.metric("khala_runtime_duplicates_total") == (cut == "after")


async def test_outcome_that_nobody_can_know(runtime_database: Database) -> None:
    """The answer to COMMIT is lost for good: 503 with outcome=unknown; later the key tells what happened."""
    async with open_asyncio_loop(), cutting_proxy(runtime_database.dsn("khala_runtime")) as proxy:
        settings = Settings(
            dsn=proxy.dsn(runtime_database.dsn("khala_runtime")), limits=RuntimeLimits(commit_deadline_s=2)
        )
        async with running_runtime(runtime_database, settings) as runtime:
            run_id = await runtime.make_run()
            await runtime.append(run_id, "first")
            proxy.cut, proxy.cuts_left, proxy.writers_only, proxy.closes = "after", 1, True, True
            body = {"events": [{"kind": "thought", "data": {"text": "maybe"}}]}
            path = f"/v1/runs/{run_id}/events"
            answer = await runtime.json("POST", path, body, key="k", status=503)
            assert (answer["code"], answer["details"]) == ("unavailable", {"outcome": "unknown"})
            assert answer["retry_after_ms"] > 0
            proxy.is_closed = False
            again = await runtime.json("POST", path, body, key="k")
            assert again["acks"][0]["seq"] == "3"
            assert await runtime.texts(run_id) == ["first", "maybe"]


async def test_database_away_is_not_unknown(runtime_database: Database) -> None:
    """A commit that could never begin is unavailable without "unknown"; readiness says so meanwhile."""
    async with open_asyncio_loop(), cutting_proxy(runtime_database.dsn("khala_runtime")) as proxy:
        settings = Settings(
            dsn=proxy.dsn(runtime_database.dsn("khala_runtime")), limits=RuntimeLimits(commit_deadline_s=2)
        )
        async with running_runtime(runtime_database, settings) as runtime:
            run_id = await runtime.make_run()
            proxy.is_closed = True
            await runtime.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'khala_runtime'"
            )
            answer = await runtime.json(
                "POST", f"/v1/runs/{run_id}/events", {"events": [{"kind": "thought"}]}, status=503
            )
            assert (answer["code"], answer["details"]) == ("unavailable", {})
            ready = await runtime.http.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["checks"]["database"].startswith("database_")
            proxy.is_closed = False
            await runtime.append(run_id, "back")

            async def is_ready() -> bool:
                return (await runtime.http.get("/readyz")).status_code == 200

            await eventually(is_ready)


async def test_one_poison_request_among_fifty(runtime_database: Database) -> None:
    """Content that only PostgreSQL refuses fails its own request; the forty-nine others are committed."""
    async with (
        open_asyncio_loop(),
        open_pool(runtime_database.dsn("khala_runtime"), application_name="khala-test", max_size=4) as pool,
    ):
        store = PostgresJournalStore(pool)
        authority = await store.take_authority(holder="test", lineage_candidate=LINEAGE)
        metrics = CountedMetrics()
        relay = Relay(
            RecordingDriver(),
            SIGNER,
            clock=FixedClock(),
            metrics=metrics,
            bytes_max=1 << 20,
        )
        appender = Appender(
            store,
            relay,
            limits=RuntimeLimits(),
            limiter=RateLimiter(rates_of(TOPIC_CLASSES, {})),
            metrics=metrics,
        )
        outcomes: dict[int, Outcome] = {}
        run = facts()
        requests = [append(run, thoughts(str(number))) for number in range(50)]
        requests[25] = append(run, thoughts("poison"), actor="a\x00")

        async def submit(number: int) -> None:
            (outcomes[number],) = await appender.submit(Submission((requests[number],)))

        async with trio.open_nursery() as serving:
            await serving.start(appender.serve, authority)
            assert isinstance((await appender.submit(Submission((create(run),))))[0], Answered)
            async with trio.open_nursery() as callers, pool.acquire() as holder, holder.transaction():
                # Lets all fifty meet in one batch, behind the first.
                await holder.fetch(LOCK_HEAD, run.topic)
                for number in range(50):
                    callers.start_soon(submit, number)
                with trio.fail_after(DEADLINE_S):
                    while appender.inbox_requests < 50:
                        await trio.sleep(0.01)
            serving.cancel_scope.cancel()
        refused = outcomes.pop(25)
        assert isinstance(refused, Refused)
        assert refused.reason is reason_codes.INVALID_ARGUMENT
        assert all(isinstance(outcome, Appended) for outcome in outcomes.values())
        page = await store.read_events(run.topic, after_seq=1, limit=100, max_bytes=1 << 20)
        assert page is not None
        assert len(page.events) == 49
        assert max(requests for requests, _, _ in metrics.batches) == 1 or len(metrics.batches) > 2
        assert "invalid_argument" in metrics.refusals


async def test_connections_race_for_one_key(runtime_database: Database) -> None:
    """RT-25: first uses of a key on ten connections: one is written, the nine others wait and get its answer."""
    async with (
        open_asyncio_loop(),
        open_pool(runtime_database.dsn("khala_runtime"), application_name="khala-test", max_size=12) as pool,
    ):
        store = PostgresJournalStore(pool)
        authority = await store.take_authority(holder="test", lineage_candidate=LINEAGE)
        run, events = facts(), thoughts("once")
        outcomes: list[Outcome] = []

        async def commit(*requests: object) -> None:
            batch = BatchCommit(
                [Submission((request,)) for request in requests],  # type: ignore[arg-type]
                limiter=RateLimiter({}),
                now=0,
                lineage=authority.lineage,
            )
            async with store.open_writer(authority.generation) as writer:
                await writer.commit_batch(batch)
            outcomes.extend(outcome for (outcome,) in batch.outcomes())

        await commit(create(run))
        outcomes.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(commit, append(run, events, "k"))
        assert len(outcomes) == 10
        assert all(outcome == outcomes[0] for outcome in outcomes)
        # Two transitions on two connections: one waits for the other and then is refused.
        outcomes.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit, transition(run, RunState.SUCCEEDED))
            nursery.start_soon(commit, transition(run, RunState.FAILED))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Answered", "Refused"]
        head = await store.read_topic(run.topic)
        assert head is not None
        assert head.head_seq == 3


async def test_take_over(runtime_database: Database) -> None:
    """A second runtime takes the generation: the first stops being ready, writes nothing, loses nothing."""
    async with open_runtime(runtime_database) as first:
        run_id = await first.make_run()
        await first.append(run_id, "first")
        async with running_runtime(runtime_database) as second:
            body = {"events": [{"kind": "thought", "data": {"text": "late"}}]}
            refused = await first.json("POST", f"/v1/runs/{run_id}/events", body, key="k", status=503)
            assert refused["code"] == "superseded"
            await second.append(run_id, "late", key="k")

            async def is_out() -> bool:
                ready = await first.http.get("/readyz")
                return ready.status_code == 503 and ready.json()["checks"]["generation"] == "superseded"

            await eventually(is_out)
            assert (await second.http.get("/readyz")).status_code == 200
            assert await second.metric("khala_runtime_generation") == 2
        assert await first.texts(run_id) == ["first", "late"]
        lineages = await first.pool.fetch("SELECT id FROM runtime.lineage")
        assert len(lineages) == 1


async def test_idle_runtime_notices_the_take_over(runtime_database: Database) -> None:
    """Without a single commit the old runtime is not ready any more within a few seconds."""
    async with open_runtime(runtime_database) as runtime:
        await runtime.pool.execute("SELECT runtime.take_generation_v1('other')")

        async def is_out() -> bool:
            return (await runtime.http.get("/readyz")).status_code == 503

        await eventually(is_out, within_s=5)


async def test_commits_reach_the_driver(runtime_database: Database) -> None:
    """RT-14: what is acknowledged is published: sealed, with the acked chain, entries as in the journal."""
    driver = MemoryDriver()
    async with open_runtime(runtime_database, Settings(driver=driver)) as runtime:
        run_id = await runtime.make_run()
        topic = TopicName(f"run:{run_id}:events")
        async with driver.open_subscriber() as subscriber:
            await subscriber.subscribe(topic)
            acks = await runtime.append(run_id, "a", "b")
            with trio.fail_after(DEADLINE_S):
                copy = await subscriber.receive()
        assert isinstance(copy, RecordCopy)
        record = RecordVerifier({"test": FANOUT_KEY}).open_untrusted(copy.data)
        assert (record.topic, record.first_seq, record.last_seq) == (topic, 2, 3)
        journal = await runtime.pool.fetch(
            "SELECT entry, chain FROM runtime.journal WHERE topic = $1 ORDER BY seq", topic
        )
        assert list(record.entries) == [row["entry"] for row in journal[1:]]
        assert (record.chain_before, record.chain_after) == (journal[0]["chain"], journal[2]["chain"])
        assert [frame.seq for frame in decode_entries(b"".join(record.entries))] == [
            int(ack["seq"]) for ack in acks
        ]


async def test_readiness_and_drain(runtime_database: Database) -> None:
    """RT-01: ready with every part in place; draining says so first and ends the listener."""
    async with open_runtime(runtime_database) as runtime:
        ready = await runtime.http.get("/readyz")
        checks = (
            "draining", "database", "migration", "control", "fanout", "generation", "writers", "projector",
        )  # fmt: skip
        assert ready.json() == {"ready": True, "checks": dict.fromkeys(checks, "ok")}
        assert (await runtime.http.get("/healthz")).status_code == 200
        run_id = await runtime.make_run()
        await runtime.append(run_id, "a", "b")
        names = (
            "khala_runtime_commits_total", "khala_runtime_requests_total", "khala_runtime_events_total",
            "khala_runtime_batch_events_count", "khala_runtime_commit_duration_seconds_count",
        )  # fmt: skip
        assert [await runtime.metric(name) for name in names] == [2, 2, 3, 2, 2]
        await runtime.json(
            "POST",
            f"/v1/runs/{run_id}/events",
            {"events": [{"kind": "thought"}], "expected_seq": 9},
            status=409,
        )
        assert await runtime.metric("khala_runtime_refused_total") == 1
        runtime.drain.set()

        async def is_closed() -> bool:
            try:
                async with httpx.AsyncClient(base_url=runtime.http.base_url) as fresh:
                    return (await fresh.get("/readyz")).status_code == 503
            except httpx.TransportError:
                return True

        await eventually(is_closed)


async def test_start_before_everything_else(empty_database: Database) -> None:
    """KH-41: without schema and without control the service listens and says why; then it is ready by itself."""
    with socket.socket() as free_one, socket.socket() as free_two:
        free_one.bind(("127.0.0.1", 0))
        free_two.bind(("127.0.0.1", 0))
        port, control_port = free_one.getsockname()[1], free_two.getsockname()[1]
    config = make_config(empty_database, control_port, Settings(port=port))
    drain, control_drain = trio.Event(), trio.Event()
    async with (
        open_asyncio_loop(),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(serve_runtime, config, driver=MemoryDriver(), drain=drain))

        async def says(**expected: str) -> bool:
            try:
                ready = await http.get("/readyz")
            except httpx.TransportError:
                return False
            checks = ready.json()["checks"]
            is_ready = all(word == "ok" for word in checks.values())
            assert ready.status_code == (200 if is_ready else 503)
            return {name: word for name, word in checks.items() if word != "ok"} == expected

        waiting = {
            "migration": "migration_required", "generation": "not_taken", "writers": "stopped",
            "projector": "not_started",
        }  # fmt: skip
        await eventually(partial(says, control="control_unreachable", **waiting))
        assert (await http.get("/healthz")).status_code == 200
        refused = await http.post("/v1/runs", json={}, headers={"Authorization": "Bearer user"})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        await migrate(empty_database.dsn("khala_runtime_owner"))
        await eventually(partial(says, control="control_unreachable"))
        await nursery.start(partial(StubControl().serve, drain=control_drain, port=control_port))
        await eventually(says)
        made = await http.post("/v1/runs", json={}, headers={"Authorization": "Bearer user"})
        assert made.status_code == 201
        drain.set()
        control_drain.set()


async def test_drain_before_the_database_is_ready(empty_database: Database) -> None:
    """A service that never got its database still ends when it is asked to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = make_config(empty_database, 1, Settings(port=port))
    drain = trio.Event()

    async def is_listening() -> bool:
        try:
            return (await http.get("/healthz")).status_code == 200
        except httpx.TransportError:
            return False

    with trio.fail_after(DEADLINE_S):
        async with (
            open_asyncio_loop(),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(partial(serve_runtime, config, driver=MemoryDriver(), drain=drain))
            await eventually(is_listening)
            drain.set()


async def test_no_payload_reaches_the_log(runtime: RuntimeRig, capfd: pytest.CaptureFixture[str]) -> None:
    """Logs carry identifiers: neither payloads, keys nor credentials."""
    run_id = await runtime.make_run(name="secret-name")
    await runtime.append(run_id, "secret-payload", key="secret-key")
    await runtime.json("POST", f"/v1/runs/{run_id}/events", {"events": [{"kind": "secret-kind"}]}, status=400)
    assert "secret-" not in capfd.readouterr().err


async def test_lineage_of_another_cluster(runtime_database: Database) -> None:
    """A copy of the database on another cluster gets a lineage of its own, child of the old one."""
    async with (
        open_asyncio_loop(),
        open_pool(runtime_database.dsn("khala_runtime"), application_name="khala-test", max_size=2) as pool,
        open_pool(runtime_database.superuser_dsn, application_name="khala-test", max_size=1) as owner,
    ):
        store = PostgresJournalStore(pool)
        first = await store.take_authority(holder="a", lineage_candidate=make_id("lin", 1))
        await owner.execute("UPDATE runtime.lineage SET system_identifier = '1'")
        second = await store.take_authority(holder="b", lineage_candidate=make_id("lin", 2))
        third = await store.take_authority(holder="c", lineage_candidate=make_id("lin", 3))
        assert [str(authority.lineage) for authority in (first, second, third)] == [
            make_id("lin", 1), make_id("lin", 2), make_id("lin", 2),
        ]  # fmt: skip
        rows = await owner.fetch(
            "SELECT id, parent, reason, is_current, timeline_id FROM runtime.lineage ORDER BY id"
        )
        assert [tuple(row)[:4] for row in rows] == [
            (make_id("lin", 1), None, "created", False),
            (make_id("lin", 2), make_id("lin", 1), "system_identifier_changed", True),
        ]
        assert rows[0]["timeline_id"] == 1


async def test_two_starts_make_one_lineage(runtime_database: Database) -> None:
    """Runtimes that start at the same time agree on one first lineage."""
    async with (
        open_asyncio_loop(),
        open_pool(runtime_database.dsn("khala_runtime"), application_name="khala-test", max_size=8) as pool,
    ):
        store = PostgresJournalStore(pool)
        found: list[tuple[int, str]] = []

        async def start(number: int) -> None:
            authority = await store.take_authority(holder="x", lineage_candidate=make_id("lin", number))
            found.append((authority.generation, authority.lineage))

        async with trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(start, number)
        assert sorted(generation for generation, _ in found) == list(range(1, 9))
        assert len({lineage for _, lineage in found}) == 1


async def test_a_poisonous_topic(runtime_database: Database) -> None:
    """RT-26: publishing one topic raises: the others are copied at once; it is counted and can be replayed."""
    driver = RecordingDriver()
    async with open_runtime(runtime_database, Settings(driver=driver)) as runtime:
        poisonous, healthy = await runtime.make_run(), await runtime.make_run()
        driver.poisonous = f"run:{poisonous}:events"

        async def is_told() -> bool:
            return any(topic == f"run:{healthy}:events" for topic, _ in driver.published)

        driver.published.clear()
        await runtime.append(poisonous, "poison")
        await runtime.append(healthy, "fine")
        await eventually(is_told)
        # As a copy and as a hint; the run's summaries are topics of their own.
        assert await runtime.metric("khala_runtime_relay_poison_total") == 2
        assert await runtime.metric('khala_task_restarts_total{kind="relay"}') == 0
        assert await runtime.texts(poisonous) == ["poison"]
        page = await runtime.json("GET", f"/v1/runs/{poisonous}/events")
        assert len(page["events"]) == 2


async def test_a_writer_that_crashes(runtime_database: Database) -> None:
    """ARC-13: a bug right after COMMIT: "unknown" for its batch, the key tells, everything else goes on."""
    failpoints.arm("runtime.committed=raise")
    async with open_runtime(runtime_database) as runtime:
        body = {"name": "crash"}
        refused = await runtime.json("POST", "/v1/runs", body, status=503, key="k")
        assert (refused["code"], refused["details"]) == ("unavailable", {"outcome": "unknown"})
        made = await runtime.json("POST", "/v1/runs", body, status=201, key="k")
        assert len((await runtime.json("GET", "/v1/runs"))["runs"]) == 1
        await runtime.append(made["run"]["run_id"], "on")
        assert await runtime.metric('khala_task_restarts_total{kind="writer"}') == 1

        async def is_ready() -> bool:
            return (await runtime.http.get("/readyz")).status_code == 200

        await eventually(is_ready)


async def test_a_task_that_crashes(runtime_database: Database) -> None:
    """ARC-13: a task whose statement is refused starts again and again, alone, until it works."""
    async with open_runtime(runtime_database) as runtime:
        run_id = await runtime.make_run()
        await runtime.pool.execute("REVOKE SELECT ON runtime.generation FROM khala_runtime")

        async def has_crashed() -> bool:
            return await runtime.metric('khala_task_restarts_total{kind="generation_watch"}') >= 2

        await eventually(has_crashed)
        await runtime.append(run_id, "on")
        await runtime.pool.execute("GRANT SELECT ON runtime.generation TO khala_runtime")
        await runtime.pool.execute("SELECT runtime.take_generation_v1('other')")

        async def is_out() -> bool:
            checks: dict[str, str] = (await runtime.http.get("/readyz")).json()["checks"]
            return checks["generation"] == "superseded"

        await eventually(is_out)
        assert await runtime.metric("khala_task_restarts_total") == await runtime.metric(
            'khala_task_restarts_total{kind="generation_watch"}'
        )


async def test_a_crash_in_one_request(runtime_database: Database) -> None:
    """ARC-13: a bug in one request answers `internal` and nothing else; its neighbours are answered."""
    async with open_runtime(runtime_database) as runtime:
        run_id = await runtime.make_run()
        # A state that this build does not know: reading the run meets it.
        await runtime.pool.execute("ALTER TABLE runtime.runs DROP CONSTRAINT IF EXISTS runs_state_check")
        await runtime.pool.execute("UPDATE runtime.runs SET state = 'dreaming' WHERE run_id = $1", run_id)
        crashed = await runtime.json("GET", f"/v1/runs/{run_id}", status=500)
        assert (crashed["code"], crashed["details"]) == ("internal", {})
        assert "dreaming" not in str(crashed)
        other = await runtime.make_run()
        assert (await runtime.json("GET", f"/v1/runs/{other}"))["run"]["run_id"] == other
