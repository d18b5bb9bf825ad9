from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from khala_client.file_lock import LockHeld, hold_file_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """Also within one process; free again after the block, also after an exception."""
    path = tmp_path / "lock"
    with hold_file_lock(path), pytest.raises(LockHeld), hold_file_lock(path):
        pytest.fail("held twice")
    with pytest.raises(ZeroDivisionError), hold_file_lock(path):
        raise ZeroDivisionError
    with hold_file_lock(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_child_of_fork_neither_keeps_nor_frees_it(tmp_path: Path) -> None:
    """It has the descriptor, too: the holder's release counts, and only that."""
    path = tmp_path / "lock"
    forking = multiprocessing.get_context("fork")
    with hold_file_lock(path):
        held = hold_file_lock(tmp_path / "other")
        held.__enter__()
        leaver = forking.Process(target=held.__exit__, args=(None, None, None))
        leaver.start()
        leaver.join(20)
        with pytest.raises(LockHeld), hold_file_lock(tmp_path / "other"):
            pytest.fail("freed by a child")
        held.__exit__(None, None, None)
        ours, theirs = forking.Pipe()
        child = forking.Process(target=theirs.recv)
        child.start()
    try:
        with hold_file_lock(path):
            assert child.is_alive()
    finally:
        ours.send(None)
        child.join(20)


@pytest.mark.slow
def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    """The kernel frees it."""
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib\n"
        "from khala_client.file_lock import hold_file_lock\n"
        "with hold_file_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockHeld), hold_file_lock(path):
            pytest.fail("held by a living process")
        process.kill()
    with hold_file_lock(path):
        pass
