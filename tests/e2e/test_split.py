"""``khala up --split``: a supervisor and real child processes, killed one after the other, by pid."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from khala.adapters.embedded_postgres_processes import find_processes, process_identity, stop_processes
from tests.e2e.system import System, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

# Long enough for five kills with their restarts.
EVENTS = 300
RECORDING = "\n".join(
    json.dumps({"kind": "thought", "data": {"text": f"thought {number}"}, "gap_s": 0.05})
    for number in range(EVENTS)
)


@contextmanager
def started(folder: Path, *, nodes: int = 1, nats: bool = False) -> Iterator[System]:
    """A started split system; whatever runs at the end is ended, orphans too."""
    system = System(folder, split=True, nodes=nodes, nats=nats)
    try:
        system.start()
        yield system
    finally:
        pids = system.pids() if (system.data_dir / "up.json").exists() else {}
        system.stop()
        for pid in pids.values():
            end(pid)
        stop_processes((system.data_dir / "postgres").resolve() / "data", fast_stop_s=2)


def end(pid: int) -> None:
    """End a process that was ours and still lives."""
    command = Path(f"/proc/{pid}/cmdline")
    if command.exists() and (b"khala" in command.read_bytes() or b"nats" in command.read_bytes()):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two nodes, the default driver."""
    with started(tmp_path_factory.mktemp("split"), nodes=2) as running:
        yield running


def status_of(system: System) -> dict[str, Any]:
    """Return what ``khala status --json`` says."""
    done = system.run("status", "--data-dir", str(system.data_dir), "--json", check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def is_alive(pid: int) -> bool:
    """Whether a process with this pid runs."""
    return process_identity(pid) is not None


def test_every_process_is_named_and_answers(system: System) -> None:
    """Status, record and ready file name the same processes; each node says that it is ready."""
    status = status_of(system)
    assert (status["running"], status["ready"]) == (True, True)
    names = ["postgres", "control", "runtime", "node-1", "node-2"]
    assert list(status["processes"]) == names
    pids = system.pids()
    assert {name: child["pid"] for name, child in status["processes"].items()} == pids
    assert len({*pids.values(), status["pid"]}) == len(names) + 1
    assert all(
        (child["state"], child["ready"]) == ("running", True) for child in status["processes"].values()
    )
    assert (
        int(system.run("status", "--data-dir", str(system.data_dir), "--pid", "runtime").stdout)
        == (pids["runtime"])
    )
    assert set(system.ready) == {
        "origin", "control_url", "runtime_url", "sync_url", "admin_url", "admin_token_file", "profile", "nodes",
    }  # fmt: skip
    nodes = system.ready["nodes"]
    assert [node["name"] for node in nodes] == ["node-1", "node-2"]
    assert (nodes[0]["url"], nodes[0]["admin_url"]) == (system.ready["sync_url"], system.ready["admin_url"])
    for node in nodes:
        assert httpx.get(f"{node['admin_url']}/readyz", trust_env=False).json()["ready"] is True


def test_secrets_are_in_private_files_only(system: System) -> None:
    """No child has one in its arguments or its environment; what it is told is a file for its owner alone."""
    secrets = {
        path.read_text().strip() for path in (system.data_dir / "secrets").iterdir() if path.suffix != ".json"
    }
    assert len(secrets) > 8
    for pid in system.pids().values():
        process = Path(f"/proc/{pid}")
        if process.exists():
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            assert not [secret for secret in secrets if secret.encode() in seen]
    run = system.data_dir / "run"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    files = {path.name for path in run.iterdir()}
    assert {"control.toml", "runtime.toml", "node-1.toml", "node-2.toml"} <= files
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()} == {0o600}


def test_logs_are_json_below_logs_and_prefixed_on_the_screen(system: System) -> None:
    """Each child has a file of JSON lines; the terminal shows a readable line with its name before it."""
    for name in ("control", "runtime", "node-1", "node-2"):
        lines = (system.data_dir / "logs" / f"{name}.log").read_text().splitlines()
        assert all({"ts", "level", "event"} <= json.loads(line).keys() for line in lines)
    printed = (system.folder / "up.log").read_text()
    assert re.search(r"^runtime  │ \d\d:\d\d:\d\d runtime_started generation=\d+", printed, re.MULTILINE)
    assert re.search(r"^postgres │ ", printed, re.MULTILINE)
    assert "\x1b" not in printed


def test_tails_go_on_while_every_child_is_killed(system: System, tmp_path: Path) -> None:
    """Kill -9 of each child by pid: it is back by itself, and the tails on both nodes hold every event once."""
    recording = tmp_path / "slow.jsonl"
    recording.write_text(RECORDING)
    importer = system.start_command("import", str(recording), "--speed", "1")
    try:
        wait_until(lambda: bool(system.run("runs", "--json").stdout), timeout_s=30, what="the run")
        run_id = json.loads(system.run("runs", "--json").stdout.splitlines()[0])["run_id"]
        tails = []
        for node in system.ready["nodes"]:
            system.environment["KHALA_SYNC_URL"] = node["url"]
            store = str(tmp_path / f"{node['name']}.db")
            tails.append(system.tail(node["name"], run_id, "--store", store, "--verify", "--until-finished"))
        del system.environment["KHALA_SYNC_URL"]
        for tail in tails:
            tail.wait_for(10)
        killed: dict[str, int] = {}
        # Two waves, so that clients, whose pauses double, do not wait longer than the test is meant to take.
        for wave in (("runtime", "node-1"), ("postgres", "control", "node-2")):
            killed |= {name: system.kill(name) for name in wave}
            for name in wave:
                assert system.wait_back(name, killed[name]) == system.pids()[name] != killed[name]
                assert not is_alive(killed[name])
        assert len(tails[0].events()) < EVENTS, "the run was over before the last kill"
        assert importer.wait(60) == 0
    finally:
        importer.kill()
        importer.communicate()
    for tail in tails:
        assert tail.finish() == 0
        assert [int(event["seq"]) for event in tail.events()] == list(range(1, EVENTS + 3))
        assert tail.lines()[-1]["verified"] is True
    status = status_of(system)
    assert status["ready"] is True
    assert {name: child["restarts"] for name, child in status["processes"].items()} == dict.fromkeys(
        killed, 1
    )
    printed = (system.folder / "up.log").read_text()
    for name, pid in killed.items():
        assert f"✗ {name} (pid {pid}) was killed by SIGKILL." in printed
        assert re.search(
            rf"^✓ {name} is back after .* \(pid {system.pids()[name]}, restart 1\)$", printed, re.M
        )
    assert printed.count("  Nothing was lost: ") == len(killed)


