"""DB-08: the database restarts, dies, is unreachable or full under load: nothing acked is lost or doubled."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from fanout_drivers.memory import MemoryDriver
from khala_service.adapters.postgres import open_asyncio_loop
from runtime.app import START_RETRY_S, serve_runtime
from runtime.core.limits import RuntimeLimits
from tests.integration.fragile_database import FragileDatabase, Ledger, fragile_database, wait_ready
from tests.integration.runtime.cutting_proxy import cutting_proxy
from tests.integration.runtime.open_stream import open_stream
from tests.integration.runtime.rig import (
    Settings,
    StubControl,
    eventually,
    make_config,
    open_runtime,
    running_runtime,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.fragile_database import Ending

CLIENTS = 4
# Short enough for a test; the times of production are in the configuration.
IMPATIENT = {"database_statement_timeout_ms": 200, "database_acquire_timeout_ms": 500}


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FragileDatabase]:
    """A server that every test of this module may end."""
    with fragile_database(tmp_path_factory.mktemp("fragile")) as database:
        yield database


@pytest.mark.parametrize("how", ["restart", "immediate", "kill"])
async def test_the_server_ends_under_load(fragile: FragileDatabase, how: Ending) -> None:
    """Fast stop, immediate stop, kill -9: clients keep their sockets, see 503 with a time, lose nothing."""
    async with open_runtime(fragile.database) as runtime:
        run_id = await runtime.make_run()
        ledger, stop = Ledger(), trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(ledger.append_until, runtime, run_id, f"c{number}", stop)
            await _wait_acks(ledger, 50)
            await fragile.end_and_start(how, away_s=0)
            acked = len(ledger.acked)
            await _wait_acks(ledger, acked + 50)
            stop.set()
        await ledger.compare(runtime, run_id)
        assert set(ledger.answers) <= {200, 503}
        await wait_ready(runtime, is_ready=True)


# A server that is shut down while somebody connects to it: asyncpg now and then leaves that socket to the collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
async def test_the_server_is_away_for_a_while(fragile: FragileDatabase) -> None:
    """Reads and writes answer 503 and say when to come back; readiness tells; then all of it is there again."""
    settings = Settings(limits=RuntimeLimits(commit_deadline_s=2))
    async with open_runtime(fragile.database, settings) as runtime:
        run_id = await runtime.make_run()
        await runtime.append(run_id, "before")
        await trio.to_thread.run_sync(fragile.end, "immediate")
        try:
            checks = await wait_ready(runtime, is_ready=False)
            assert checks["database"].startswith("database_")
            assert (checks["draining"], checks["control"]) == ("ok", "ok")
            assert (await runtime.http.get("/healthz")).status_code == 200
            body = {"events": [{"kind": "thought", "data": {"text": "meanwhile"}}]}
            for method, path, sent in (
                ("POST", "/v1/runs", {}),
                ("POST", f"/v1/runs/{run_id}/events", body),
                ("POST", f"/v1/runs/{run_id}/transitions", {"to_state": "RUN_STATE_SUCCEEDED"}),
                ("GET", "/v1/runs", None),
                ("GET", f"/v1/runs/{run_id}", None),
                ("GET", f"/v1/runs/{run_id}/events", None),
                ("GET", f"/v1/topics/run:{run_id}:events", None),
            ):
                answer = await runtime.json(method, path, sent, status=503)
                assert (answer["code"], answer["details"]) == ("unavailable", {}), path
                assert answer["retry_after_ms"] > 0
        finally:
            await trio.to_thread.run_sync(fragile.start)
        await wait_ready(runtime, is_ready=True)
        await runtime.append(run_id, "after")
        assert await runtime.texts(run_id) == ["before", "after"]
        for kind in ("relay", "appender", "writer", "generation_watch", "key_cleaner", "projector"):
            assert await runtime.metric(f'khala_task_restarts_total{{kind="{kind}"}}') == 0


async def test_a_stream_meets_the_outage(fragile: FragileDatabase) -> None:
    """A streamed append ends with `unavailable` at the event that was not committed; its keys go on later."""
    settings = Settings(limits=RuntimeLimits(commit_deadline_s=2))
    async with open_runtime(fragile.database, settings) as runtime:
        run_id = await runtime.make_run()
        port = runtime.http.base_url.port or 0
        async with open_stream(port, run_id) as stream:
            await stream.send(thought("a", "ka"))
            assert "committed" in await stream.line()
            await trio.to_thread.run_sync(fragile.end, "immediate")
            try:
                await stream.send(thought("b", "kb"))
                failed = (await stream.line())["failed"]
                assert (failed["code"], failed["event_index"]) == ("unavailable", "1")
                assert failed["retry_after_ms"] > 0
                await stream.wait_end()
            finally:
                await trio.to_thread.run_sync(fragile.start)
        await wait_ready(runtime, is_ready=True)
        async with open_stream(port, run_id) as stream:
            await stream.send(thought("a", "ka"), thought("b", "kb"))
            acks = (await stream.line())["committed"]["acks"]
            assert [ack["seq"] for ack in acks] == ["2", "3"]
            await stream.finish()
        assert await runtime.texts(run_id) == ["a", "b"]


async def test_nothing_gets_through(fragile: FragileDatabase) -> None:
    """A network that swallows everything: answers come at the deadline, and all is well once it is back."""
    direct = fragile.database.dsn("khala_runtime")
    async with open_asyncio_loop(), cutting_proxy(direct) as proxy:
        settings = Settings(
            dsn=proxy.dsn(direct), limits=RuntimeLimits(commit_deadline_s=2), changes=dict(IMPATIENT)
        )
        async with running_runtime(fragile.database, settings) as runtime:
            run_id = await runtime.make_run()
            ledger, stop = Ledger(), trio.Event()
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(ledger.append_until, runtime, run_id, f"c{number}", stop)
                await _wait_acks(ledger, 20)
                proxy.swallow()
                await wait_ready(runtime, is_ready=False)
                acked = len(ledger.acked)
                refused = ledger.answers[503]
                with trio.fail_after(20):
                    while ledger.answers[503] < refused + CLIENTS:
                        await trio.sleep(0.05)
                assert len(ledger.acked) == acked
                proxy.pass_on()
                await wait_ready(runtime, is_ready=True)
                await _wait_acks(ledger, acked + 20)
                stop.set()
            await ledger.compare(runtime, run_id)
            # The deadline, twice for what had to wait behind another batch, and what closing may take.
            assert ledger.slowest_s < 10


async def test_the_answer_to_commit_is_swallowed(fragile: FragileDatabase) -> None:
    """COMMIT took effect and nobody can know: outcome=unknown; the key finds it afterwards."""
    direct = fragile.database.dsn("khala_runtime")
    async with open_asyncio_loop(), cutting_proxy(direct) as proxy:
        settings = Settings(
            dsn=proxy.dsn(direct), limits=RuntimeLimits(commit_deadline_s=2), changes=dict(IMPATIENT)
        )
        async with running_runtime(fragile.database, settings) as runtime:
            run_id = await runtime.make_run()
            proxy.cut, proxy.cuts_left, proxy.writers_only = "swallow", 1, True
            body = {"events": [{"kind": "thought", "data": {"text": "maybe"}}]}
            path = f"/v1/runs/{run_id}/events"
            answer = await runtime.json("POST", path, body, key="k", status=503)
            assert (answer["code"], answer["details"]) == ("unavailable", {"outcome": "unknown"})
            proxy.pass_on()
            await wait_ready(runtime, is_ready=True)
            again = await runtime.json("POST", path, body, key="k")
            assert again["acks"][0]["seq"] == "2"
            assert await runtime.texts(run_id) == ["maybe"]


async def test_no_connection_is_left(fragile: FragileDatabase) -> None:
    """SQLSTATE 53300: the server gives out no more connections: unavailable, and back by itself."""
    settings = Settings(limits=RuntimeLimits(commit_deadline_s=2))
    async with open_runtime(fragile.database, settings) as runtime:
        run_id = await runtime.make_run()
        await runtime.pool.execute("ALTER ROLE khala_runtime CONNECTION LIMIT 0")
        try:
            await runtime.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'khala_runtime'"
            )
            checks = await wait_ready(runtime, is_ready=False)
            assert checks["database"] == "database_out_of_resources"
            for method in ("POST", "GET"):
                sent = {"events": [{"kind": "thought"}]} if method == "POST" else None
                answer = await runtime.json(method, f"/v1/runs/{run_id}/events", sent, status=503)
                assert (answer["code"], answer["details"]) == ("unavailable", {})
        finally:
            await runtime.pool.execute("ALTER ROLE khala_runtime CONNECTION LIMIT -1")
        await wait_ready(runtime, is_ready=True)
        await runtime.append(run_id, "after")


async def test_started_without_the_database(fragile: FragileDatabase) -> None:
    """KH-41: it listens, says why it is not ready, asks now and then, and is ready by itself."""
    direct = fragile.database.dsn("khala_runtime")
    async with open_asyncio_loop(), cutting_proxy(direct) as proxy, trio.open_nursery() as nursery:
        proxy.is_closed = True
        drain = trio.Event()
        control_port = await nursery.start(partial(StubControl().serve, drain=drain))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = Settings(dsn=proxy.dsn(direct), port=port)
        config = make_config(fragile.database, control_port, settings)
        nursery.start_soon(partial(serve_runtime, config, driver=MemoryDriver(), drain=drain))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def says(expected: str) -> bool:
                try:
                    checks: dict[str, str] = (await http.get("/readyz")).json()["checks"]
                except httpx.TransportError:
                    return False
                return checks["generation"] == expected

            await eventually(partial(says, "not_taken"))
            before = proxy.connections
            await trio.sleep(2)
            # Each question is at most two connections: with TLS, and without.
            assert 1 <= proxy.connections - before <= 2 * 2 / START_RETRY_S
            refused = await http.post("/v1/runs", json={}, headers={"Authorization": "Bearer user"})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            proxy.is_closed = False
            await eventually(partial(says, "ok"))
            assert (await http.get("/readyz")).status_code == 200
        drain.set()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can make a disk that is full"
)
def test_the_disk_is_full(tmp_path: Path) -> None:
    """SQLSTATE 53100, on a disk that really is full: unavailable, no 500, and on again once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with ExitStack() as held:
        mount = ["mount", "-t", "tmpfs", "-o", "size=192m,mode=0755", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False).returncode != 0:
            pytest.skip("this machine lets root mount nothing")
        held.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        fragile = held.enter_context(fragile_database(disk / "cluster"))
        trio.run(_fill_the_disk, fragile, disk / "ballast")


