"""What the supervisor tells the world: the screen, its log, the record."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing
from rich.console import Console

from khala.adapters.embedded_postgres_processes import process_identity
from khala.cli.log_lines import LogLine
from khala.cli.split_witness import QUEUE_MAX, SplitWitness
from khala.cli.supervision import ChildLife, RestartPolicy
from khala.cli.terminal import Terminal
from khala.cli.up_life import UpLife
from khala.cli.up_record import living_record
from khala.cli.up_report import UpReport
from khala.cli.up_settings import UpSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@attrs.frozen
class Stage:
    """A witness, and where what it says can be read."""

    data_dir: Path
    witness: SplitWitness
    screen: io.StringIO

    async def shown(self) -> list[str]:
        """Return the lines on the screen once everything is printed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.witness.print_lines)
            with trio.fail_after(5):
                while self.witness.waiting:
                    await trio.sleep(0.01)
            await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        return self.screen.getvalue().splitlines()

    def events(self) -> list[tuple[str, str, int, int | None]]:
        """Return what is in supervisor.jsonl."""
        lines = [
            json.loads(line) for line in (self.data_dir / "logs/supervisor.jsonl").read_text().splitlines()
        ]
        assert all(line["ts"].startswith("20") for line in lines)
        return [(line["event"], line["name"], line["pid"], line.get("status")) for line in lines]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A witness of a system that just started."""
    (tmp_path / "logs").mkdir()
    screen = io.StringIO()
    console = Console(file=screen, width=200)
    report = UpReport(Terminal(console, console, is_json=False))
    witness = SplitWitness(UpLife(UpSettings(data_dir=tmp_path), report))
    yield Stage(tmp_path, witness, screen)
    witness.close()


async def test_a_death_is_told_with_its_cause_its_cost_and_its_end(stage: Stage) -> None:
    """Who, how, what was lost, when it is tried again, and that it is back."""
    witness, pid = stage.witness, os.getpid()
    life = ChildLife("runtime").started(pid, 0.0)
    witness.started(life)
    witness.ready(life.became_ready(), after_s=1.0)
    dead, _ = life.became_ready().ended(-9, 5.0, RestartPolicy())
    witness.ended(dead, -9, was_asked=False, words="of no interest")
    witness.restarting(dead)
    again = dead.started(pid, 5.1)
    witness.started(again)
    witness.ready(again.became_ready(), after_s=2.0)
    assert await stage.shown() == [
        f"✗ runtime (pid {pid}) was killed by SIGKILL.",
        "  Nothing was lost: every acknowledged event is in the database; callers repeat the others with the same "
        "key. Starting it again in 100 ms.",
        f"✓ runtime is back after 2 s (pid {pid}, restart 1)",
    ]
    assert stage.events() == [
        ("started", "runtime", pid, None), ("ready", "runtime", pid, None), ("ended", "runtime", pid, -9),
        ("restarting", "runtime", pid, None), ("started", "runtime", pid, None), ("ready", "runtime", pid, None),
    ]  # fmt: skip


async def test_the_record_names_every_process_in_the_order_of_need(stage: Stage) -> None:
    """Whoever reads it finds pids, identities, states; the watchman is nobody's business but ours."""
    names = ("watchman", "node-10", "node-2", "runtime", "postgres", "control", "nats")
    for place, name in enumerate(names):
        stage.witness.started(ChildLife(name).started(os.getpid() + place, 0.0))
    record = living_record(stage.data_dir)
    assert record is not None
    assert list(record.processes) == ["postgres", "nats", "control", "runtime", "node-2", "node-10"]
    assert record.processes["node-10"] == os.getpid() + 1
    assert record.identities["watchman"] == process_identity(os.getpid())
    assert record.children["runtime"] == {"state": "starting", "restarts": 0}


async def test_the_last_words_of_who_gave_up_are_shown(stage: Stage) -> None:
    """The last line of a trace is enough; who was asked to end needs no mention."""
    life = ChildLife("node-1").started(os.getpid(), 0.0)
    stage.witness.started(life)
    stage.witness.ended(life, 1, was_asked=False, words="Traceback\nOSError: address in use\n")
    stage.witness.ended(life, 0, was_asked=True, words="")
    shown = await stage.shown()
    assert shown == [f"✗ node-1 (pid {os.getpid()}) ended with status 1.", "  OSError: address in use"]


async def test_a_stopped_screen_holds_up_nobody(stage: Stage) -> None:
    """Lines that have no place are counted; the first ones are still shown when it goes on."""
    for number in range(QUEUE_MAX + 5):
        stage.witness.show("node-1", LogLine("info", f"event {number}"))
    stage.witness.show("node-1", LogLine("info", "request"))
    shown = await stage.shown()
    assert len(shown) == QUEUE_MAX + 1
    assert shown[0].endswith("event 0")
    assert "  5 lines were not shown; logs/ has them" in shown


async def test_a_full_disk_ends_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor goes on without its log and its record."""

    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("khala.cli.up_life.write_record", refuse)
    monkeypatch.setattr("khala.cli.log_file.BoundedLog.write", refuse)
    stage.witness.started(ChildLife("postgres").started(os.getpid(), 0.0))
    stage.witness.ended(ChildLife("postgres"), -9, was_asked=False, words="")
    assert len(await stage.shown()) == 1
