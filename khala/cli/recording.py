"""``khala record``: run a command as usual, and stream what it prints as a live run.

The command sees what it would see without us: its standard input, its signals, and nobody who kills
it because Khala is in trouble. Its output goes where it would go, and to the run. The run ends when
the command does, and this process ends with the command's exit status.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

import click
import trio

from khala.cli.failures import EXIT_FAILED, CommandFailed, describe_failure
from khala.cli.locations import find_settings, profile_option
from khala.cli.signals import taken_signals
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala_client.errors import KhalaError
from khala_client.recordings import OutputLines, TypedLines
from khala_client.trio import Khala

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from khala_client.recordings import RecordedEvent
    from khala_client.trio import Run

__all__ = ["Recorder", "exit_status_of", "reason_of", "record_command"]

# As shells have it.
EXIT_NOT_FOUND: Final = 127
EXIT_BY_SIGNAL: Final = 128
READ_BYTES: Final = 64 * 1024
# An unfinished line is shown to followers after this pause: it is a prompt, or a progress bar.
PROMPT_PAUSE_S: Final = 0.2
# A daemon that the command left behind may hold its pipes open for ever.
PIPES_GRACE_S: Final = 1.0


@click.command("record", context_settings={"allow_interspersed_args": False})
@click.option("--name", default="", help="Name of the run, unique among yours.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@profile_option
@json_option
def record_command(name: str, command: tuple[str, ...], profile: Path | None, *, is_json: bool) -> int:
    """Run COMMAND and stream its output as a live run; its exit ends the run.

    JSON lines of known agents (Codex, Claude Code, AG-UI, or {"kind", "data"}) become typed events.
    The command finds the run's id in KHALA_RUN. Exits with the command's status.
    """
    if shutil.which(command[0]) is None:
        raise CommandFailed(f"{command[0]}: command not found", exit_status=EXIT_NOT_FOUND)
    terminal = open_terminal(is_json=is_json)

    async def record() -> int:
        status: int | None = None
        recorder: Recorder | None = None
        try:
            async with (
                Khala(find_settings(profile)) as khala,
                khala.run(name=name, agent=os.path.basename(command[0]), source="khala record") as run,
            ):

                def tell_started() -> None:
                    terminal.data({"type": "run", "run_id": run.id, "topic": run.topic, "name": name})
                    terminal.remark(f"● recording as {run.id}", style="green")

                recorder = Recorder(run, terminal)
                status = await recorder.record(command, tell_started=tell_started)
                state = "succeeded" if status == 0 else "failed"
                await run.finish(state, exit_status=status, reason=reason_of(status))
                terminal.data({"type": "end", "run_id": run.id, "state": state, "exit_status": status})
                terminal.remark(f"■ {state}, exit status {status}", style="green" if status == 0 else "red")
        except KhalaError as error:
            if status is None or recorder is None:
                raise
            # The command has run; its status counts for more than our trouble with its record.
            recorder.give_up(error)
        return status or (EXIT_FAILED if recorder.has_given_up else 0)

    return trio.run(record)


def exit_status_of(returncode: int) -> int:
    """Return the status that a shell would report: 128 + n for a command that signal n ended."""
    return EXIT_BY_SIGNAL - returncode if returncode < 0 else returncode


def reason_of(status: int) -> str:
    """Return the name of the signal that an exit status stands for, or nothing."""
    if status <= EXIT_BY_SIGNAL:
        return ""
    try:
        return f"ended by {signal.Signals(status - EXIT_BY_SIGNAL).name}"
    except ValueError:
        return ""


class Recorder:
    """Carries the output of one process to its terminal and to a run."""

    def __init__(self, run: Run, terminal: Terminal) -> None:
        self._run = run
        self._terminal = terminal
        self.has_given_up = False

    def give_up(self, error: KhalaError) -> None:
        """Say, once, that the run is not recorded any further; the command goes on."""
        if not self.has_given_up:
            self.has_given_up = True
            failure = describe_failure(error)
            for sentence in failure.sentences if failure is not None else ():
                self._terminal.remark(f"khala: not recorded any further: {sentence}", style="red")

    async def record(self, command: Sequence[str], *, tell_started: Callable[[], None]) -> int:
        """Run ``command`` to its end; return its exit status.

        Args:
            command: The argument vector.
            tell_started: Called once signals for this process reach the command.

        Cancellation: the command is killed.
        """
        with trio.open_signal_receiver(*taken_signals()) as signals:
            process = await trio.lowlevel.open_process(
                list(command),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "KHALA_RUN": self._run.id},
            )
            assert process.stdout is not None
            assert process.stderr is not None
            tell_started()
            try:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(_pass_on, signals, process)
                    async with trio.open_nursery() as pipes:
                        pipes.start_soon(self._carry, process.stdout, "stdout", sys.stdout.buffer)
                        pipes.start_soon(self._carry, process.stderr, "stderr", sys.stderr.buffer)
                        returncode = await process.wait()
                        pipes.cancel_scope.deadline = trio.current_time() + PIPES_GRACE_S
                    tasks.cancel_scope.cancel()
            finally:
                if process.returncode is None:
                    process.kill()
        return exit_status_of(returncode)

    async def _carry(
        self, pipe: trio.abc.ReceiveStream, name: Literal["stdout", "stderr"], original: BinaryIO
    ) -> None:
        lines = OutputLines(name, typed=TypedLines() if name == "stdout" else None)
        try:
            while True:
                data: bytes | bytearray | None = None
                with trio.move_on_after(PROMPT_PAUSE_S):
                    data = await pipe.receive_some(READ_BYTES)
                if data is None:
                    await self._send(lines.flush())
                    data = await pipe.receive_some(READ_BYTES)
                if not data:
                    break
                await self._show(bytes(data), original)
                await self._send(lines.feed(bytes(data)))
        finally:
            # Also when a daemon holds the pipe: what was read is not lost with it.
            with trio.move_on_after(PIPES_GRACE_S, shield=True):
                await self._send(lines.end())

    async def _show(self, data: bytes, original: BinaryIO) -> None:
        if self._terminal.is_json:
            return

        def write() -> None:
            try:
                original.write(data)
                original.flush()
            except BrokenPipeError:
                return

        # In a thread: a terminal or pipe that takes nothing must not stop the signals and the other pipe.
        await trio.to_thread.run_sync(write)

    async def _send(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if self.has_given_up:
                return
            try:
                await self._run.send(event.kind, event.data)
            except KhalaError as error:
                self.give_up(error)


async def _pass_on(signals: AsyncIterator[int], process: trio.Process) -> None:
    """Hand signals for this process to the command, which decides what they mean."""
    async for number in signals:
        # Ctrl-C in a terminal has reached the command by itself: it is in the same group.
        if number != signal.SIGINT or not sys.stdin.isatty():
            process.send_signal(number)
