"""Tells the world what happens to the children: the screen, ``logs/supervisor.jsonl`` and the record.

The screen may be stopped (Ctrl-S) or slow: what is said goes through a bounded queue and a thread, and
what does not fit is counted, never waited for. Nor does a full disk end the supervisor.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import trio
from rich.text import Text

from khala.adapters.embedded_postgres_processes import process_identity
from khala.cli.log_file import BoundedLog
from khala.cli.log_lines import LogLine, last_line, render_log_line
from khala.cli.supervision import describe_end, what_was_lost
from khala.cli.terminal import json_line
from khala.cli.wording import duration_text
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from khala.cli.supervision import ChildLife
    from khala.cli.up_life import UpLife

__all__ = ["WATCHMAN", "SplitWitness"]

WATCHMAN: Final = "watchman"
QUEUE_MAX: Final = 1_000
BATCH_MAX: Final = 100


class SplitWitness:
    """See supervisor.Witness."""

    def __init__(self, life: UpLife) -> None:
        self._life = life
        self._clock = SystemClock()
        self._log = BoundedLog(life.data_dir / "logs" / "supervisor.jsonl")
        self._lines, self._waiting = trio.open_memory_channel[Text](QUEUE_MAX)
        self._unseen = 0
        self._children: dict[str, dict[str, str | int]] = {}
        self._processes: dict[str, int] = {}
        self._identities: dict[str, str] = {}
        self._colours: dict[str, int] = {}

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    @property
    def waiting(self) -> int:
        """How many lines wait to be shown."""
        return self._waiting.statistics().current_buffer_used

    def time(self) -> str:
        """Return the time of day as logs have it."""
        return datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")

    def show(self, name: str, line: LogLine) -> None:
        """Show a line of a child's log, if it is news."""
        if line.is_news:
            self._colours.setdefault(name, len(self._colours))
            self._say(render_log_line(name, line, width=self._width(), colour=self._colours[name]))

    def started(self, life: ChildLife) -> None:
        """See Witness."""
        identity = process_identity(life.pid)
        self._processes[life.name] = life.pid
        self._identities[life.name] = identity or ""
        self._note("started", life)

    def ready(self, life: ChildLife, *, after_s: float) -> None:
        """See Witness."""
        self._note("ready", life)
        if life.restarts and life.name != WATCHMAN:
            self._say(
                Text.assemble(
                    ("✓ ", "green"),
                    (life.name, "bold"),
                    f" is back after {duration_text(after_s)} (pid {life.pid}, restart {life.restarts})",
                )
            )

    def ended(self, life: ChildLife, status: int, *, was_asked: bool, words: str) -> None:
        """See Witness."""
        self._note("ended", life, status=status)
        if was_asked or life.name == WATCHMAN:
            return
        self._say(
            Text.assemble(
                ("✗ ", "bold red"), (life.name, "bold"), f" (pid {life.pid}) {describe_end(status)}."
            )
        )
        last = last_line(words)
        # Whoever was killed had no last word about it.
        if last and status > 0:
            self._say(Text(f"  {last}", style="yellow"))

    def restarting(self, life: ChildLife) -> None:
        """See Witness."""
        self._note("restarting", life)
        if life.name != WATCHMAN:
            self._say(
                Text(
                    f"  Nothing was lost: {what_was_lost(life.name)}. "
                    f"Starting it again in {duration_text(life.delay_s)}."
                )
            )

    async def print_lines(self) -> None:
        """Print what was said; runs until cancelled."""
        async for first in self._waiting:
            batch = [first]
            while len(batch) < BATCH_MAX:
                try:
                    batch.append(self._waiting.receive_nowait())
                except trio.WouldBlock:
                    break
            if self._unseen:
                batch.append(Text(f"  {self._unseen} lines were not shown; logs/ has them", style="dim"))
                self._unseen = 0
            # Abandoned on cancellation: a stopped terminal does not hold up the end.
            await trio.to_thread.run_sync(self._life.report.lines, batch, abandon_on_cancel=True)

    def _say(self, line: Text) -> None:
        try:
            self._lines.send_nowait(line)
        except trio.WouldBlock:
            self._unseen += 1

    def _width(self) -> int:
        return max(len("postgres"), *(len(name) for name in self._processes), 0)

    def _note(self, event: str, life: ChildLife, *, status: int | None = None) -> None:
        said: dict[str, object] = {"ts": self.time(), "event": event, "name": life.name, "pid": life.pid}
        if event == "ended":
            said["status"] = status
        if event == "restarting":
            said["delay_s"] = life.delay_s
        with suppress(OSError):
            self._log.write(json_line(said))
        if life.name == WATCHMAN:
            return
        self._children[life.name] = {"state": life.phase, "restarts": life.restarts}
        shown = {name: self._processes[name] for name in sorted(self._children, key=_place)}
        nodes = [{**node, "pid": shown.get(str(node["name"]), 0)} for node in self._life.record.nodes]
        with suppress(OSError):
            self._life.update(
                processes=shown,
                identities=dict(self._identities),
                children=dict(self._children),
                nodes=nodes,
            )


def _place(name: str) -> tuple[int, int]:
    """Return where a process stands in a list: in the order in which they need each other."""
    kind, _, number = name.partition("-")
    return ("postgres", "nats", "control", "runtime", "node").index(kind), int(number or 0)
