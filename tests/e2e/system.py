"""A whole Khala for end-to-end tests: ``khala up`` as a child process, and the commands beside it.

Everything is a real process with its own interpreter; a test that kills one kills it by pid. Waiting
is for a file, a line or an exit, always with a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KHALA = (sys.executable, "-m", "khala.cli")
START_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.02


def wait_until(is_true: object, *, timeout_s: float, what: str) -> None:
    """Return when ``is_true()`` holds; fail with ``what`` after the deadline."""
    assert callable(is_true)
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(POLL_S)  # noqa: TID251 - a sync test that watches files and processes


@attrs.define
class Tail:
    """A ``khala tail --json`` that writes to a file."""

    process: subprocess.Popen[bytes]
    output: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return the whole lines written so far."""
        text = self.output.read_text() if self.output.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def events(self) -> list[dict[str, Any]]:
        """Return the events among them."""
        return [line for line in self.lines() if line["type"] == "event"]

    def wait_for(self, count: int) -> None:
        """Wait until so many events have been applied."""
        wait_until(lambda: len(self.events()) >= count, timeout_s=COMMAND_TIMEOUT_S, what=f"{count} events")

    def kill(self) -> None:
        """Kill -9, and check that this is what ended it."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(timeout=10) == -signal.SIGKILL

    def finish(self) -> int:
        """Wait for its own end."""
        return self.process.wait(timeout=COMMAND_TIMEOUT_S)


@attrs.define
class System:
    """One data directory, and the processes that were started on it."""

    folder: Path
    port_base: int = 0
    environment: dict[str, str] = attrs.field(factory=dict)
    split: bool = False
    nodes: int = 1
    nats: bool = False
    up: subprocess.Popen[bytes] | None = None
    ready: dict[str, Any] = attrs.field(factory=dict)
    tails: list[Tail] = attrs.field(factory=list)

    @property
    def data_dir(self) -> Path:
        """Directory of database, secrets and profile."""
        return self.folder / "data"

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KHALA_")}
        return {
            **kept,
            "HOME": str(self.folder),
            "KHALA_PROFILE": str(self.data_dir / "profile"),
            **self.environment,
        }

    def start(self) -> None:
        """Start ``khala up`` and wait for its ready file."""
        ready_file = self.folder / "ready.json"
        ready_file.unlink(missing_ok=True)
        command = [
            *KHALA,
            "up",
            "--data-dir",
            str(self.data_dir),
            "--port-base",
            str(self.port_base),
            "--ready-file",
            str(ready_file),
            *(("--split", "--nodes", str(self.nodes)) if self.split else ()),
            *(("--nats",) if self.nats else ()),
        ]
        log = (self.folder / "up.log").open("ab")
        up = subprocess.Popen(
            command, env=self._environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()
        self.up = up

        def is_ready() -> bool:
            assert up.poll() is None, (self.folder / "up.log").read_text()
            return ready_file.exists()

        wait_until(is_ready, timeout_s=START_TIMEOUT_S, what="khala up ready")
        self.ready = json.loads(ready_file.read_text())
        # The next start of the same directory listens where its clients look for it.
        control_port = int(self.ready["control_url"].rsplit(":", 1)[1])
        self.port_base = control_port - 1

    def kill(self, name: str | None = None) -> int:
        """Kill -9 of ``khala up``, or of one of its child processes; return the pid.

        What ended it is asserted: by its exit status, or by what the supervisor saw of it.
        """
        assert self.up is not None
        if name is None:
            self.up.send_signal(signal.SIGKILL)
            assert self.up.wait(timeout=10) == -signal.SIGKILL
            return self.up.pid
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        self.wait_event("ended", name, pid, status=-signal.SIGKILL)
        return pid

    def pids(self) -> dict[str, int]:
        """Return the pid of each child process by its name: postgres, nats, control, runtime, node-1, ..."""
        record = json.loads((self.data_dir / "up.json").read_text())
        return dict(record["processes"])

    def supervisor_events(self) -> list[dict[str, Any]]:
        """Return what the supervisor wrote about its children so far."""
        text = (self.data_dir / "logs" / "supervisor.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_event(self, event: str, name: str, pid: int, **facts: int) -> None:
        """Wait until the supervisor has seen this of a process."""
        wanted = {"event": event, "name": name, "pid": pid, **facts}
        wait_until(
            lambda: any(wanted.items() <= seen.items() for seen in self.supervisor_events()),
            timeout_s=20,
            what=f"{wanted}",
        )

    def wait_back(self, name: str, killed: int, *, timeout_s: float = 30.0) -> int:
        """Wait until a child that was killed is ready again; return its new pid."""

        def successor() -> int:
            ready = [e["pid"] for e in self.supervisor_events() if (e["event"], e["name"]) == ("ready", name)]
            return ready[-1] if ready and ready[-1] != killed else 0

        wait_until(lambda: successor() != 0, timeout_s=timeout_s, what=f"{name} back")
        return successor()

    def run(
        self, *arguments: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        done = subprocess.run(
            [*KHALA, *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def start_command(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command that the test waits for, or kills, later."""
        return subprocess.Popen(
            [*KHALA, *arguments],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def tail(self, name: str, *arguments: str) -> Tail:
        """Start a tail that appends to ``<name>.jsonl``; the same name continues the same file."""
        output = self.folder / f"{name}.jsonl"
        with output.open("ab") as file, (self.folder / f"{name}.err").open("ab") as errors:
            process = subprocess.Popen(
                [*KHALA, "tail", *arguments, "--json"],
                env=self._environment(),
                stdout=file,
                stderr=errors,
                stdin=subprocess.DEVNULL,
            )
        tail = Tail(process, output)
        self.tails.append(tail)
        return tail

    def stop(self) -> None:
        """End what is still running, by pid."""
        for tail in self.tails:
            if tail.process.poll() is None:
                tail.process.kill()
                tail.process.wait(timeout=10)
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
            try:
                self.up.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.up.kill()
                self.up.wait(timeout=10)


@contextmanager
def running_system(
    folder: Path, *, split: bool = False, nodes: int = 1, nats: bool = False, **environment: str
) -> Iterator[System]:
    """A started system that is ended with the block.

    Args:
        folder: Data directory, home and outputs are in it.
        split: Whether each service is a process of its own.
        nodes: How many nodes, with ``split``.
        nats: Whether a NATS server carries the news, with ``split``.
        environment: More variables.
    """
    system = System(folder, environment=environment, split=split, nodes=nodes, nats=nats)
    try:
        system.start()
        yield system
    finally:
        system.stop()


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line, for the checker."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
