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

    def kill(self) -> None:
        """Kill -9 of ``khala up``, asserted by its exit status."""
        assert self.up is not None
        self.up.send_signal(signal.SIGKILL)
        assert self.up.wait(timeout=10) == -signal.SIGKILL

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
def running_system(folder: Path, **environment: str) -> Iterator[System]:
    """A started system that is ended with the block."""
    system = System(folder, environment=environment)
    try:
        system.start()
        yield system
    finally:
        system.stop()


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line, for the checker."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
