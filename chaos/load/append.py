"""``khala bench append``: durable appends through the API beside pgbench, in alternating pairs.

A: a real ``khala up``, HTTP, protobuf batches, several runs and connections; an event counts when its
acknowledgement has arrived. B: ``pgbench`` calling ``append_v1`` on the same server (pgbench.py). After
each A the acknowledgements are compared with the rows of the journal by the checker's rules: each one
present, once, under its chain, and nothing there that was not acknowledged.
"""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.checker import AckLine, check_acks, check_journal
from chaos.journal_reader import journal_of, journal_query
from chaos.load.append_client import append_for, batch_of
from chaos.load.pgbench import PgbenchResult, run_pgbench
from chaos.load.statistics_of_pairs import Spread, describe_environment
from chaos.load.system_under_test import CpuTimes, SystemFailedError, running_system_under_test
from khala_client.http import ControlClient, RuntimeClient
from khala_client.http_calls import open_http
from khala_client.profiles import ProfileDirectory
from khala_client.trio import ProfileCredentials
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chaos.load.append_client import Answer, LoadResult
    from chaos.load.system_under_test import SystemUnderTest

TARGET_EVENTS_PER_S: Final = 15_000
# The runtime's own number (runtime/actors/appender.py).
WRITERS: Final = 2
# SPEC section 2 allows 240 events/s and run; the benchmark asks for what the machine can do.
CONFIG: Final = "[runtime.publish_rate_per_s]\nrun_events = 0\n"
_SETTINGS: Final = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")


@attrs.frozen
class AppendSetup:
    """What one measurement does."""

    batch_events: int = 200
    payload_bytes: int = 200
    runs: int = 4
    connections: int = 8
    seconds: int = 3


@attrs.frozen
class ApiMeasurement:
    """One run through the API."""

    events_per_s: float
    seconds: float
    latency_ms: float
    latency_p99_ms: float
    cpu: CpuTimes
    client_cpu_s: float
    acks: int


@attrs.frozen
class ReferenceMeasurement:
    """One run of pgbench."""

    result: PgbenchResult
    postgres_cpu_s: float


def measure_append(setup: AppendSetup, *, pairs: int, report: Callable[[str], None]) -> dict[str, object]:
    """Start a system, run the pairs and return the report.

    Raises:
        SystemFailedError: The system or pgbench did not work, or an acknowledgement was not kept.
        AppendFailedError: A request was refused. No figure is given in either case.
    """
    environment = describe_environment()
    api_runs: list[ApiMeasurement] = []
    reference_runs: list[ReferenceMeasurement] = []
    with tempfile.TemporaryDirectory(prefix="khala-bench-") as name:
        folder = Path(name)
        with running_system_under_test(folder, config=CONFIG) as system:
            for pair in range(pairs):
                api_runs.append(_run_api(setup, system))
                reference_runs.append(_run_reference(setup, system, folder))
                report(
                    f"pair {pair + 1}: API {api_runs[-1].events_per_s:,.0f} events/s, "
                    f"pgbench {reference_runs[-1].result.events_per_s:,.0f} events/s"
                )
            settings = system.query("SELECT " + ", ".join(f"current_setting('{s}')" for s in _SETTINGS))[0]
    database = dict(zip(_SETTINGS, settings, strict=True))
    return _result(setup, api_runs, reference_runs, {**environment, "postgresql": database})


def _run_api(setup: AppendSetup, system: SystemUnderTest) -> ApiMeasurement:
    before = system.cpu_times()
    load = trio.run(_append, setup, system)
    cpu = system.cpu_times().since(before)
    topics = sorted({format_run_events(answer.run_id) for answer in load.answers})
    check_answers(load.answers, ((entry, chain) for entry, chain in system.query(journal_query(topics))))
    measured = load.answers[load.warm_up :]
    events = len(measured) * setup.batch_events
    latencies = [answer.seconds * 1000 for answer in measured]
    return ApiMeasurement(
        events_per_s=events / load.seconds,
        seconds=load.seconds,
        latency_ms=statistics.median(latencies),
        latency_p99_ms=sorted(latencies)[int(0.99 * (len(latencies) - 1))],
        cpu=cpu,
        client_cpu_s=load.cpu_s,
        acks=len(load.answers) * setup.batch_events,
    )


