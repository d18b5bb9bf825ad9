"""The child processes of ``khala up --split``: how a program is started, known to be ready, and ended.

PostgreSQL and NATS are in engine_children.py.

Every child has a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone. Leaving
a child's block leaves no process: a child that was not ended before is killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs
import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from khala.cli.child_logs import ChildLog

__all__ = ["Child", "Ending", "ProgramChild", "Running", "ServiceChild", "end_process", "open_process"]

READY_POLL_S: Final = 0.1
READY_TIMEOUT_S: Final = 2.0
# A killed process ends as soon as the kernel gets to it.
KILL_WAIT_S: Final = 5.0
# How a process is ended: signals, each with the time that it gets before the next; SIGKILL is the last.
Ending: TypeAlias = Sequence[tuple[signal.Signals, float]]


class Running(Protocol):
    """One process of a child."""

    @property
    def pid(self) -> int:
        """Its pid; ours to signal until ``wait_ended`` has returned."""

    async def wait_ready(self) -> None:
        """Return once it does its work; no time limit."""

    async def wait_ended(self) -> int:
        """Return its exit status, negative for a signal, once it has ended."""

    async def end(self) -> None:
        """Make it end, and return when it has."""


class Child(Protocol):
    """Something that the supervisor starts, again and again if need be."""

    @property
    def name(self) -> str:
        """``postgres``, ``runtime``, ``node-1``, ..."""

    def open(self, launched: Callable[[int], None]) -> AbstractAsyncContextManager[Running]:
        """Start one process and own it for the length of the block.

        Args:
            launched: Told the pid as soon as there is a process.
        """

    def last_words(self) -> str:
        """Return what the last process said of why it could not go on; empty if it said nothing."""


@attrs.frozen(eq=False)
class RunningProcess:
    """A process that we started ourselves."""

    process: trio.Process
    is_ready: Callable[[], Awaitable[None]]
    ending: Ending

    @property
    def pid(self) -> int:
        """See Running."""
        return self.process.pid

    async def wait_ready(self) -> None:
        """See Running."""
        await self.is_ready()

    async def wait_ended(self) -> int:
        """See Running."""
        return await self.process.wait()

    async def end(self) -> None:
        """See Running."""
        await end_process(self.process, self.wait_ended, self.ending)


@attrs.define(eq=False)
class ProgramChild:
    """A program of our own that ends when its standard input does: it does not outlive the supervisor.

    Attributes:
        name: Of the child.
        arguments: Of ``python -m``.
        environ: Its whole environment.
        log: Takes what it says on standard error.
        ending: How it is ended.
    """

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    log: ChildLog
    ending: Ending

    def open(self, launched: Callable[[int], None]) -> AbstractAsyncContextManager[Running]:
        """See Child."""
        return open_process(
            (sys.executable, "-m", *self.arguments),
            environ=self.environ,
            log=self.log,
            is_ready=self.wait_ready,
            ending=self.ending,
            stdin=subprocess.PIPE,
            launched=launched,
        )

    async def wait_ready(self) -> None:
        """Return at once: there is nothing to be asked."""
        await trio.lowlevel.checkpoint()

    def last_words(self) -> str:
        """See Child."""
        return self.log.last_words()


@attrs.define(eq=False)
class ServiceChild(ProgramChild):
    """Control, the runtime or a node.

    Attributes:
        ready_url: Says 200 when it does its work.
    """

    ready_url: str

    async def wait_ready(self) -> None:
        """Return once ``/readyz`` agrees."""
        async with httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http:
            while not await _is_ok(http, self.ready_url):  # noqa: ASYNC110 - it is another process
                await trio.sleep(READY_POLL_S)


async def _is_ok(http: httpx.AsyncClient, url: str) -> bool:
    try:
        answer = await http.get(url)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


async def end_process(
    process: trio.Process | subprocess.Popen[bytes],
    wait_ended: Callable[[], Awaitable[object]],
    ending: Ending,
) -> None:
    """Return when a child of ours has ended: it is sent each signal in turn, and SIGKILL at last."""
    for number, patience_s in ending:
        process.send_signal(number)
        with trio.move_on_after(patience_s):
            await wait_ended()
            return
    process.kill()
    await wait_ended()


@asynccontextmanager
async def open_process(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: ChildLog,
    is_ready: Callable[[], Awaitable[None]],
    ending: Ending,
    stdin: int,
    launched: Callable[[int], None],
) -> AsyncIterator[RunningProcess]:
    """Run a program for the length of the block; its standard error goes to ``log``.

    Raises:
        OSError: It cannot be started.
    """
    process = await trio.lowlevel.open_process(
        list(argv),
        env=dict(environ),
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        launched(process.pid)
        async with trio.open_nursery() as reading:
            reading.start_soon(log.read, process.stderr)
            try:
                yield RunningProcess(process, is_ready, ending)
            finally:
                with trio.move_on_after(KILL_WAIT_S, shield=True):
                    process.kill()
                    await process.wait()
            # What it said last is still in the pipe; nobody else holds the other end.
            reading.cancel_scope.deadline = trio.current_time() + 1.0
    finally:
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                with trio.move_on_after(1.0, shield=True):
                    await stream.aclose()
