"""A second of each benchmark: they run, verify what they did, and print what their reports need.

No threshold: a figure of one second on a busy machine says nothing. The C part needs a compiler; where
there is none, the JSON says so and this test demands the reason.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from chaos.load.report import check_document
from chaos.load.system_under_test import SystemFailedError, running_system_under_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SPREAD: Final = {"median": float, "min": float, "max": float, "count": int}
ENVIRONMENT: Final = {"python": str, "system": str, "machine": str, "cpus": int, "load_1m_before": float}
APPEND: Final = {
    "benchmark": str,
    "unit": str,
    "environment": {
        **ENVIRONMENT,
        "postgresql": {
            "server_version": str,
            "fsync": str,
            "synchronous_commit": str,
            "full_page_writes": str,
            "wal_sync_method": str,
        },
    },
    "target": {"events_per_s": int, "is_met": bool},
    "results": [
        {
            "batch_events": int,
            "payload_bytes": int,
            "runs": int,
            "connections": int,
            "seconds": int,
            "writers": int,
            "ratio_to_pgbench": SPREAD,
            "api": {
                "events_per_s": SPREAD,
                "latency_ms": SPREAD,
                "latency_p99_ms": SPREAD,
                "wall_s": SPREAD,
                "cpu_up_s": SPREAD,
                "cpu_postgres_s": SPREAD,
                "cpu_client_s": SPREAD,
                "acks_checked": int,
            },
            "pgbench": {
                "events_per_s": SPREAD,
                "wall_s": SPREAD,
                "cpu_postgres_s": SPREAD,
                "cpu_client_s": SPREAD,
            },
        }
    ],
}


REVOKE: Final = {
    "benchmark": str,
    "unit": str,
    "environment": ENVIRONMENT,
    "target": {"pushed_p99_s": float, "dropped_p99_s": float, "is_met": bool},
    "setup": {
        "sockets": int,
        "revoked": int,
        "people": int,
        "rounds": int,
        "events_per_s": float,
        "driver": str,
        "poll_interval_s": float,
        "nodes": int,
    },
    "results": [
        {
            "form": str,
            "p99_target_s": float,
            "samples": int,
            "p50_s": float,
            "p99_s": float,
            "max_s": float,
            "events": int,
            "others_uninterrupted": int,
            "reconnects_refused": int,
            "delays_s": [float],
        }
    ],
}


ORIGIN_SIDE: Final = {"requests_per_s": SPREAD, "latency_ms": SPREAD, "latency_p99_ms": SPREAD}
ORIGIN: Final = {
    "benchmark": str,
    "environment": ENVIRONMENT,
    "setup": {
        "connections": int,
        "body_bytes": int,
        "seconds": float,
        "subscribers": int,
        "writes": int,
        "paced_writes": int,
        "pause_s": float,
        "payload_bytes": int,
        "router": str,
    },
    "requests": {
        "ratio_to_direct": SPREAD,
        "router_cpu_us_per_request": SPREAD,
        "direct": ORIGIN_SIDE,
        "through": ORIGIN_SIDE,
    },
    "frames": {
        "ratio_to_direct": SPREAD,
        "router_cpu_us_per_delivery": SPREAD,
        "router_cpu_us_per_paced_delivery": SPREAD,
        "direct_deliveries_per_s": SPREAD,
        "through_deliveries_per_s": SPREAD,
    },
}


# Reports about a node, which share one system in the smoke (chaos/load/commands.py).
ON_RIG: Final = (
    "added",
    "city",
    "connections",
    "cycles",
    "fairness",
    "replay",
    "resume",
    "slow-consumer",
    "stadium",
)


def check_node_reports(reports: Sequence[Mapping[str, Any]]) -> None:
    """Fail unless each is a whole report, with every setting that is not the default and its targets judged."""
    for report in reports:
        check_document(report)
        assert report["overrides"]["up"] == {"split": True, "driver": "nats"}, report["benchmark"]
        assert report["targets"], report["benchmark"]


def check_shape(found: object, wanted: object, path: str = "$") -> None:
    """Fail unless a JSON value has exactly these members, types and finite numbers."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), path
        assert found.keys() == wanted.keys(), path
        for name, inner in wanted.items():
            check_shape(found[name], inner, f"{path}.{name}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), path
        assert found, path
        for index, item in enumerate(found):
            check_shape(item, wanted[0], f"{path}[{index}]")
    elif wanted is float:
        assert isinstance(found, int | float), path
        assert math.isfinite(found), path
        assert found >= 0, path
    else:
        assert type(found) is wanted, path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_of_each_benchmark(tmp_path: Path) -> None:
    """``khala bench --smoke`` prints every report, complete, and leaves nothing running."""
    done = subprocess.run(
        [sys.executable, "-m", "khala.cli", "bench", "--smoke"],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    document: Mapping[str, Any] = json.loads(done.stdout)
    assert document.keys() == {"benchmark", "results"}
    results = {result["benchmark"]: result for result in document["results"]}
    append, revoke = results["append"], results["revoke"]
    check_shape(append, APPEND)
    assert append["benchmark"] == "append"
    (result,) = append["results"]
    assert result["api"]["acks_checked"] >= result["batch_events"] * result["connections"]
    assert result["api"]["events_per_s"]["count"] == 1
    durable = {append["environment"]["postgresql"][name] for name in ("fsync", "synchronous_commit")}
    assert durable == {"on"}
    check_shape(revoke, REVOKE)
    assert [result["form"] for result in revoke["results"]] == ["pushed", "dropped"]
    for form in revoke["results"]:
        assert form["samples"] == len(form["delays_s"]) == revoke["setup"]["revoked"]
        assert form["p50_s"] <= form["p99_s"] <= form["max_s"]
    if shutil.which("cc") or shutil.which("gcc"):
        check_shape(results["origin"], ORIGIN)
        assert results["origin"]["setup"]["router"] == "ours"
        check_node_reports([results[name] for name in ON_RIG])
        assert (
            results["connections"]["results"][0]["proved"]
            == results["connections"]["results"][0]["setup"]["connections"]
        )
        # Two systems of its own kind: one process, and the one that all others share.
        check_document(results["nodes"])
        assert results["nodes"]["overrides"]["up"] == {"driver": ["memory", "nats"]}
        for shape in results["nodes"]["results"][0]["shapes"].values():
            assert set(shape["sides"]) == {"memory, 1 node", "nats, 1 node", "nats, 2 nodes"}
            for side in shape["sides"].values():
                assert [part["deliveries"] for part in side["parts"]] == [shape["deliveries"]]
        # Nothing is held, whatever the machine is doing; memory needs more cycles than these.
        held = {target["name"]: target["is_met"] for target in results["cycles"]["targets"]}
        assert all(is_met for name, is_met in held.items() if "memory" not in name), held
    else:
        assert results["node"] == {"benchmark": "node", "skipped": "no C compiler (cc or gcc) on PATH"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_system_that_does_not_start_is_said_in_its_own_words(tmp_path: Path) -> None:
    """A benchmark without a system ends with the reason, not with a time-out."""
    with (
        pytest.raises(SystemFailedError, match=r"runtime\.nonsense"),
        running_system_under_test(tmp_path, config="[runtime]\nnonsense = 1\n"),
    ):
        pytest.fail("it started")
