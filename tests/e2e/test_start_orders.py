"""KH-41: in whatever order database, runtime and node are started, all end ready by themselves."""

from __future__ import annotations

import subprocess
import time
from itertools import permutations
from typing import TYPE_CHECKING, cast

import pytest

from khala.adapters.embedded_postgres import init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from khala.cli.up_ports import UpPorts
from tests.e2e.service_processes import Deployment, Service, clean_environment, deployment
from tests.e2e.system import KHALA, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khala.adapters.embedded_postgres import PostgresCluster, PostgresServer

pytestmark = pytest.mark.slow

READY_MAX_S = 10.0


class Database:
    """An embedded PostgreSQL that keeps its port from life to life."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.cluster = cluster
        self.server: PostgresServer | None = start_server(cluster)
        self.port = self.server.port
        self.dsns = bootstrap_roles(self.server)

    def start(self) -> None:
        """Start it again."""
        self.server = start_server(self.cluster, port=self.port)

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self.server is not None:
            stop_server(self.server, fast_stop_s=2)
            self.server = None


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A migrated database that does not run yet."""
    made = Database(init_cluster(tmp_path_factory.mktemp("orders") / "data"))
    try:
        owners = {
            f"KHALA_MIGRATE_{plane.upper()}_OWNER_DSN": made.dsns[f"khala_{plane}_owner"]
            for plane in ("control", "runtime")
        }
        command = [*KHALA, "migrate", "--json"]
        done = subprocess.run(command, env=clean_environment(**owners), capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == len(owners)
        made.stop()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def deployed(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Control runs all the time, without its database at first; the test is about the other three."""
    ports = UpPorts.free()
    numbers = {
        "control": ports.control, "runtime": ports.runtime, "node": ports.node(), "admin": ports.admin(),
    }  # fmt: skip
    with deployment(tmp_path_factory.mktemp("services"), database.dsns, numbers) as made:
        made.start("control")
        yield made


@pytest.mark.parametrize("order", list(permutations(("database", "runtime", "node"))), ids=" ".join)
def test_all_end_ready_whoever_starts_first(
    deployed: Deployment, database: Database, order: tuple[str, ...]
) -> None:
    """Whoever misses something says so, waits without ending, and is ready within 10 s of the last start."""
    running: dict[Service, subprocess.Popen[bytes]] = {}
    try:
        for name in order:
            for service in running:
                # It waits: it answers, and is not ready without its database.
                expected = 200 if database.server is not None else 503
                wait_until(
                    lambda s=service, e=expected: deployed.probe(s)[0] == e,
                    timeout_s=READY_MAX_S,
                    what=f"{service} says {expected} before {name} is started",
                )
            if name == "database":
                database.start()
            else:
                service = cast("Service", name)
                running[service] = deployed.start(service)
        began = time.monotonic()
        for waiting in ("control", *running):
            remaining_s = READY_MAX_S - (time.monotonic() - began)
            deployed.wait_ready(waiting, timeout_s=remaining_s)
        assert [process.poll() for process in running.values()] == [None, None]
    finally:
        for process in running.values():
            process.kill()
            process.wait(10)
        database.stop()
