"""README, typed by a newcomer: a copy of the tree, a fresh environment, an empty home, nothing else.

The first command runs in one terminal, everything after the second in another; then the second command runs, with
its lanes narrowed, since it would otherwise contain itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from tests.ci.__main__ import NARROW_VARIABLE
from tests.ci.readme_commands import all_tests_command, session_script, start_command
from tests.ci.tree import ROOT, tree_files

README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL_TIMEOUT_S = 240.0
# From the first word of `khala up` until it says what to type next.
START_MAX_S = 60.0
SESSION_TIMEOUT_S = 120.0
NARROWED_TO = "docs boundaries"


@attrs.frozen
class Newcomer:
    """A checkout and the environment of somebody who has just got it."""

    checkout: Path
    home: Path
    environment: Mapping[str, str]

    def start(self, script: str, output: Path) -> subprocess.Popen[bytes]:
        """Start a script in a terminal of its own; what it prints goes to a file."""
        with output.open("wb") as stream:
            return subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.checkout,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    """A newcomer, who leaves nothing running."""
    checkout, home = tmp_path / "khala", tmp_path / "home"
    home.mkdir()
    for name in tree_files(ROOT):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE"} or name.startswith("PIP_")
    }
    # The interpreter below our own environment, under the name that README uses.
    path = os.pathsep.join([f"{sys.base_prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"])
    # A free block of ports: the default one may be in use on this machine.
    environment = {**kept, "PATH": path, "HOME": str(home), "KHALA_UP_PORT_BASE": "0"}
    yield Newcomer(checkout, home, environment)
    command = [str(checkout / ".venv/bin/khala"), "down"]
    if Path(command[0]).exists():
        subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30)


def wait_for(words: str, output: Path, child: subprocess.Popen[bytes], *, timeout_s: float) -> float:
    """Wait until a script has printed the words and return the time of it."""
    deadline = time.monotonic() + timeout_s
    while words not in output.read_text(encoding="utf-8", errors="replace"):
        said = output.read_text(encoding="utf-8", errors="replace")
        assert child.poll() is None, f"ended with {child.returncode}:\n{said}"
        assert time.monotonic() < deadline, f"{words!r} was not said in {timeout_s:.0f} s:\n{said}"
        time.sleep(0.05)  # noqa: TID251  # a real process is waited for, in a test without a loop
    return time.monotonic()


def finish(child: subprocess.Popen[bytes], output: Path, *, timeout_s: float) -> str:
    """Wait for a script to end well and return what it printed; end it with everything it started if it does not."""
    try:
        status = child.wait(timeout=timeout_s)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    said = output.read_text(encoding="utf-8", errors="replace")
    assert status == 0, said
    return said


@pytest.mark.timeout(INSTALL_TIMEOUT_S * 2 + SESSION_TIMEOUT_S)
def test_every_command_of_readme_works(newcomer: Newcomer, tmp_path: Path) -> None:
    """Install, start, use, kill, start again, stop, test: verbatim, with an empty home."""
    up_output = tmp_path / "up.txt"
    up = newcomer.start(start_command(README).text, up_output)
    try:
        began = wait_for("Starting PostgreSQL", up_output, up, timeout_s=INSTALL_TIMEOUT_S)
        ready = wait_for("Type next", up_output, up, timeout_s=START_MAX_S)
        assert ready - began < START_MAX_S

        session_output = tmp_path / "session.txt"
        session = newcomer.start(session_script(README), session_output)
        said = finish(session, session_output, timeout_s=SESSION_TIMEOUT_S)
        # README kills the first one without a chance to clean up; 137 is what a shell makes of it.
        assert up.wait(timeout=10) in {137, -signal.SIGKILL}
    finally:
        if up.poll() is None:
            os.killpg(up.pid, signal.SIGINT)
            up.wait(timeout=30)
    # The first tail compares what it holds with the authority's history; after the kill, its store has it all.
    assert "chain verified" in said, said
    assert "finished: 0 events" in said, said
    # README kills three processes under a live run: each is back, and the tail has all 42 events of it.
    assert said.count("was killed by SIGKILL") == said.count(" is back after ") == 3, said
    assert "finished: 42 events, through 42  ✓ chain verified" in said, said
    assert "it works" in said
    assert "Look at the failing test first." in said

    tests_output = tmp_path / "tests.txt"
    narrowed = attrs.evolve(newcomer, environment={**newcomer.environment, NARROW_VARIABLE: NARROWED_TO})
    tests = narrowed.start(all_tests_command(README).text, tests_output)
    last = finish(tests, tests_output, timeout_s=INSTALL_TIMEOUT_S).splitlines()[-1]
    assert last.endswith(" passed, 0 failed"), last