async def _fill_the_disk(fragile: FragileDatabase, ballast: Path) -> None:
    settings = Settings(limits=RuntimeLimits(commit_deadline_s=2))
    async with open_runtime(fragile.database, settings) as runtime:
        run_id = await runtime.make_run()
        await runtime.append(run_id, "before")
        ledger = Ledger()
        # The log of writes has its file already; what cannot grow is the tables.
        await trio.to_thread.run_sync(_fill_up, ballast)
        refused = 0
        for number in range(40):
            body = {
                "events": [{"kind": "thought", "data": {"text": f"{number}-" + os.urandom(60_000).hex()}}]
            }
            response = await runtime.call("POST", f"/v1/runs/{run_id}/events", body, key=f"k{number}")
            assert response.status_code in {200, 503}, response.text
            if response.status_code == 200:
                ledger.acked[f"k{number}"] = int(response.json()["acks"][0]["seq"])
                continue
            assert response.json()["code"] == "unavailable"
            assert response.json()["details"] == {}
            refused += 1
            if refused == 3:
                break
        assert refused == 3
        await trio.Path(ballast).unlink()
        await wait_ready(runtime, is_ready=True)
        await runtime.append(run_id, "after")
        texts = await runtime.texts(run_id)
        assert [texts[0], texts[-1]] == ["before", "after"]
        assert len(texts) == len(ledger.acked) + 2
        assert list(ledger.acked.values()) == list(range(3, len(texts) + 1))


def _fill_up(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


async def _wait_acks(ledger: Ledger, count: int) -> None:
    with trio.fail_after(30):
        while len(ledger.acked) < count:
            await trio.sleep(0.02)
