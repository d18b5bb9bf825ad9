"""Ends what a killed ``khala up`` left behind: by the next start, and by a watchman of each life.

Services end by themselves when the supervisor's end of their standard input closes; PostgreSQL and NATS
know nothing of it. So every split life has a watchman: ``python -m khala.cli.orphans DATA_DIR IDENTITY``
waits for the end of its standard input, which comes however the supervisor ended, and then ends what the
record of that life names and still lives. A later life has a record of its own, which he leaves alone.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from khala.adapters.embedded_postgres_processes import process_identity, send_signal
from khala.cli.up_record import read_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala.cli.up_record import UpRecord

__all__ = ["end_orphans"]

# Services drain for 2 s, and must be gone before the database is.
SERVICES_WAIT_S: Final = 3.0
ENGINES_WAIT_S: Final = 5.0
KILL_WAIT_S: Final = 5.0
POLL_S: Final = 0.02
_ENGINES: Final = ("postgres", "nats")


def end_orphans(record: UpRecord, *, services_wait_s: float = SERVICES_WAIT_S) -> None:
    """End every child process that a record names and that is still the same process.

    Services first, then broker and database: each is asked, and killed if it does not leave. Blocking.
    """
    services = {name: pid for name, pid in record.processes.items() if name not in _ENGINES}
    engines = {name: pid for name, pid in record.processes.items() if name in _ENGINES}
    _end(record, services, signal.SIGTERM, services_wait_s)
    # For PostgreSQL a fast stop; SIGTERM would wait for every connection.
    _end(record, engines, signal.SIGINT, ENGINES_WAIT_S)


def _end(record: UpRecord, processes: Mapping[str, int], ask: signal.Signals, patience_s: float) -> None:
    for number, wait_s in ((ask, patience_s), (signal.SIGKILL, KILL_WAIT_S)):
        living = _living(record, processes)
        for pid in living.values():
            send_signal(pid, number)
        deadline = time.monotonic() + wait_s
        while _living(record, processes) and time.monotonic() < deadline:
            time.sleep(POLL_S)  # noqa: TID251 - a worker thread, or the watchman, who has no event loop


def _living(record: UpRecord, processes: Mapping[str, int]) -> dict[str, int]:
    return {
        name: pid
        for name, pid in processes.items()
        if (identity := record.identities.get(name)) and process_identity(pid) == identity
    }


def watch(data_dir: Path, identity: str) -> None:
    """Be the watchman of the life whose supervisor has this identity."""
    # Who ends the others must not be ended with them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        continue
    record = read_record(data_dir)
    if record is not None and record.identity == identity:
        end_orphans(record)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), sys.argv[2])
