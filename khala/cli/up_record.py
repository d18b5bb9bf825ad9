"""What a running ``khala up`` tells the other commands about itself: ``up.json`` in the data directory.

Written when the directory is taken and again when the system is ready. It may outlive its writer, who
may be killed: ``living_record`` returns it only while the very process that wrote it lives.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

import attrs

from khala.adapters.embedded_postgres_directory import write_private
from khala.adapters.embedded_postgres_processes import process_identity

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["UpRecord", "living_record", "own_record", "read_record", "remove_record", "write_record"]

_FILE: Final = "up.json"


@attrs.frozen
class UpRecord:
    """One ``khala up``. The URLs are empty until it is ready.

    Attributes:
        pid: Its process.
        identity: Tells the process from a later one with the same pid.
        version: Of Khala.
        started_at_s: Unix time.
        postgres_port: Of the embedded PostgreSQL, 0 until it runs.
        nodes: One ``{name, url, admin_url, pid}`` for each.
        processes: Child processes by name; empty where everything is one process.
        identities: What tells each of them from a later process with the same pid.
        children: State and restarts of each: ``{state, restarts}``.
    """

    pid: int
    identity: str
    version: str
    started_at_s: float
    postgres_port: int = 0
    is_ready: bool = False
    origin: str = ""
    control_url: str = ""
    runtime_url: str = ""
    sync_url: str = ""
    admin_url: str = ""
    admin_token_file: str = ""
    profile: str = ""
    nodes: list[dict[str, str | int]] = attrs.field(factory=list)
    processes: dict[str, int] = attrs.field(factory=dict)
    identities: dict[str, str] = attrs.field(factory=dict)
    children: dict[str, dict[str, str | int]] = attrs.field(factory=dict)

    @property
    def urls(self) -> dict[str, object]:
        """The contents of the ready file."""
        names = (
            "origin", "control_url", "runtime_url", "sync_url", "admin_url", "admin_token_file", "profile", "nodes",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def own_record(*, version: str, now_s: float) -> UpRecord:
    """Return the record of this process."""
    identity = process_identity(os.getpid())
    assert identity is not None, "this process lives"
    return UpRecord(os.getpid(), identity, version, now_s)


def write_record(data_dir: Path, record: UpRecord) -> None:
    """Replace the record; the caller holds the data directory."""
    write_private(data_dir / _FILE, json.dumps(attrs.asdict(record), indent=2) + "\n")


def remove_record(data_dir: Path) -> None:
    """Remove the record at the end of an orderly life."""
    (data_dir / _FILE).unlink(missing_ok=True)


def living_record(data_dir: Path) -> UpRecord | None:
    """Return the record of the ``khala up`` that runs on this directory now, None if none does."""
    record = read_record(data_dir)
    return record if record is not None and process_identity(record.pid) == record.identity else None


def read_record(data_dir: Path) -> UpRecord | None:
    """Return the record of the last ``khala up``, whether it still runs or was killed; None if none is there."""
    try:
        document = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
        known = {field.name for field in attrs.fields(UpRecord)}
        return UpRecord(**{name: value for name, value in document.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
