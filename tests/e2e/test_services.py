"""OPS-12, ARC-07, ARC-08: each service as a process of its own, from its configuration to its exit status."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio_websocket

from khala.cli.up_ports import UpPorts
from tests.e2e.service_processes import (
    PYTHON_MODULES,
    SERVICES,
    Deployment,
    Service,
    clean_environment,
    deployment,
    json_lines,
    run_service,
    wait_exit,
)
from tests.e2e.system import KHALA, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.postgres_cluster import PostgresTestCluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(
    postgres_cluster: PostgresTestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment on a migrated database of its own; tests start and end its services."""
    ports = UpPorts.free()
    numbers = {
        "control": ports.control, "runtime": ports.runtime, "node": ports.node(), "admin": ports.admin(),
    }  # fmt: skip
    with (
        postgres_cluster.database("control", "runtime") as database,
        deployment(tmp_path_factory.mktemp("deployed"), database.dsns, numbers) as made,
    ):
        yield made


def test_every_service_starts_drains_and_ends_as_asked(deployed: Deployment) -> None:
    """SIGTERM: /readyz says no within 1 s, then exit 0; services that were killed are ready again by themselves."""
    running = {service: deployed.start(service) for service in SERVICES}
    for service in SERVICES:
        deployed.wait_ready(service)
    for process in running.values():
        process.kill()
    for service in SERVICES:
        assert running[service].wait(10) == -signal.SIGKILL
        running[service] = deployed.start(service, program=PYTHON_MODULES[service])
    for service in SERVICES:
        deployed.wait_ready(service)
    for service, limit_s in (("node", 5.0), ("runtime", 8.0), ("control", 8.0)):
        process = running[service]
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        wait_until(lambda s=service: deployed.probe(s)[0] == 503, timeout_s=1.0, what=f"{service} not ready")
        assert time.monotonic() - began < 1.0
        status, _ = wait_exit(process, within_s=limit_s)
        assert status == 0, deployed.log_of(service)
        assert deployed.probe(service)[0] == 0
        lines = json_lines(deployed.log_of(service))
        assert [line["signal"] for line in lines if line["event"] == "draining" and "signal" in line] == [
            "SIGTERM"
        ]
        assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("service", SERVICES)
def test_the_second_request_hurries(deployed: Deployment, service: Service) -> None:
    """Within 2 s, with status 1, though the notice of the drain has not passed and work may be in flight."""
    deployed.write_config(**{service: {"drain_notice_s": 60}})
    process = deployed.start(service, program=PYTHON_MODULES[service])
    try:
        deployed.wait_answers(service)
        process.send_signal(signal.SIGTERM)
        wait_until(
            lambda: "draining" in deployed.probe(service)[1].values(),
            timeout_s=2,
            what="it says that it drains",
        )
        process.send_signal(signal.SIGTERM)
        status, took_s = wait_exit(process, within_s=5)
        assert (status, took_s < 2.0) == (1, True), deployed.log_of(service)
        last = json_lines(deployed.log_of(service))[-1]
        assert (last["event"], last["hurried"]) == ("stopped", True)
    finally:
        deployed.write_config()


def test_without_its_supervisor_a_service_ends(deployed: Deployment) -> None:
    """--until-stdin-closes: the end of standard input is a request to end; without it, it is none."""
    command = [*KHALA, "runtime", "--config", str(deployed.write_config()), "--until-stdin-closes"]
    process = subprocess.Popen(
        command,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deployed.processes.append(process)
    deployed.wait_answers("runtime")
    assert process.stdin is not None
    assert process.stderr is not None
    # Who read the log is gone as well: a line that cannot be written ends nothing before its time.
    process.stderr.close()
    process.stdin.close()
    assert process.wait(10) == 0


@pytest.mark.skipif(shutil.which("unshare") is None, reason="makes a pid namespace")
def test_a_service_may_be_process_1(deployed: Deployment) -> None:
    """In a container nobody else handles signals or reaps: SIGTERM ends it with status 0 all the same."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine makes no namespaces")
    deployed.write_config()
    process = deployed.start("runtime", program=(*unshare, *KHALA, "runtime"))
    deployed.wait_answers("runtime")
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    subprocess.run(["kill", "-TERM", children.stdout.split()[0]], check=True)
    assert process.wait(10) == 0


async def test_a_node_serves_without_a_runtime(deployed: Deployment) -> None:
    """ARC-08: a node is a process of its own; with control and the database it is ready and greets clients."""
    deployed.write_config()
    control, node = deployed.start("control"), deployed.start("node")
    await trio.to_thread.run_sync(lambda: deployed.wait_ready("node"))
    url = f"ws://127.0.0.1:{deployed.ports['node']}/sync/v1/ws"
    async with trio_websocket.open_websocket_url(url, subprotocols=["khala.v1"]) as socket:
        assert socket.subprotocol == "khala.v1"
    for process in (node, control):
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait, 10) == 0


@pytest.mark.parametrize(
    ("service", "config", "said"),
    [
        (
            "control",
            "[control]\nport = 'x'\n[logging]\nlevel = 'loud'\n[nods]\n[runtime]\nignored = 1\n",
            ["control.port: expected an integer", "logging.level: expected one of", "nods: unknown section"],
        ),
        (
            "runtime",
            "[runtime]\nprot = 1\n[fanout]\ndrivers = 'x'\n[node]\nignored = 1\n",
            [
                "runtime.prot: unknown key; did you mean port?",
                "fanout.drivers: unknown key; did you mean driver?",
            ],
        ),
        (
            "node",
            "[node]\nfailpoints = 'node.mid_frame=kill'\nport = true\n[fanout]\nsubject_prefix = 'a.b'\n",
            ["node.port: expected an integer", "fanout.subject_prefix"],
        ),
    ],
)
def test_every_wrong_key_of_its_sections_is_named_at_once(
    tmp_path: Path, service: str, config: str, said: list[str]
) -> None:
    """Status 78; the sections of the other services are not its business, an unknown section is."""
    file = tmp_path / "khala.toml"
    file.write_text(config)
    refused = run_service(service, file, KHALA_LOGGING_COLOUR="1")
    assert refused.returncode == 78
    for sentence in (*said, f"{service}.database_dsn: required", "KHALA_LOGGING_COLOUR: unknown variable"):
        assert sentence in refused.stderr
    assert "ignored" not in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("service", ["runtime", "node"])
def test_memory_cannot_reach_another_process(deployed: Deployment, service: Service) -> None:
    """ARC-08: memory with a remote runtime is a configuration error, named, with status 78."""
    file = deployed.write_config(fanout={"driver": "memory"})
    try:
        refused = run_service(service, file)
        assert refused.returncode == 78
        assert (
            "fanout.driver: memory cannot leave its process, and the runtime is another one" in refused.stderr
        )
    finally:
        deployed.write_config()


def test_a_service_is_refused_the_database_of_another(deployed: Deployment) -> None:
    """ARC-07: a node with control's role does not start, whatever that role may do in the database."""
    file = deployed.write_config(node={"database_dsn": deployed.dsns["khala_control"]})
    try:
        refused = run_service("node", file)
        assert refused.returncode == 78
        said = (
            "node.database_dsn: khala_control is not a role for this service, which connects as khala_reader"
        )
        assert refused.stderr.splitlines() == [said]
    finally:
        deployed.write_config()


def test_wrong_usage_is_status_2() -> None:
    """As for every command."""
    done = subprocess.run(
        [*PYTHON_MODULES["node"][:3], "migrate"], env=clean_environment(), capture_output=True, check=False
    )
    assert done.returncode == 2
