"""How fast the fan-out drivers are here: ``python -m chaos.load.driver_speed``.

Starts a PostgreSQL and a NATS server of its own in a temporary directory, measures, prints one JSON line
for each figure, and ends them. Takes about 20 s; figures move by a third from run to run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import trio

from fanout_drivers.base import RecordCopy
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala.adapters.embedded_nats import open_embedded_nats
from khala.adapters.embedded_nats_config import NatsRole
from khala.adapters.embedded_postgres import init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from khala_contracts.topics import format_run_events
from khala_service.adapters.asyncio_bridge import open_asyncio_loop, run_in_asyncio
from khala_service.identifiers import SystemIds
from khala_service.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fanout_drivers.base import FanoutDriver, FanoutSubscriber
    from khala_contracts.topics import TopicName

# One process does both ends.
TOOL: Final = NatsRole(name="tool", may_publish=(">",), may_subscribe=(">",))
TOPICS: Final = 20
RECORDS: Final = 40_000
RECORD_BYTES: Final = 1_024
# Records under way at once; below what an outbox holds.
WINDOW: Final = 2_000
RINGS: Final = 300
WRITERS: Final = 8
WRITE_S: Final = 3.0


async def measure_throughput(
    driver: FanoutDriver, subscriber: FanoutSubscriber, topics: list[TopicName]
) -> float:
    """Return records per second, published and received in one process."""
    data = bytes(RECORD_BYTES)
    received = 0
    started_at = time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def publish() -> None:
            for number in range(RECORDS):
                while number - received >= WINDOW:  # noqa: ASYNC110 - looks once a millisecond
                    await trio.sleep(0.001)
                await driver.publish(topics[number % TOPICS], data)

        nursery.start_soon(publish)
        while received < RECORDS:
            received += isinstance(await subscriber.receive(), RecordCopy)
    return RECORDS / (time.perf_counter() - started_at)


async def measure_latency(
    driver: FanoutDriver, subscriber: FanoutSubscriber, topic: TopicName
) -> dict[str, float]:
    """Return the time from a publication after silence to what the subscriber is told, milliseconds."""
    taken = []
    for _ in range(RINGS):
        # Longer than the pause between two rings.
        await trio.sleep(0.025)
        started_at = time.perf_counter()
        await driver.publish(topic, b"record")
        await subscriber.receive()
        taken.append((time.perf_counter() - started_at) * 1_000)
    return {
        "p50_ms": round(statistics.median(taken), 2),
        "p99_ms": round(sorted(taken)[RINGS * 99 // 100], 2),
    }


async def drain(subscriber: FanoutSubscriber) -> None:
    """Take the notices of connecting."""
    with trio.move_on_after(0.5):
        while True:
            await subscriber.receive()


async def measure_commits(dsn: str, *, with_notify: bool) -> float:
    """Return commits per second of several writers; an asyncio coroutine."""
    connections = [await asyncpg.connect(dsn) for _ in range(WRITERS)]
    await connections[0].execute("CREATE TABLE IF NOT EXISTS speed (n bigint)")
    ends_at = time.perf_counter() + WRITE_S
    notify = "NOTIFY khala_doorbell;" if with_notify else ""

    async def write(connection: asyncpg.Connection[asyncpg.Record]) -> int:
        count = 0
        while time.perf_counter() < ends_at:
            await connection.execute(f"BEGIN; INSERT INTO speed VALUES (1); {notify} COMMIT")  # noqa: S608 - constants
            count += 1
        return count

    done = await asyncio.gather(*(write(connection) for connection in connections))
    for connection in connections:
        connection.terminate()
    return sum(done) / WRITE_S


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(figure: str, value: object) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps({"figure": figure, "value": value}) + "\n")
    sys.stdout.flush()


async def measure(folder: Path, dsns: Mapping[str, str], superuser_dsn: str) -> None:
    """Measure each driver in turn."""
    ids = SystemIds()
    topics = [format_run_events(ids.new("run")) for _ in range(TOPICS)]
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        server = await held.enter_async_context(open_embedded_nats(folder, free_port(), roles=(TOOL,)))
        nats = FanoutConfig(
            driver="nats",
            nats_servers=(server.url,),
            nats_user=server.command.login("tool")[0],
            nats_password=Secret(server.command.login("tool")[1]),
            nats_doorbell=False,
        )
        for config in (FanoutConfig(driver="memory"), nats, FanoutConfig(driver="postgres")):
            context = DriverContext(
                config=config, database_dsn=Secret(dsns["khala_runtime"]), component="runtime"
            )
            async with (
                open_driver(context, is_one_process=True) as driver,
                driver.open_subscriber() as subscriber,
            ):
                while not await driver.check_health():  # noqa: ASYNC110 - it connects by itself
                    await trio.sleep(0.01)
                for topic in topics:
                    await subscriber.subscribe(topic)
                await drain(subscriber)
                if driver.guarantees.carries_copies:
                    speed = await measure_throughput(driver, subscriber, topics)
                    say(f"{driver.name}: records of 1 KiB per second", round(speed))
                say(
                    f"{driver.name}: publication to news",
                    await measure_latency(driver, subscriber, topics[0]),
                )
        for with_notify in (False, True, False, True):
            label = "with NOTIFY in the transaction" if with_notify else "without NOTIFY"
            commits = await run_in_asyncio(_commits, superuser_dsn, with_notify)
            say(f"commits per second of {WRITERS} writers, {label}", round(commits))


async def _commits(dsn: str, with_notify: bool) -> float:
    return await measure_commits(dsn, with_notify=with_notify)


def main() -> None:
    """Start the servers, measure, end them."""
    with tempfile.TemporaryDirectory(prefix="khala-speed-") as name:
        folder = Path(name)
        server = start_server(init_cluster(folder))
        try:
            dsns = bootstrap_roles(server)
            trio.run(measure, folder, dsns, server.superuser_dsn())
        finally:
            stop_server(server)


if __name__ == "__main__":
    main()
