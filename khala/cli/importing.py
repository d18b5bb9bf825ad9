"""``khala import``: append recorded agent runs as live runs, at any speed, any number of times.

Every request carries a key made from the file's content and the event's index. So repeating an
import, after a crash of anything, goes on where it stopped and repeats nothing; repeating a complete
one changes nothing. All files are read whole before the first run is made: a broken one leaves no
trace.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from khala.cli.failures import CommandFailed
from khala.cli.locations import find_settings, profile_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.wording import count_text, duration_text
from khala_client.errors import RecordingRefused
from khala_client.recordings import Recording, parse_recording
from khala_client.trio import Khala
from khala_contracts.ids import is_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_client.resources import RunInfo

__all__ = ["Import", "import_command", "read_import"]

# An attribute of a run holds at most 1 KiB together with the others.
_FILE_NAME_MAX_CHARS: Final = 200


@attrs.frozen
class Import:
    """A recording that was read whole, and what its idempotency keys are made of."""

    path: Path
    sha256: str
    name: str
    recording: Recording = attrs.field(repr=False)

    @property
    def start_key(self) -> str:
        """Key of the run's creation: another name is another run."""
        return _digest("import", self.sha256, self.name)

    def event_key(self, run_id: str, index: int) -> str:
        """Key of one event in one run."""
        return _digest(run_id, self.sha256, str(index))


def read_import(path: Path, *, name: str | None) -> Import:
    """Return the recording in a file.

    Raises:
        CommandFailed: It cannot be read, or is no recording; names file, line and reason.
    """
    try:
        data = path.read_bytes()
        recording = parse_recording(data)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error
    except RecordingRefused as error:
        raise CommandFailed(f"{path}: {error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    # A run's name is unique among its owner's: a part of the hash lets files share a name.
    return Import(path, sha256, name or f"{path.stem[:80]}-{sha256[:8]}", recording)


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="1 keeps the pauses of the recording, 10 makes them ten times shorter.  [default: no pauses]",
)
@click.option("--run", "run_id", default=None, help="Append to this run, and do not end it.")
@click.option("--name", default=None, help="Name of the run.  [default: from the file]")
@profile_option
@json_option
def import_command(
    files: tuple[Path, ...],
    speed: float | None,
    run_id: str | None,
    name: str | None,
    profile: Path | None,
    *,
    is_json: bool,
) -> None:
    """Append recorded agent runs (SWE-agent .traj, JSON lines) as live runs; prints their ids.

    Repeating the command continues an import that was interrupted, and repeats nothing.
    """
    if len(files) > 1 and (name is not None or run_id is not None):
        raise click.UsageError("--name and --run are for one file")
    if run_id is not None and not is_id("run", run_id):
        raise click.UsageError("--run is not the id of a run (run_...)")
    terminal = open_terminal(is_json=is_json)
    imports = [read_import(path, name=name) for path in files]

    async def append_all() -> None:
        async with Khala(find_settings(profile)) as khala:
            for each in imports:
                await _append(khala, terminal, each, run_id=run_id, speed=speed or math.inf)

    trio.run(append_all)


async def _append(
    khala: Khala, terminal: Terminal, each: Import, *, run_id: str | None, speed: float
) -> None:
    run = await _find_run(khala, each, run_id)
    total = len(each.recording.events)
    if run.is_finished and run_id is None:
        _refuse_incomplete(each, run)
        _report(terminal, each, run, already=total)
        return
    # The first event of a run is run.started; in a run that was named others may have been before.
    already = 0 if run_id is not None else min(total, max(0, _head_seq(run) - 1))
    if already:
        terminal.remark(f"{count_text(already, 'event')} of {each.path.name} are there already")
    with _progress(terminal) as progress:
        task = progress.add_task(each.path.name, total=total)
        await _append_events(
            khala, each, run.run_id, already, speed, lambda done: progress.update(task, completed=done)
        )
    if run_id is None:
        await _finish(khala, each, run.run_id)
    _report(terminal, each, await khala.runtime.get_run(run.run_id), already=already)


def _refuse_incomplete(each: Import, run: RunInfo) -> None:
    """Refuse to call an import complete whose run somebody ended before."""
    total = len(each.recording.events)
    # run.started before them, run.finished after them.
    there = _head_seq(run) - 2
    if there < total:
        raise CommandFailed(
            f"{each.path}: run {run.run_id} has ended ({run.state}) after {there:,} of {total:,} events; "
            "import it anew with another --name"
        )


async def _find_run(khala: Khala, each: Import, run_id: str | None) -> RunInfo:
    """Return the run to append to as it is now, made on first use."""
    if run_id is None:
        created = await khala.runtime.create_run(
            idempotency_key=each.start_key,
            name=each.name,
            agent=each.recording.agent,
            source=each.recording.source,
            attributes={"file": each.path.name[:_FILE_NAME_MAX_CHARS], "sha256": each.sha256},
        )
        run_id = created.run.run_id
    # The answer to a repeated request is the original one: the state in it may be long past.
    return await khala.runtime.get_run(run_id)


async def _append_events(
    khala: Khala, each: Import, run_id: str, already: int, speed: float, tell: Callable[[int], None]
) -> None:
    async with khala.attach_run(run_id) as run:
        due_s = trio.current_time()
        for index, event in enumerate(each.recording.events):
            if index >= already:
                # From event to event, not from now: what sending takes does not slow the run down.
                due_s += event.gap_s / speed
                await trio.sleep_until(due_s)
            await run.send(event.kind, event.data, key=each.event_key(run_id, index))
            tell(index + 1)
        await run.flush()


async def _finish(khala: Khala, each: Import, run_id: str) -> None:
    outcome = each.recording.outcome
    async with khala.attach_run(run_id) as run:
        await run.finish(
            outcome.state, reason=outcome.reason, exit_status=outcome.exit_status, result=outcome.result
        )


def _report(terminal: Terminal, each: Import, run: RunInfo, *, already: int) -> None:
    total = len(each.recording.events)
    terminal.data(
        {
            "type": "import",
            "file": str(each.path),
            "sha256": each.sha256,
            "run_id": run.run_id,
            "topic": run.topic,
            "name": run.name,
            "state": run.state,
            "events": total,
            "already_there": already,
            "head_seq": str(_head_seq(run)),
        }
    )
    length = duration_text(each.recording.duration_s)
    terminal.remark(
        f"✓ {each.path.name}: {count_text(total, 'event')} ({length} at real speed), {run.state}",
        style="green",
    )
    # Alone on standard output: RUN=$(khala import FILE)
    terminal.line(run.run_id)


def _progress(terminal: Terminal) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal.err,
        transient=True,
        disable=terminal.is_json or not terminal.err.is_terminal,
    )


def _head_seq(run: RunInfo) -> int:
    return run.watermark.seq if run.watermark is not None else 0


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
