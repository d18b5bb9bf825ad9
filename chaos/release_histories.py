"""Keeps histories and cursors of a release, as later releases will meet them.

    python -m chaos.release_histories proto/fixtures/0.1 tests/fixtures/runs/*.jsonl

Starts a real ``khala up``, imports each recording, follows it with ``khala tail`` into a store, and
writes what every later version must still read:

    histories/<run>.jsonl          the follower's history, one line an event (khala_client.history)
    histories/<run>.frames.bin     the journal's entries, joined: a range as a node sends it
    histories/<run>.fanout.bin     the same range as a sealed record for nodes
    cursors.json                   the rows of the follower's store, and the key of the seal
    store.sqlite3                  that store itself

Folders of releases are never written again: a file that is there is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chaos.checker import check_history, check_journal
from chaos.journal_reader import journal_of, journal_query
from chaos.load.system_under_test import SystemFailedError, running_system_under_test
from chaos.transcripts import read_lines
from khala_client.history import format_history_lines
from khala_client.profiles import ProfileDirectory
from khala_client.store import SqliteStore
from khala_contracts.chain import chain_start
from khala_contracts.fanout_records import FanoutRecord, RecordSigner
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.load.system_under_test import SystemUnderTest
    from khala_client.core.cursor import Cursor

KEY_ID: Final = "fixtures"
# No secret: it seals nothing but these files.
KEY: Final = sha256(b"khala release fixtures").digest()
_COMMAND_TIMEOUT_S: Final = 120


def record_release(folder: Path, recordings: Sequence[Path]) -> None:
    """Write the histories and cursors of this version into ``folder``.

    Raises:
        FileExistsError: They are there already.
        SystemFailedError: A command failed, or what was followed is not what the journal holds.
    """
    histories = folder / "histories"
    histories.mkdir()
    with tempfile.TemporaryDirectory(prefix="khala-release-") as name:
        store = Path(name) / "store"
        with running_system_under_test(Path(name), config="") as system:
            namespace = ProfileDirectory(system.profile).load().namespace
            cursors = [
                _record(system, recording, histories, store=store, namespace=namespace)
                for recording in recordings
            ]
        _copy_store(store, folder / "store.sqlite3")
    document = {
        "namespace": namespace,
        "fanout_key_id": KEY_ID,
        "fanout_key_hex": KEY.hex(),
        "cursors": [
            {
                "history": recording.stem,
                "topic": cursor.topic,
                "lineage": cursor.lineage,
                "seq": str(cursor.seq),
                "chain_hex": (cursor.chain or b"").hex(),
            }
            for recording, cursor in zip(recordings, cursors, strict=True)
        ],
    }
    _write_new(folder / "cursors.json", json.dumps(document, indent=1).encode() + b"\n")


def _record(system: SystemUnderTest, recording: Path, folder: Path, *, store: Path, namespace: str) -> Cursor:
    run_id = _khala(system, "import", "--json", str(recording))[-1]["run_id"]
    topic = format_run_events(run_id)
    follow = ("--from", "beginning", "--verify", "--until-finished", "--json", "--store", str(store))
    end = _khala(system, "tail", run_id, *follow)[-1]
    if end.get("verified") is not True:
        raise SystemFailedError(f"{recording.name}: not verified: {end}")
    with closing(SqliteStore.open(store, namespace=namespace)) as opened:
        cursor = opened.load_cursor(topic)
        events = list(opened.read_history(topic))
    assert cursor is not None, "the tail has followed it to its end"
    history = folder / f"{recording.stem}.jsonl"
    _write_new(history, "".join(f"{line}\n" for line in format_history_lines(events)).encode())
    rows = [(entry, chain) for entry, chain in system.query(journal_query([topic]))]
    journal = journal_of(rows)
    violations = check_journal(journal) + check_history(
        list(read_lines(history)),
        journal,
        source=recording.stem,
        is_complete=True,
        after_seq=0,
        topics=[topic],
    )
    if violations:
        raise SystemFailedError(str(violations[0]))
    entries = tuple(bytes.fromhex(entry) for entry, _ in rows)
    _write_new(folder / f"{recording.stem}.frames.bin", b"".join(entries))
    record = FanoutRecord(
        topic=topic,
        lineage=cursor.lineage,
        first_seq=1,
        last_seq=len(rows),
        chain_before=chain_start(topic),
        chain_after=bytes.fromhex(rows[-1][1]),
        entries=entries,
        committed_at_us=0,
    )
    _write_new(folder / f"{recording.stem}.fanout.bin", RecordSigner(KEY_ID, KEY).seal(record))
    return cursor


def _khala(system: SystemUnderTest, *arguments: str) -> list[dict[str, Any]]:
    """Run one command against the system; return the JSON objects that it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    done = subprocess.run(
        [sys.executable, "-m", "khala.cli", *arguments],
        env={**kept, "KHALA_PROFILE": str(system.profile)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise SystemFailedError(f"khala {arguments[0]}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _copy_store(store: Path, copy: Path) -> None:
    """Write the store as one file without a journal of its own."""
    if copy.exists():
        raise FileExistsError(copy)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.release_histories", description="Keep histories and cursors of a release."
    )
    parser.add_argument("folder", type=Path, help="the folder of the release, proto/fixtures/<version>")
    parser.add_argument("recordings", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    try:
        record_release(options.folder, options.recordings)
    except (SystemFailedError, FileExistsError) as exc:
        sys.stderr.write(f"nothing more was kept: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
