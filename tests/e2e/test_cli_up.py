"""``khala up``, ``status``, ``doctor``, ``down``: one life of the system, with real processes and signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from khala.adapters.embedded_postgres_processes import find_processes, process_identity, stop_processes
from tests.e2e.system import System, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

RECORDING = "\n".join(
    json.dumps({"kind": "thought", "data": {"text": f"thought {number}"}, "gap_s": 0.05})
    for number in range(400)
)


@contextmanager
def fresh_system(folder: Path) -> Iterator[System]:
    """A system that is not started yet; whatever runs at the end is ended, an orphan too."""
    system = System(folder)
    try:
        yield system
    finally:
        system.stop()
        stop_processes(cluster_of(system), fast_stop_s=2)


def cluster_of(system: System) -> Path:
    """Return the folder of the embedded PostgreSQL."""
    return (system.data_dir / "postgres").resolve() / "data"


def records(system: System, *arguments: str, check: bool = True) -> list[dict[str, Any]]:
    """Return the JSON lines of a command."""
    done = system.run(*arguments, "--json", check=check)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ready_means_that_it_says_what_to_type_and_where_everything_is(system: System) -> None:
    """The ready file is complete and private; what was printed names the profile and the commands."""
    assert system.up is not None
    assert set(system.ready) == {
        "origin", "control_url", "runtime_url", "sync_url", "admin_url", "admin_token_file", "profile", "nodes",
    }  # fmt: skip
    assert [node["url"] for node in system.ready["nodes"]] == [system.ready["sync_url"]]
    assert stat.S_IMODE((system.folder / "ready.json").stat().st_mode) == 0o600
    printed = (system.folder / "up.log").read_text()
    assert f"export KHALA_PROFILE={system.ready['profile']}" in printed
    assert "record --name hello --" in printed


def test_status_and_doctor_see_a_system_that_is_well(system: System) -> None:
    """Every service is ready, and none of the six checks fails."""
    assert system.up is not None
    data_dir = str(system.data_dir)
    [status] = records(system, "status", "--data-dir", data_dir)
    assert (status["running"], status["ready"], status["pid"]) == (True, True, system.up.pid)
    checks = records(system, "doctor", "--data-dir", data_dir)
    assert [check["check"] for check in checks] == [
        "python", "postgres", "data_dir", "ports", "clock", "services",
    ]  # fmt: skip
    assert {check["verdict"] for check in checks} <= {"ok", "warning"}


def test_secrets_are_for_their_owner_alone(system: System) -> None:
    """Files 0600 in a folder 0700."""
    folder = system.data_dir / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"admin_token", "fanout_key", "control_signing_keys.json", "postgres_khala_reader"} <= modes.keys()


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads the listeners from /proc")
def test_nothing_listens_beyond_this_machine(system: System) -> None:
    """Every listening socket of the system is bound to 127.0.0.1."""
    assert system.up is not None
    pids = [system.up.pid, *find_processes(cluster_of(system)).postmasters]
    addresses = {address for pid in pids for address in listening_addresses(pid)}
    assert len(addresses) >= 5
    assert {address.partition(":")[0] for address in addresses} == {"0100007F"}


def listening_addresses(pid: int) -> set[str]:
    """Return the local addresses (as /proc has them, reversed hexadecimal) that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link) if link.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    listening = "0A"
    return {row[1] for row in rows if row[3] == listening and row[9] in inodes}


def test_a_second_up_is_refused_and_harms_nobody(system: System) -> None:
    """One sentence, status 78; the first goes on."""
    assert system.up is not None
    data_dir = str(system.data_dir)
    second = system.run("up", "--data-dir", data_dir, "--port-base", "0", check=False)
    assert second.returncode == 78
    assert second.stderr == (
        f"khala: Another khala up is already running on {data_dir}; end it with `khala down --data-dir {data_dir}`.\n"
    )
    [status] = records(system, "status", "--data-dir", data_dir)
    assert (status["ready"], status["pid"]) == (True, system.up.pid)


def test_a_taken_port_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    """One sentence with the port, status 78, and no PostgreSQL was started for it."""
    with fresh_system(tmp_path) as system, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        base = str(port - 2)
        refused = system.run("up", "--data-dir", str(system.data_dir), "--port-base", base, check=False)
        assert refused.returncode == 78
        assert f"{port} (runtime)" in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (system.data_dir / "postgres").exists()


def test_a_wrong_configuration_names_every_error_at_once(tmp_path: Path) -> None:
    """Unknown keys and wrong values of every section are refused together, before anything is made."""
    config = tmp_path / "khala.toml"
    config.write_text(
        "[up]\nport_base = 'x'\nport_bass = 1\n[control]\nprot = 1\n[runtime]\nport = true\n"
        "mode = 'production'\n[node.limits]\nsubscriptions_max = 'many'\n[fanout]\ndriver = 'pigeon'\n"
    )
    with fresh_system(tmp_path) as system:
        command = ("up", "--data-dir", str(system.data_dir), "--config", str(config))
        refused = system.run(*command, check=False)
        assert refused.returncode == 78
        assert "up.port_base: expected an integer" in refused.stderr
        assert "up.port_bass: unknown key; did you mean port_base?" in refused.stderr
        for said in (
            "control.prot: unknown key", "runtime.mode: khala up runs the services for development only",
            "node.limits.subscriptions_max: expected an integer", "fanout.driver: pigeon is not installed",
        ):  # fmt: skip
            assert said in refused.stderr
        assert not system.data_dir.exists()


