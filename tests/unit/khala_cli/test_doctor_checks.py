"""Unit tests of khala.cli.doctor_checks."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest
import trio

import khala.cli.doctor_checks as checks
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused
from khala.cli.doctor_checks import (
    DISK_LOW_BYTES,
    DISK_MIN_BYTES,
    check_clock,
    check_data_dir,
    check_ports,
    check_postgres,
    check_python,
    check_running,
)
from khala.cli.status import ServiceState
from khala.cli.up_ports import HOST, UpPorts
from khala.cli.up_record import UpRecord, own_record
from khala_client.version import VERSION


class Version(NamedTuple):
    """Sliced and compared as sys.version_info is."""

    major: int
    minor: int
    micro: int


class Usage(NamedTuple):
    """What shutil.disk_usage returns."""

    total: int
    used: int
    free: int


RECORD = attrs.evolve(own_record(version=VERSION, now_s=0.0), is_ready=True, profile="/d/profile")


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.11 is the oldest that works."""
    assert check_python().verdict == "ok"
    monkeypatch.setattr(sys, "version_info", Version(3, 11, 0))
    assert check_python().verdict == "ok"
    monkeypatch.setattr(sys, "version_info", Version(3, 10, 9))
    assert (check_python().verdict, check_python().advice) == ("failed", "install Python 3.11 or newer")


def test_windows_is_sent_to_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients run there, the server does not."""
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert "WSL" in check_python().advice


def test_postgres_is_found_and_how_it_runs_is_said(tmp_path: Path) -> None:
    """The same decision as that of `khala up`, without changing anything."""
    finding = check_postgres(tmp_path)
    assert finding.verdict == "ok"
    assert "runs" in finding.detail
    assert list(tmp_path.iterdir()) == []


def test_postgres_that_cannot_run_is_reported_with_its_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal of `khala up` is the detail of the finding."""

    def refuse() -> None:
        raise EmbeddedPostgresRefused("both reasons")

    monkeypatch.setattr(checks, "find_binaries", refuse)
    finding = check_postgres(tmp_path)
    assert (finding.verdict, finding.detail) == ("failed", "both reasons")


@pytest.mark.parametrize(
    ("free", "verdict"),
    [
        (DISK_MIN_BYTES - 1, "failed"),
        (DISK_MIN_BYTES, "warning"),
        (DISK_LOW_BYTES - 1, "warning"),
        (DISK_LOW_BYTES, "ok"),
    ],
)
def test_room_is_judged_at_its_limits(
    free: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that does not exist yet is judged by the one above it."""
    usage = Usage(0, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert check_data_dir(tmp_path / "not" / "yet").verdict == verdict


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file in the way."""
    (tmp_path / "file").write_text("")
    assert check_data_dir(tmp_path / "file").verdict == "failed"


def test_ports_are_ours_free_or_taken() -> None:
    """A running system's own listeners are no trouble."""
    base = UpPorts.free().base
    assert check_ports(None, base).verdict == "ok"
    with socket.socket() as taken:
        taken.bind((HOST, base + 3))
        taken.listen()
        finding = check_ports(None, base)
        assert (finding.verdict, f"{base + 3} (node)" in finding.detail) == ("failed", True)
        assert check_ports(RECORD, base).verdict == "ok"


@pytest.mark.parametrize(
    ("skew_s", "verdict"), [(0.0, "ok"), (5.0, "ok"), (-5.0, "ok"), (5.1, "failed"), (-5.1, "failed")]
)
def test_the_worst_clock_counts(skew_s: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds are tolerated in both directions; the finding names who differs."""
    monkeypatch.setattr(checks, "_http_skew_s", lambda url, now: 0.1)
    monkeypatch.setattr(checks, "_database_skew_s", lambda data_dir, record, now: skew_s)
    finding = check_clock(Path("/d"), RECORD, lambda: 0.0)
    assert finding.verdict == verdict
    if verdict == "failed":
        assert "database" in finding.detail


def test_without_an_answer_no_clock_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing running is no failure; something silent is."""
    assert check_clock(Path("/d"), None, lambda: 0.0).verdict == "not_applicable"

    def refuse(url: str, now: object) -> float:
        raise OSError

    monkeypatch.setattr(checks, "_http_skew_s", refuse)
    assert check_clock(Path("/d"), RECORD, lambda: 0.0).verdict == "failed"


def running(
    monkeypatch: pytest.MonkeyPatch, record: UpRecord | None, states: list[ServiceState]
) -> checks.Finding:
    """Check with services that say ``states``."""

    async def answer(_: UpRecord) -> list[ServiceState]:
        await trio.lowlevel.checkpoint()
        return states

    monkeypatch.setattr(checks, "check_services", answer)
    return trio.run(check_running, record)


def test_services_are_ready_and_of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not ready is named; another version is a warning."""
    well = [ServiceState("control", "http://x", is_ready=True)]
    assert running(monkeypatch, None, well).verdict == "not_applicable"
    assert running(monkeypatch, RECORD, well).verdict == "ok"
    assert running(monkeypatch, attrs.evolve(RECORD, version="0.0.1-other"), well).verdict == "warning"
    troubled = running(
        monkeypatch, RECORD, [ServiceState("node", "http://x", is_ready=False, detail="journal: timeout")]
    )
    assert (troubled.verdict, troubled.detail, "/d/logs" in troubled.advice) == (
        "failed",
        "node: journal: timeout",
        True,
    )
