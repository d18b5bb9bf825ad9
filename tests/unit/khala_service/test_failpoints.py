"""Named places at which a process can be made to die or fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from khala_service import failpoints
from khala_service.failpoints import (
    FAILPOINTS,
    FailpointError,
    arm,
    check_failpoint_settings,
    disarm,
    hit,
    hits,
    is_armed,
    markdown_table,
    parse_failpoints,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POINT, OTHER = "runtime.committed", "node.topic"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No point stays armed."""
    yield
    disarm()


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("", {}),
        (" , ", {}),
        (f"{POINT}=kill", {POINT: ("kill", 1)}),
        (f"{POINT}=raise@3, {OTHER}=kill@12", {POINT: ("raise", 3), OTHER: ("kill", 12)}),
        (f"{POINT}=kill,{POINT}=raise@2", {POINT: ("raise", 2)}),
    ],
)
def test_specifications(spec: str, parsed: dict[str, tuple[str, int]]) -> None:
    """Points, actions and hit numbers; blanks do not matter, the last word about a point counts."""
    assert parse_failpoints(spec) == parsed


@pytest.mark.parametrize(
    "spec",
    [
        POINT,
        f"{POINT}=",
        f"{POINT}=explode",
        f"{POINT}=kill@0",
        f"{POINT}=kill@-1",
        f"{POINT}=kill@9999999999",
        f"{POINT}=kill {OTHER}=kill",
        "runtime.nowhere=kill",
        "=kill",
    ],
)
def test_wrong_specifications(spec: str) -> None:
    """What is not a point, an action or a number is refused, and nothing is armed by the part that is right."""
    with pytest.raises(ValueError, match=r"expected|not a failpoint"):
        arm(f"{OTHER}=raise,{spec}")
    assert not is_armed(OTHER)
    hit(OTHER)
    assert dict(hits()) == {}


def test_an_unarmed_point_is_nothing() -> None:
    """Every point can be passed, and is not counted."""
    for name in FAILPOINTS:
        hit(name)
    arm(f"{OTHER}=raise")
    hit(POINT)
    assert dict(hits()) == {}


def test_raise_at_the_third_hit_and_never_again(tmp_path: Path) -> None:
    """The n-th pass acts, once; every pass of an armed point is counted; the file says what acted."""
    file = tmp_path / "hits.jsonl"
    arm(f"{POINT}=raise@3", hit_file=file)
    hit(POINT)
    hit(POINT)
    assert is_armed(POINT)
    assert not file.exists()
    with pytest.raises(FailpointError, match=POINT):
        hit(POINT)
    assert not is_armed(POINT)
    hit(POINT)
    assert dict(hits()) == {POINT: 4}
    (line,) = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert (line["failpoint"], line["action"]) == (POINT, "raise")
    arm(f"{POINT}=raise")
    with pytest.raises(FailpointError):
        hit(POINT)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 2


def test_disarming_forgets_everything(tmp_path: Path) -> None:
    """Points, counts and the file."""
    arm(f"{POINT}=raise@2", hit_file=tmp_path / "hits.jsonl")
    hit(POINT)
    disarm()
    hit(POINT)
    assert not is_armed(POINT)
    assert dict(hits()) == {}
    arm(f"{POINT}=raise")
    with pytest.raises(FailpointError):
        hit(POINT)
    assert list(tmp_path.iterdir()) == []


def test_kill_is_kill_of_this_very_process(tmp_path: Path) -> None:
    """Nothing after the point runs, no cleanup either; the file tells which process it was."""
    file = tmp_path / "hits.jsonl"
    program = (
        "import atexit, pathlib, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from khala_service import failpoints\n"
        "atexit.register(print, 'cleanup')\n"
        f"failpoints.arm('{POINT}=kill@2', hit_file=pathlib.Path({str(file)!r}))\n"
        "for _ in range(3):\n"
        "    print('before', flush=True)\n"
        f"    failpoints.hit('{POINT}')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert said == "before\nbefore\n"
    (line,) = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert line == {"failpoint": POINT, "action": "kill", "pid": process.pid}


def test_settings(tmp_path: Path) -> None:
    """ARC-14: outside mode dev neither points nor a file are accepted; in it a wrong point is named."""
    check_failpoint_settings("production", "", None)
    check_failpoint_settings("dev", f"{POINT}=kill@20", tmp_path)
    with pytest.raises(ValueError, match=r"^failpoints: accepted in mode dev only"):
        check_failpoint_settings("production", f"{POINT}=kill", None)
    with pytest.raises(ValueError, match=r"^failpoint_file: accepted in mode dev only"):
        check_failpoint_settings("production", "", tmp_path)
    with pytest.raises(ValueError, match=r"^failpoints: 'x' is not"):
        check_failpoint_settings("dev", "x=kill", None)


def test_table() -> None:
    """One row for each point, as runbooks/failpoints.md has it (compared by the lane `docs`)."""
    rows = markdown_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(FAILPOINTS)


def test_exports() -> None:
    """What is public exists."""
    assert all(hasattr(failpoints, name) for name in failpoints.__all__)