def test_ctrl_c_ends_everything_at_any_moment(tmp_path: Path) -> None:
    """While it starts: the next start works. While it serves: within 5 s nothing of it is left."""
    recording = tmp_path / "slow.jsonl"
    recording.write_text(RECORDING)
    with fresh_system(tmp_path) as system:
        for delay_s in (0.7, 1.4):
            with system.start_command("up", "--data-dir", str(system.data_dir), "--port-base", "0") as up:
                time.sleep(delay_s)  # noqa: TID251 - the moment is the point
                up.send_signal(signal.SIGINT)
                up.communicate(timeout=10)
            assert find_processes(cluster_of(system)).is_empty
        system.start()
        assert system.up is not None
        with system.start_command("import", str(recording), "--speed", "1") as importer:
            try:
                wait_until(lambda: bool(records(system, "runs")), timeout_s=30, what="the run")
                [run] = records(system, "runs")
                tail = system.tail("seen", str(run["run_id"]))
                tail.wait_for(20)
                started = time.monotonic()
                system.up.send_signal(signal.SIGINT)
                assert system.up.wait(10) == 0
                assert time.monotonic() - started < 5
            finally:
                importer.kill()
        assert find_processes(cluster_of(system)).is_empty
        assert not (tmp_path / "ready.json").exists()
        # The follower was told, and waits for the system to come back until a person has enough.
        assert tail.process.poll() is None
        tail.process.send_signal(signal.SIGINT)
        assert tail.finish() == 0
        assert tail.lines()[-1]["reason"] == "interrupted"


def test_after_kill_9_the_next_up_ends_the_orphan_and_keeps_session_and_data(tmp_path: Path) -> None:
    """`status` does not take the dead for the living; the next start replaces the orphaned PostgreSQL."""
    with fresh_system(tmp_path) as system:
        data_dir = str(system.data_dir)
        system.start()
        system.run("record", "--name", "before", "--", "true")
        profile = json.loads((system.data_dir / "profile" / "profile.json").read_text())
        [orphan] = find_processes(cluster_of(system)).postmasters
        system.kill()
        assert process_identity(orphan) is not None
        assert system.run("status", "--data-dir", data_dir, check=False).returncode == 1

        system.start()
        assert system.up is not None
        assert process_identity(orphan) is None
        assert [run["name"] for run in records(system, "runs")] == ["before"]
        again = json.loads((system.data_dir / "profile" / "profile.json").read_text())
        assert (again["session_id"], again["device_id"]) == (profile["session_id"], profile["device_id"])

        assert records(system, "down", "--data-dir", data_dir)[0]["was_running"] is True
        assert system.up.wait(10) == 0
        assert find_processes(cluster_of(system)).is_empty
        assert records(system, "down", "--data-dir", data_dir)[0]["was_running"] is False


def test_the_second_signal_hurries_and_the_next_start_recovers(tmp_path: Path) -> None:
    """OPS-12: while a client is still told to go, a second SIGTERM ends everything within 2 s, with status 1."""
    with fresh_system(tmp_path) as system:
        system.start()
        system.run("record", "--name", "before", "--", "true")
        assert system.up is not None
        ready = json.loads((tmp_path / "ready.json").read_text())
        node = urlsplit(ready["sync_url"])
        # Who never asks for the upgrade cannot be told to go: it is waited for.
        with socket.create_connection((node.hostname, node.port)):
            system.up.send_signal(signal.SIGTERM)
            wait_until(
                lambda: httpx.get(f"{ready['origin']}/readyz", trust_env=False).status_code == 503,
                timeout_s=1.0,
                what="not ready",
            )
            system.up.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert system.up.wait(10) == 1
            assert time.monotonic() - began < 2.0
        assert find_processes(cluster_of(system)).is_empty
        system.start()
        assert [run["name"] for run in records(system, "runs")] == ["before"]


def test_without_its_postgresql_the_system_ends_and_says_why(tmp_path: Path) -> None:
    """A supervisor sees status 1, a person the name of the log."""
    with fresh_system(tmp_path) as system:
        system.start()
        assert system.up is not None
        [postmaster] = find_processes(cluster_of(system)).postmasters
        os.kill(postmaster, signal.SIGKILL)
        assert system.up.wait(15) == 1
        said = (tmp_path / "up.log").read_text()
        assert "khala: PostgreSQL ended by itself" in said
        assert str(system.data_dir / "logs" / "postgres.log") in said
        assert "Traceback" not in said
        assert find_processes(cluster_of(system)).is_empty