async def _append(setup: AppendSetup, system: SystemUnderTest) -> LoadResult:
    directory = ProfileDirectory(system.profile)
    profile = directory.load()
    async with open_http() as http:
        control = ControlClient(profile.control_url, http, None)
        credentials = ProfileCredentials(directory, profile, control=control, wall_clock=time.time)
        runtime = RuntimeClient(profile.runtime_url, http, credentials)
        created = [await runtime.create_run(idempotency_key=secrets.token_hex(8)) for _ in range(setup.runs)]
        bearer = await credentials.bearer()
    return await append_for(
        setup.seconds,
        url=system.runtime_url,
        bearer=bearer,
        run_ids=[answer.run.run_id for answer in created],
        connections=setup.connections,
        body=batch_of(setup.batch_events, setup.payload_bytes),
    )


def check_answers(answers: Sequence[Answer], rows: Iterable[tuple[str, str]]) -> None:
    """Compare what was acknowledged with the rows of the same runs, all of them.

    Args:
        answers: Every answer that these runs' producers got.
        rows: The journal, as ``journal_reader`` fetches it.

    Raises:
        SystemFailedError: Something acknowledged is not there, or twice, or under another chain; or
            something is there of which nobody was told.
    """
    acks = [
        AckLine(f"{answer.key}#{index}", ack.event_id, ack.topic, ack.seq, ack.chain)
        for answer in answers
        for index, ack in enumerate(answer.acks())
    ]
    journal = journal_of(rows)
    violations = [*check_journal(journal), *check_acks(acks, journal, source="API")]
    if violations:
        raise SystemFailedError(f"{len(violations)} violations: {violations[0]}")
    # One event of each topic is older than the load: run.started.
    unexpected = sum(len(lines) - 1 for lines in journal.topics.values()) - len(acks)
    if unexpected:
        raise SystemFailedError(f"{unexpected} events are in the journal of which nobody was told")


def _run_reference(setup: AppendSetup, system: SystemUnderTest, folder: Path) -> ReferenceMeasurement:
    before = system.cpu_times()
    result = run_pgbench(
        system,
        folder,
        seconds=setup.seconds,
        writers=WRITERS,
        topics_per_writer=max(1, setup.runs // WRITERS),
        events=setup.batch_events,
        payload_bytes=setup.payload_bytes,
    )
    return ReferenceMeasurement(result, system.cpu_times().since(before).postgres_s)


def _result(
    setup: AppendSetup,
    api: Sequence[ApiMeasurement],
    reference: Sequence[ReferenceMeasurement],
    environment: dict[str, object],
) -> dict[str, object]:
    ratios = [
        ours.events_per_s / theirs.result.events_per_s for ours, theirs in zip(api, reference, strict=True)
    ]
    rate = Spread.of([run.events_per_s for run in api])
    return {
        "benchmark": "append",
        "unit": "events/s",
        "environment": environment,
        "target": {"events_per_s": TARGET_EVENTS_PER_S, "is_met": rate.median >= TARGET_EVENTS_PER_S},
        "results": [
            {
                **attrs.asdict(setup),
                "writers": WRITERS,
                "ratio_to_pgbench": Spread.of(ratios).as_json(),
                "api": {
                    "events_per_s": rate.as_json(),
                    "latency_ms": Spread.of([run.latency_ms for run in api]).as_json(),
                    "latency_p99_ms": Spread.of([run.latency_p99_ms for run in api]).as_json(),
                    "wall_s": Spread.of([run.seconds for run in api]).as_json(),
                    "cpu_up_s": Spread.of([run.cpu.up_s for run in api]).as_json(),
                    "cpu_postgres_s": Spread.of([run.cpu.postgres_s for run in api]).as_json(),
                    "cpu_client_s": Spread.of([run.client_cpu_s for run in api]).as_json(),
                    "acks_checked": sum(run.acks for run in api),
                },
                "pgbench": {
                    "events_per_s": Spread.of([run.result.events_per_s for run in reference]).as_json(),
                    "wall_s": Spread.of([run.result.seconds for run in reference]).as_json(),
                    "cpu_postgres_s": Spread.of([run.postgres_cpu_s for run in reference]).as_json(),
                    "cpu_client_s": Spread.of([run.result.cpu_s for run in reference]).as_json(),
                },
            }
        ],
    }
