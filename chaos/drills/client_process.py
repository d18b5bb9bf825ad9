"""The clients of a drill, as child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from chaos.drills.json_lines import JsonLineReader
from chaos.drills.waiting import DrillFailed

if TYPE_CHECKING:
    from chaos.drills.client_setup import ClientSetup

__all__ = ["ClientProcess", "FollowerProcess"]

# A publisher goes on until everything is acknowledged.
STOP_TIMEOUT_S: Final = 60.0
_LAST_WORDS_CHARS: Final = 2_000


@attrs.define(eq=False)
class ClientProcess:
    """One client; it must live until it is stopped."""

    setup: ClientSetup
    process: subprocess.Popen[bytes] = attrs.field(repr=False)
    is_stopped: bool = attrs.field(default=False, init=False)

    @classmethod
    def start(cls, program: str, setup: ClientSetup) -> Self:
        """Start ``python -m chaos.drills.<program>``; its errors go to ``<name>.err``."""
        with setup.file("err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", f"chaos.drills.{program}", json.dumps(attrs.asdict(setup))],
                env={name: value for name, value in os.environ.items() if not name.startswith("KHALA_")},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        return cls(setup, process)

    def check_running(self) -> None:
        """Return if it lives, or was asked to end.

        Raises:
            DrillFailed: It ended by itself; the message has its last words.
        """
        if self.process.poll() is not None and not self.is_stopped:
            raise DrillFailed(f"{self.setup.name} ended with {self.process.returncode}: {self._last_words()}")

    def stop(self) -> None:
        """Let it finish what it has begun.

        Raises:
            DrillFailed: It did not end in time, or not with status 0.
        """
        self.is_stopped = True
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DrillFailed(f"{self.setup.name} has not finished in {STOP_TIMEOUT_S:g} s") from None
        if status != 0:
            raise DrillFailed(f"{self.setup.name} ended with {status}: {self._last_words()}")

    def end(self) -> None:
        """End it if it still lives."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _last_words(self) -> str:
        return self.setup.file("err").read_text(errors="replace")[-_LAST_WORDS_CHARS:].strip()


@attrs.define(eq=False)
class FollowerProcess(ClientProcess):
    """A follower, and how far it is."""

    positions: dict[str, int] = attrs.field(factory=dict, init=False)
    notices: list[dict[str, Any]] = attrs.field(factory=list, init=False, repr=False)
    _history: JsonLineReader = attrs.field(init=False, repr=False)
    _notice_lines: JsonLineReader = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Begin to read its files."""
        self._history = JsonLineReader(self.setup.file("history.jsonl"))
        self._notice_lines = JsonLineReader(self.setup.file("notices.jsonl"))

    def look(self) -> None:
        """Take what it has written since the last look."""
        self.positions |= {line["topic"]: int(line["seq"]) for line in self._history.read_new()}
        self.notices += self._notice_lines.read_new()

    def has_reached(self, heads: dict[str, int]) -> bool:
        """Whether it has applied everything up to these positions."""
        self.look()
        return all(self.positions.get(topic, 0) >= seq for topic, seq in heads.items())

    def count(self, notice: str) -> int:
        """Return how many notices of a kind it has written."""
        self.look()
        return sum(line["notice"] == notice for line in self.notices)
