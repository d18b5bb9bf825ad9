"""A PostgreSQL of one's own that a test may stop, kill, restart and fill up, and clients that go on."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from khala.adapters.embedded_postgres import start_server, stop_server
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from tests.postgres_cluster import Database, PostgresTestCluster, migrate, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.runtime.rig import RuntimeRig

Ending = Literal["restart", "immediate", "kill"]
_SIGNALS = {"restart": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}


@attrs.define
class FragileDatabase:
    """One server with one database in which both planes are migrated."""

    cluster: PostgresTestCluster
    database: Database

    def end(self, how: Ending) -> None:
        """End the postmaster by its pid: politely, at once, or by kill -9; return once all of it is gone."""
        process = self.cluster.server.process
        os.kill(process.pid, _SIGNALS[how])
        process.wait(10)
        # After kill -9 its children leave by themselves; nothing may be left before the next start.
        stop_server(self.cluster.server)

    def start(self) -> None:
        """Start it again on the same port."""
        server = self.cluster.server
        self.cluster.server = start_server(server.cluster, port=server.port)

    async def end_and_start(self, how: Ending, *, away_s: float) -> None:
        """End it, leave it away for a while, start it."""
        await trio.to_thread.run_sync(self.end, how)
        await trio.sleep(away_s)
        await trio.to_thread.run_sync(self.start)


@contextmanager
def fragile_database(data_dir: Path) -> Iterator[FragileDatabase]:
    """Yield a running one; stop it afterwards, whatever the test has done to it."""
    with running_cluster(data_dir) as cluster:
        # Not `cluster.database`: its administrator's connection would not outlive a restart.
        dsns = bootstrap_roles(cluster.server, database="fragile")
        for plane in ("control", "runtime"):
            trio.run(migrate, plane, dsns[f"khala_{plane}_owner"])
        database = Database("fragile", dsns, cluster.server.superuser_dsn("fragile"), cluster)
        yield FragileDatabase(cluster, database)


@attrs.define
class Ledger:
    """What appending clients were told, to be compared with the journal.

    Attributes:
        acked: Position by idempotency key.
        answers: How often each status was answered.
        details: How often trouble said that the outcome is unknown.
        slowest_s: The longest that one answer took.
    """

    acked: dict[str, int] = attrs.field(factory=dict)
    answers: Counter[int] = attrs.field(factory=Counter)
    unknown: int = 0
    slowest_s: float = 0.0

    async def append_until(self, runtime: RuntimeRig, run_id: str, name: str, stop: trio.Event) -> None:
        """Append one event after the other; repeat each with its key until it is acknowledged.

        Any answer but an acknowledgement or an honest `unavailable` fails the test; so does a socket
        that does not stay.
        """
        number = 0
        while not stop.is_set():
            key = f"{name}-{number}"
            number += 1
            while key not in self.acked:
                await self._append_once(runtime, run_id, key)

    async def _append_once(self, runtime: RuntimeRig, run_id: str, key: str) -> None:
        body = {"events": [{"kind": "thought", "data": {"text": key}}]}
        asked_at = trio.current_time()
        response = await runtime.call("POST", f"/v1/runs/{run_id}/events", body, key=key)
        self.slowest_s = max(self.slowest_s, trio.current_time() - asked_at)
        self.answers[response.status_code] += 1
        answer = response.json()
        if response.status_code == 200:
            self.acked[key] = int(answer["acks"][0]["seq"])
            return
        assert (response.status_code, answer["code"]) == (503, "unavailable"), response.text
        assert answer["retry_after_ms"] > 0
        assert int(response.headers["Retry-After"]) >= 1
        self.unknown += answer["details"].get("outcome") == "unknown"
        # Sooner than we were told: the test is about what is kept, not about patience.
        await trio.sleep(0.05)

    async def compare(self, runtime: RuntimeRig, run_id: str) -> None:
        """Compare with the event log: every acknowledged event where it was said to be, none twice."""
        texts = await runtime.texts(run_id)
        assert len(texts) == len(set(texts)), "a repeated key was applied twice"
        positions = {text: seq for seq, text in enumerate(texts, start=2)}
        assert positions == self.acked


async def wait_ready(runtime: RuntimeRig, *, is_ready: bool, within_s: float = 10.0) -> dict[str, str]:
    """Wait until /readyz says so; return its checks."""
    with trio.fail_after(within_s):
        while True:
            response = await runtime.http.get("/readyz")
            document = response.json()
            assert (response.status_code == 200) == document["ready"]
            if document["ready"] == is_ready:
                return dict(document["checks"])
            await trio.sleep(0.1)
