"""The scripted agent as a live run: `khala record` around `agent.py`, in the background."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.service_processes import clean_environment
from tests.e2e.system import KHALA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.system import System

AGENT = Path(__file__).with_name("agent.py")
# What the runtime adds to the agent's own events: run.started and run.finished.
LIFECYCLE_EVENTS = 2


# Far more than any test waits for.
_EVENTS_MAX = 100_000


@contextmanager
def running_agent(
    system: System, name: str, *, rate_per_s: float, until: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A run of this name that writes events at that rate until the file exists, or the block is left.

    What the command prints is thrown away: nobody reads it, and a full pipe would stop the agent.
    """
    pace = ("--events", str(_EVENTS_MAX), "--rate", str(rate_per_s), "--until", str(until))
    agent = (sys.executable, str(AGENT), *pace)
    profile = str(system.data_dir / "profile")
    agent_run = subprocess.Popen(
        [*KHALA, "record", "--name", name, "--", *agent],
        env=clean_environment(HOME=str(system.folder), KHALA_PROFILE=profile),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield agent_run
    finally:
        agent_run.kill()
        agent_run.wait(timeout=20)
