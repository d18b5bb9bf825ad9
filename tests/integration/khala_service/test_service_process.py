"""The life of a service, with services of a few lines in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow

FRAME = """
import os, signal, sys, trio
from khala_service.service_process import LoggingConfig, run_service

def ask(kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
    kill(pid, number)

async def serve(*, drain, task_status):
    task_status.started(7)
    await drain.wait()

def prepare():
    return LoggingConfig(), serve
"""
RUN = '\nsys.exit(run_service("small", prepare, ports_of=lambda port: (port,), is_leashed="leash" in sys.argv))\n'


def run(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a service to its end."""
    return subprocess.run(
        [sys.executable, "-c", FRAME + program + RUN],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


def events(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the events in its log."""
    return [json.loads(line)["event"] for line in done.stderr.splitlines()]


def test_a_request_that_comes_while_it_reads_its_configuration_is_not_lost() -> None:
    """It starts, drains and ends with status 0: the signal neither kills it nor is it forgotten."""
    done = run("def prepare():\n    ask()\n    return LoggingConfig(), serve\n")
    assert (done.returncode, done.stdout, events(done)) == (0, "7\n", ["draining", "stopped"])


def test_a_request_that_comes_when_it_has_ended_changes_nothing() -> None:
    """Neither the trace nor the status of an interpreter that a signal met on its way out."""
    program = """
class Late:
    def __del__(self, ask=ask):
        ask()

# Collected when the interpreter has taken its own signal handlers away.
late = Late()

def prepare():
    ask()
    return LoggingConfig(), serve
"""
    done = run(program)
    assert (done.returncode, events(done)) == (0, ["draining", "stopped"])


@pytest.mark.parametrize("is_hanging", [False, True])
def test_the_second_request_ends_it_whatever_it_does(is_hanging: bool) -> None:
    """Cancelled, or, if something does not let itself be cancelled, ended all the same within 2 s."""
    program = f"""
async def serve(*, drain, task_status):
    task_status.started(7)
    ask()
    await drain.wait()
    ask()
    with trio.CancelScope(shield={is_hanging}):
        await trio.sleep(60)
"""
    began = time.monotonic()
    done = run(program)
    assert done.returncode == 1
    assert time.monotonic() - began < 10  # with the start of an interpreter
    assert events(done) == ["draining", "hurried"] + ["stopped"] * (not is_hanging)


def test_what_its_starter_ignores_stays_ignored() -> None:
    """A service in the background of a script does not hear the Ctrl-C that is meant for the script."""
    program = """
async def serve(*, drain, task_status):
    task_status.started(7)
    os.kill(os.getpid(), signal.SIGINT)
    with trio.move_on_after(0.2):
        await drain.wait()
    assert not drain.is_set()
    ask()
    await drain.wait()
"""
    done = run(program, preexec_fn=ignore_interrupts)
    assert (done.returncode, events(done)) == (0, ["draining", "stopped"])


def ignore_interrupts() -> None:
    """As `sh -c 'program &'` does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_log_that_nobody_reads_any_more_ends_nothing() -> None:
    """Its supervisor was killed: standard input ends, standard error is broken, and it still ends in order."""
    with subprocess.Popen(
        [sys.executable, "-c", FRAME + RUN, "leash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"7\n"
        process.stderr.close()
        process.stdin.close()
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_crash_is_a_log_line_and_status_1() -> None:
    """With its trace in the line."""
    done = run("async def serve(*, drain, task_status):\n    raise ZeroDivisionError('x')\n")
    assert done.returncode == 1
    [line] = [json.loads(text) for text in done.stderr.splitlines()]
    assert line["event"] == "crashed"
    assert "ZeroDivisionError: x" in line["exception"]
