"""Two node processes on one port, and what the runtime says of both: RT-15, VER-08, KH-27. One start for all of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.system import running_system, wait_until
from tests.e2e.test_metrics import compare, documented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.system import System

pytestmark = pytest.mark.slow

# VER-08, word for word.
CURL: Final = (
    'curl -sS "$RUNTIME_BASE_URL/internal/v1/khala/fanout/metrics?topic_limit=20" '
    '-H "Authorization: Bearer $RUNTIME_ADMIN_TOKEN"'
)
PROTO: Final = Path(__file__).resolve().parents[2] / "proto" / "openagents" / "runtime" / "v1" / "nodes.proto"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Every service in a process of its own, both nodes on one port."""
    folder = tmp_path_factory.mktemp("many")
    with running_system(folder, split=True, nodes=2, KHALA_UP_SHARED_PORT="true") as started:
        yield started


def environment(split: System) -> dict[str, str]:
    """Return what outsiders are told."""
    token = Path(split.ready["admin_token_file"]).read_text().strip()
    return {"RUNTIME_BASE_URL": split.ready["runtime_url"], "RUNTIME_ADMIN_TOKEN": token}


def fanout_metrics(split: System) -> dict[str, Any]:
    """Run the line unchanged."""
    done = subprocess.run(
        ["sh", "-c", CURL],
        env={"PATH": os.environ["PATH"], **environment(split)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def ready_nodes(split: System) -> dict[str, dict[str, Any]]:
    """Return the nodes that report that they are ready, by name."""
    return {node["node_id"]: node for node in fanout_metrics(split)["nodes"] if node["ready"]}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_line_of_the_contract(split: System) -> None:
    """VER-08: HTTP 200 and JSON with both nodes; every field of it is explained in the contract."""
    wait_until(lambda: len(ready_nodes(split)) == 2, timeout_s=20, what="both nodes report")
    document = fanout_metrics(split)
    assert len(document["topics"]) <= 20
    assert {name for name, node in ready_nodes(split).items() if int(node["report_age_ms"]) <= 15_000} == {
        "node-1", "node-2",
    }  # fmt: skip
    assert (document["totals"]["nodes"], document["totals"]["nodes_silent"]) == ("2", "0")
    assert fields_of(document) <= explained_fields()


def fields_of(value: object) -> set[str]:
    """Return every name of a field in a document; the keys of ``not_ready`` are names of checks."""
    if isinstance(value, list):
        return {name for item in value for name in fields_of(item)}
    if not isinstance(value, dict):
        return set()
    inner = [fields_of(item) for name, item in value.items() if name != "not_ready"]
    return set(value).union(*inner)


def explained_fields() -> set[str]:
    """Return the fields of the contract that have a comment above them."""
    return set(re.findall(r"^ +//[^\n]*\n +[\w<>, ]+ (\w+) = \d+;", PROTO.read_text(), re.M))


@pytest.mark.parametrize(
    ("limit", "status"), [("0", 400), ("-1", 400), ("abc", 400), ("1000000000", 200), ("1", 200)]
)
def test_limits_of_the_line(split: System, limit: str, status: int) -> None:
    """RT-15: refused, or taken for a hundred; and nobody without the token gets anything."""
    told = environment(split)
    url = f"{told['RUNTIME_BASE_URL']}/internal/v1/khala/fanout/metrics?topic_limit={limit}"
    bearer = {"Authorization": f"Bearer {told['RUNTIME_ADMIN_TOKEN']}"}
    assert httpx.get(url, headers=bearer, trust_env=False).status_code == status
    assert httpx.get(url, trust_env=False).status_code == 401


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux spreads connections over listeners of one port"
)
def test_one_port(split: System) -> None:
    """Of fifty connections to the one port each node gets some."""
    urls = {node["url"] for node in split.ready["nodes"]}
    (url,) = urls
    port = urlsplit(url).port
    assert port is not None
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        wait_until(lambda: sum(accepted(split)) >= 50, timeout_s=10, what="all were accepted")
        assert min(accepted(split)) > 0


def accepted(split: System) -> list[int]:
    """Return how many connections each node has accepted."""
    counts: list[int] = []
    for node in split.ready["nodes"]:
        text = httpx.get(f"{node['admin_url']}/metrics", trust_env=False).text
        (line,) = re.findall(r"^khala_node_connections_accepted_total (\S+)$", text, re.M)
        counts.append(round(float(line)))
    return counts


def test_separate_processes_answer_the_same(split: System) -> None:
    """Each child has the metrics of its service, and says which one it is."""
    urls = [("control", split.ready["control_url"]), ("runtime", split.ready["runtime_url"])]
    urls += [("node", node["admin_url"]) for node in split.ready["nodes"]]
    assert len(urls) == 4
    for service, url in urls:
        text = httpx.get(f"{url}/metrics", trust_env=False).text
        assert compare(text, documented(service)) == []
        assert f'service="{service}"' in text


def test_the_gate(split: System) -> None:
    """KH-27: a healthy system lets a rollout go on, asked as a deployment's operator asks."""
    done = subprocess.run(
        [sys.executable, "-m", "khala", "gate", "--window", "10s", "--json"],
        env={"PATH": os.environ["PATH"], **environment(split)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    verdict = json.loads(done.stdout)
    assert verdict["passed"]
    assert {check["name"] for check in verdict["checks"]} >= {"nodes", "fairness", "release", "evictions"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_node_that_was_killed_reports_again(split: System) -> None:
    """The other one goes on at the port; the new process is told apart from the old one, under the same name."""
    before = ready_nodes(split)["node-2"]["instance_id"]
    killed = split.kill("node-2")
    port = urlsplit(split.ready["sync_url"]).port
    assert port is not None
    for _ in range(10):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    split.wait_back("node-2", killed)
    wait_until(
        lambda: ready_nodes(split).get("node-2", {}).get("instance_id") not in (None, before),
        timeout_s=20,
        what="the new process reports",
    )
