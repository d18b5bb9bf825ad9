"""The library that harms PostgreSQL's disk and clock, in a program that only calls itself postgres."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from chaos.faults.shim import FaultShim

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

# Grows a table's file and one of the log, syncs, and looks at both clocks.
_PROGRAM = """
import errno, json, os, sys, time
def grow(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w+b", buffering=0) as file:
        try:
            os.pwrite(file.fileno(), b"x" * 8192, 0)
        except OSError as exc:
            return errno.errorcode[exc.errno]
        began = time.monotonic()
        os.fsync(file.fileno())
        return time.monotonic() - began
print(json.dumps({"base": grow("base/1/2"), "wal": grow("pg_wal/3"), "time": time.time()}))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> FaultShim:
    """Compiled once."""
    return FaultShim.make(tmp_path_factory.mktemp("shim"))


def run(shim: FaultShim, folder: Path, name: str = "postgres") -> dict[str, Any]:
    """Run the program under a name; return what it saw."""
    done = subprocess.run(
        [name, "-I", "-S", "-c", _PROGRAM],
        executable=sys.executable,
        env=dict(shim.environment),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_a_full_disk_refuses_what_grows_and_spares_the_log(shim: FaultShim, tmp_path: Path) -> None:
    """ENOSPC for a table, not for the write-ahead log; each refusal is counted; afterwards all is well."""
    assert run(shim, tmp_path)["base"] != "ENOSPC"
    before = shim.get("writes_refused")
    shim.set("is_disk_full", 1)
    (tmp_path / "base" / "1" / "2").unlink()
    seen = run(shim, tmp_path)
    assert seen["base"] == "ENOSPC"
    assert seen["wal"] != "ENOSPC"
    assert shim.get("writes_refused") == before + 1
    shim.set("is_disk_full", 0)
    assert run(shim, tmp_path)["base"] != "ENOSPC"


def test_a_slow_disk_takes_its_time(shim: FaultShim, tmp_path: Path) -> None:
    """Each fsync, by what was asked for."""
    before = shim.get("syncs_delayed")
    shim.set("sync_delay_us", 50_000)
    seen = run(shim, tmp_path)
    shim.set("sync_delay_us", 0)
    assert min(seen["base"], seen["wal"]) >= 0.05
    assert shim.get("syncs_delayed") == before + 2


@pytest.mark.parametrize("offset_s", [30.25, -30.25])
def test_a_clock_is_ahead_or_behind(shim: FaultShim, tmp_path: Path, offset_s: float) -> None:
    """The wall clock alone: the sync above was timed by the monotonic one."""
    honest = run(shim, tmp_path)["time"]
    shim.set("clock_offset_us", int(offset_s * 1_000_000))
    skewed = run(shim, tmp_path)["time"]
    shim.set("clock_offset_us", 0)
    assert offset_s <= skewed - honest < offset_s + 15
    assert shim.get("clock_reads") > 0


def test_other_programs_are_left_alone(shim: FaultShim, tmp_path: Path) -> None:
    """Preloaded everywhere, it acts in PostgreSQL only: services must not lie about time."""
    shim.set("is_disk_full", 1)
    shim.set("clock_offset_us", 3_600_000_000)
    honest = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import time; print(time.time())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seen = run(shim, tmp_path, name="khala")
    shim.set("is_disk_full", 0)
    shim.set("clock_offset_us", 0)
    assert seen["base"] != "ENOSPC"
    assert abs(seen["time"] - float(honest.stdout)) < 60
