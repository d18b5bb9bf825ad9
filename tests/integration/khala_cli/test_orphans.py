"""Who ends what a killed supervisor left: khala.cli.orphans, khala.cli.reaping, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import attrs
import pytest

from khala.adapters.embedded_postgres_processes import process_identity
from khala.cli.orphans import end_orphans
from khala.cli.up_record import UpRecord, own_record, read_record, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# Prints when it has decided what it does with signals.
POLITE = "import signal, sys, time; print(flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(processes: list[subprocess.Popen[bytes]], program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python program and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    processes.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def record_of(**processes: subprocess.Popen[bytes]) -> UpRecord:
    """Return a record that names these processes."""
    identities = {name: process_identity(process.pid) or "" for name, process in processes.items()}
    return attrs.evolve(
        own_record(version="1", now_s=0.0),
        processes={name: process.pid for name, process in processes.items()},
        identities=identities,
    )


def test_the_living_are_ended_services_before_the_database(
    processes: list[subprocess.Popen[bytes]],
) -> None:
    """Each is asked; who does not listen is killed."""
    runtime, node, postgres = (start(processes, program) for program in (POLITE, DEAF, POLITE))
    end_orphans(record_of(runtime=runtime, node=node, postgres=postgres), services_wait_s=0.3)
    assert runtime.wait(5) == -signal.SIGTERM
    assert node.wait(5) == -signal.SIGKILL
    # Python turns SIGINT, PostgreSQL's fast stop, into its own end.
    assert postgres.wait(5) in (1, -signal.SIGINT)


def test_a_stranger_with_the_same_number_is_left_alone(processes: list[subprocess.Popen[bytes]]) -> None:
    """After a reboot the numbers of a record belong to others."""
    stranger = start(processes, POLITE)
    record = record_of(runtime=stranger)
    for identity in ("another:boot", ""):
        end_orphans(attrs.evolve(record, identities={"runtime": identity}), services_wait_s=0.1)
    end_orphans(attrs.evolve(record, identities={}), services_wait_s=0.1)
    assert stranger.poll() is None


def start_watchman(
    processes: list[subprocess.Popen[bytes]], data_dir: Path, identity: str
) -> subprocess.Popen[bytes]:
    """Start a watchman and wait until he ignores signals."""
    process = subprocess.Popen(
        [sys.executable, "-m", "khala.cli.orphans", str(data_dir), identity], stdin=subprocess.PIPE
    )
    processes.append(process)
    deadline = time.monotonic() + 20
    # SIGTERM is bit 15 of SigIgn.
    status = f"/proc/{process.pid}/status"
    while True:
        with open(status, encoding="ascii") as file:
            ignored = next(line.split()[1] for line in file if line.startswith("SigIgn"))
        if int(ignored, 16) & (1 << (signal.SIGTERM - 1)):
            return process
        assert time.monotonic() < deadline
        time.sleep(0.02)  # noqa: TID251 - another process, in a test without a loop


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads signals from /proc")
def test_the_watchman_acts_when_his_supervisor_is_gone(
    processes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Not before, not at a signal, and not for another life than his own."""
    nats = start(processes, POLITE)
    record = record_of(nats=nats)
    write_record(tmp_path, record)
    later = attrs.evolve(record, identity="a:later:life")
    for identity, survives in ((later.identity, True), (record.identity, False)):
        watchman = start_watchman(processes, tmp_path, identity)
        watchman.send_signal(signal.SIGTERM)
        assert nats.poll() is None
        assert watchman.stdin is not None
        watchman.stdin.close()
        assert watchman.wait(20) == 0
        assert (nats.poll() is None) == survives
    assert read_record(tmp_path) == record


@pytest.mark.skipif(shutil.which("unshare") is None, reason="makes a pid namespace")
def test_process_1_leaves_no_zombies() -> None:
    """What was adopted is reaped; a child of its own keeps its status for who waits for it."""
    unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine makes no namespaces")
    program = """
import os, subprocess, trio
from khala.cli.reaping import reap_adopted

def zombies():
    states = [open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
              for pid in os.listdir("/proc") if pid.isdecimal()]
    return states.count("Z")

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap_adopted, 0.1)
        subprocess.run(["sh", "-c", "sleep 0.05 & sleep 0.05 & exit 0"], check=True)
        with trio.fail_after(10):
            await trio.sleep(0.2)
            while zombies():
                await trio.sleep(0.05)
        own = await trio.run_process(["sh", "-c", "exit 7"], check=False)
        print(own.returncode, zombies())
        nursery.cancel_scope.cancel()

trio.run(main)
"""
    done = subprocess.run(
        [*unshare, sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("7 0\n", 0), done.stderr