def test_down_ends_every_process_within_its_time(system: System) -> None:
    """Nodes first, then the services, then the database; nothing is left after 5 s."""
    pids = system.pids()
    watchmen = [event["pid"] for event in system.supervisor_events() if event["name"] == "watchman"]
    began = time.monotonic()
    system.run("down", "--data-dir", str(system.data_dir))
    assert time.monotonic() - began < 6.0  # with the command's own start
    assert system.up is not None
    assert system.up.wait(5) == 0
    assert not [name for name, pid in pids.items() if is_alive(pid)]
    assert not [pid for pid in watchmen if is_alive(pid)]
    ended = [event for event in system.supervisor_events() if event["event"] == "ended"]
    last = {event["name"]: place for place, event in enumerate(ended)}
    assert max(last["node-1"], last["node-2"]) < min(last["runtime"], last["control"]) < last["postgres"]
    statuses = {name: ended[place]["status"] for name, place in last.items() if name != "watchman"}
    # On a busy machine control and the runtime are hurried after 1 s; nobody is killed.
    assert {statuses.pop("control"), statuses.pop("runtime")} <= {0, 1}
    assert set(statuses.values()) == {0}


def test_with_nats_and_after_the_supervisor_was_killed(tmp_path: Path) -> None:
    """The broker dies and comes back under a tail; without a supervisor nothing stays; a broken child ends all."""
    with started(tmp_path, nats=True) as system:
        assert list(system.pids()) == ["postgres", "nats", "control", "runtime", "node-1"]
        for service in ("control_url", "runtime_url", "admin_url"):
            metrics = httpx.get(f"{system.ready[service]}/metrics", trust_env=False).text
            assert 'driver="nats"' in metrics, f"{service} has another driver"
        assert json.loads(system.run("record", "--json", "--", "true").stdout.splitlines()[0])
        run_id = json.loads(system.run("runs", "--json").stdout.splitlines()[0])["run_id"]
        tail = system.tail("seen", run_id, "--from", "beginning", "--until-finished")
        assert tail.finish() == 0
        system.wait_back("nats", system.kill("nats"))
        wait_until(
            lambda: status_of(system)["ready"], timeout_s=15, what="everything ready without its broker"
        )

        pids = system.pids()
        watchman = [event["pid"] for event in system.supervisor_events() if event["name"] == "watchman"]
        system.kill()
        wait_until(
            lambda: not [pid for pid in (*pids.values(), *watchman) if is_alive(pid)],
            timeout_s=10,
            what="no process left behind",
        )

        # The next life starts as if nothing had been, with one child that cannot: the key ring is no JSON.
        (system.data_dir / "secrets" / "control_signing_keys.json").write_text("broken\n")
        command = ("up", "--split", "--data-dir", str(system.data_dir), "--port-base", "0")
        refused = system.run(*command, check=False)
        assert refused.returncode == 78
        assert "The process control refuses its configuration: control.signing_keys_file" in " ".join(
            refused.stderr.split()
        )
        assert "Traceback" not in refused.stderr
        assert find_processes((system.data_dir / "postgres").resolve() / "data").is_empty


@pytest.mark.parametrize(
    ("arguments", "config", "said"),
    [
        (("--nodes", "2"), "", ["up: nodes: needs split"]),
        (("--nats",), "", ["up: nats: needs split"]),
        (
            ("--split",),
            "[fanout]\ndriver = 'memory'\n[control]\nmode = 'production'\n[runtime]\nprot = 1\n[node]\nport = 'x'\n",
            [
                "fanout.driver: memory cannot leave its process",
                "control.mode: khala up runs the services for development only",
                "runtime.prot: unknown key; did you mean port?",
            ],
        ),
        (
            ("--split", "--nats"),
            "[fanout]\ndriver = 'pigeon'\n[nodes]\n",
            [
                "up.nats: fanout.driver is pigeon",
                "fanout.driver: pigeon is not installed",
                "nodes: unknown section",
            ],
        ),
    ],
    ids=["nodes", "nats", "every section", "two drivers"],
)
def test_a_wrong_configuration_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: tuple[str, ...], config: str, said: list[str]
) -> None:
    """Status 78, every error of every section at once, no data directory."""
    file = tmp_path / "khala.toml"
    file.write_text(config)
    system = System(tmp_path)
    refused = system.run(
        "up", *arguments, "--data-dir", str(system.data_dir), "--config", str(file), check=False
    )
    assert refused.returncode == 78
    for sentence in said:
        assert sentence.lower() in refused.stderr.lower()
    assert not system.data_dir.exists()
