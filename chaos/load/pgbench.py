"""The reference of the append benchmark: PostgreSQL's own pgbench, calling ``append_v1`` directly.

Same server, same database, same role, same number of writers as the runtime; each transaction appends
one batch to one topic, and a topic has one writer. What the API adds (HTTP, checks, idempotency,
acknowledgements) is what the ratio shows. The batch is made inside the statement, so the reference
does not even carry the payloads over a socket.
"""

from __future__ import annotations

import re
import resource
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.append_client import KIND, payload_of
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.load.system_under_test import SystemUnderTest

ROLE: Final = "khala_runtime"
# pgbench connects and ends beside the measured time.
_GRACE_S: Final = 60.0
# pgbench takes every :word for a variable of its own, also inside quotes: hence chr(58).
_SCRIPT: Final = """\
\\set topic :client_id * {topics_per_writer} + random(1, {topics_per_writer})
SELECT count(*) FROM runtime.append_v1(
    {generation},
    ARRAY[concat_ws(chr(58), 'run', 'run_' || lpad((:topic)::text, 26, '0'), 'events')],
    ARRAY['run_events'], ARRAY['usr_00000000000000000000000000'], ARRAY[NULL], ARRAY[{events}],
    array_fill('evt_00000000000000000000000000'::text, ARRAY[{events}]),
    array_fill('{kind}'::text, ARRAY[{events}]),
    array_fill('\\x{payload}'::bytea, ARRAY[{events}]),
    array_fill(1::bigint, ARRAY[{events}]),
    array_fill('usr_00000000000000000000000000'::text, ARRAY[{events}]),
    array_fill('req_00000000000000000000000000'::text, ARRAY[{events}]),
    array_fill(NULL::text, ARRAY[{events}])
);
"""
_COUNT: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_RATE: Final = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)


@attrs.frozen
class PgbenchResult:
    """One run of pgbench."""

    events: int
    events_per_s: float
    seconds: float
    cpu_s: float


def run_pgbench(
    system: SystemUnderTest,
    folder: Path,
    *,
    seconds: int,
    writers: int,
    topics_per_writer: int,
    events: int,
    payload_bytes: int,
) -> PgbenchResult:
    """Append for ``seconds`` and return what was committed.

    Raises:
        SystemFailedError: pgbench failed, or the topics do not hold what it says it wrote.
    """
    script = folder / "append.pgbench"
    ((generation,),) = system.query("SELECT generation FROM runtime.generation", role=ROLE)
    script.write_text(
        _SCRIPT.format(
            topics_per_writer=topics_per_writer,
            generation=generation,
            events=events,
            kind=KIND,
            payload=payload_of(payload_bytes).hex(),
        ),
        encoding="ascii",
    )
    before, cpu_before = _events_written(system), _cpu_of_children_s()
    options = {"-c": writers, "-j": writers, "-T": seconds, "-M": "prepared", "-f": script}
    words = [str(word) for option in options.items() for word in option]
    output = system.run_database_program("pgbench", ROLE, "-n", *words, timeout_s=seconds + _GRACE_S)
    cpu_s = _cpu_of_children_s() - cpu_before
    count, failed, rate = (pattern.search(output) for pattern in (_COUNT, _FAILED, _RATE))
    if count is None or rate is None or (failed is not None and failed.group(1) != "0"):
        raise SystemFailedError(f"pgbench said: {output}")
    written = _events_written(system) - before
    if written != int(count.group(1)) * events:
        raise SystemFailedError(f"pgbench counts {count.group(1)} transactions, the topics {written} events")
    per_s = float(rate.group(1))
    return PgbenchResult(written, per_s * events, int(count.group(1)) / per_s, cpu_s)


def _events_written(system: SystemUnderTest) -> int:
    """Return how many events the topics of this reference hold; no run has such an id."""
    sql = "SELECT coalesce(sum(head_seq), 0) FROM runtime.topic_heads WHERE topic LIKE 'run:run\\_00000000%'"
    ((count,),) = system.query(sql)
    return int(count)


def _cpu_of_children_s() -> float:
    """Return CPU seconds of the children of this process that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
