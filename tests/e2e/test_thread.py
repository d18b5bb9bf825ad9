"""The thread of the product: a run is imported live, everything is killed, nothing is lost."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from chaos.checker import Journal, Line, check_history, check_journal, read_lines
from khala_client.history import format_history_lines
from khala_client.profiles import ProfileDirectory
from khala_client.recordings import parse_recording
from khala_client.store import SqliteStore
from khala_contracts.codec import decode_entries
from khala_contracts.topics import format_run_events
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from tests.e2e.system import System, Tail, running_system, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs"
# Recorded agent runs that travel with some checkouts; they are tried where they are, never copied.
SHARED_RUNS = sorted((Path(__file__).parents[2].parent / "shared/data/agent_runs").glob("*.traj"))


def read_journal(system: System, run_id: str) -> Journal:
    """Read the authority's own rows, past every service."""
    password = (system.data_dir / "secrets" / "postgres_khala_reader").read_text().strip()
    pid_lines = (system.data_dir / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
    dsn = f"postgresql://khala_reader:{password}@127.0.0.1:{pid_lines[3]}/khala"

    async def read() -> list[Any]:
        async with open_asyncio_loop(), open_pool(dsn, application_name="test", max_size=1) as pool:
            return await pool.fetch(
                "SELECT entry, chain FROM runtime.journal WHERE topic = $1 ORDER BY seq",
                f"run:{run_id}:events",
            )

    lines = []
    for row in trio.run(read):
        (frame,) = decode_entries(row["entry"])
        lines.append(
            Line(
                frame.topic,
                frame.seq,
                frame.kind,
                frame.schema_version,
                sha256(frame.payload).digest(),
                row["chain"],
            )
        )
    return Journal.of(lines)


def stored_history(system: System, store: Path, run_id: str) -> list[Line]:
    """Return what a tail has applied and kept, as the checker reads it."""
    namespace = ProfileDirectory(system.data_dir / "profile").load().namespace
    with closing(SqliteStore.open(store, namespace=namespace)) as opened:
        events = list(opened.read_history(format_run_events(run_id)))
    path = store.with_suffix(".history")
    path.write_text("".join(f"{line}\n" for line in format_history_lines(events)))
    return list(read_lines(path))


def printed_history(lines: Sequence[dict[str, Any]]) -> list[Line]:
    """Return the events that a tail printed, as the checker reads them."""
    return [
        Line(
            topic=line["topic"],
            seq=int(line["seq"]),
            kind=line["kind"],
            schema_version=int(line["schema_version"]),
            payload_sha256=bytes.fromhex(line["payload_sha256"]),
            chain=bytes.fromhex(line["chain"]),
        )
        for line in lines
    ]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system that the quiet tests of this module share."""
    with running_system(tmp_path_factory.mktemp("thread")) as started:
        yield started


def list_runs(system: System) -> list[dict[str, Any]]:
    """Return every run that the development user sees."""
    return [json.loads(line) for line in system.run("runs", "--json").stdout.splitlines()]


def import_run(system: System, path: Path, *arguments: str) -> str:
    """Import a file; return the id of its run."""
    return system.run("import", str(path), *arguments).stdout.split()[-1]


@pytest.mark.parametrize(
    "path", [*sorted(FIXTURES.glob("*.jsonl")), *SHARED_RUNS], ids=lambda path: path.stem
)
def test_every_recorded_run_comes_out_whole_and_verified(system: System, path: Path) -> None:
    """Every step of a recording is tailed in order, with the chain verified at the end."""
    run_id = import_run(system, path)
    tail = system.tail(f"whole-{path.stem}", run_id, "--from", "beginning", "--verify", "--until-finished")
    assert tail.finish() == 0
    events = tail.events()
    recorded = parse_recording(path.read_bytes()).events
    assert [event["kind"] for event in events] == [
        "run.started",
        *(event.kind for event in recorded),
        "run.finished",
    ]
    end = tail.lines()[-1]
    assert (end["type"], end["verified"]) == ("end", True)
    journal = read_journal(system, run_id)
    assert check_journal(journal) == []
    held = printed_history(events)
    assert check_history(held, journal, source="tail", is_complete=True, after_seq=0) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"kind": "thought", "data": {"text": "a"}}\n{"kind": "thou', "line 2"),
        ('{"trajectory": [{"thought": "x", "action": 3}]}', "line 1"),
        ("", ""),
    ],
    ids=["cut", "wrong type", "empty"],
)
def test_a_broken_file_leaves_no_run_half_made(
    system: System, tmp_path: Path, content: str, line: str
) -> None:
    """A broken recording is refused with line and reason, and no run exists afterwards."""
    before = list_runs(system)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(content)
    done = system.run("import", str(broken), check=False)
    assert done.returncode == 1
    assert "broken.jsonl" in done.stderr
    assert line in done.stderr
    assert list_runs(system) == before


def test_record_streams_a_real_process_and_its_exit_ends_the_run(system: System) -> None:
    """``khala record`` passes the exit status on, and the run says it."""
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = system.run("record", "--name", "fails", "--", sys.executable, "-c", program, check=False)
    assert done.returncode == 3
    assert (done.stdout, "err" in done.stderr) == ("out\n", True)
    (run,) = [run for run in list_runs(system) if run["name"] == "fails"]
    assert run["state"] == "failed"
    tail = system.tail("fails", run["run_id"], "--until-finished")
    assert tail.finish() == 0
    finished = tail.events()[-1]
    assert (finished["kind"], finished["data"]["exit_status"]) == ("run.finished", 3)
    texts = {event["data"]["text"] for event in tail.events() if event["kind"] == "output"}
    assert texts == {"out\n", "err\n"}


def test_everything_is_killed_and_every_tail_ends_with_the_journal(tmp_path: Path) -> None:
    """Kill -9 of a tail and of the whole system during a live import loses and repeats nothing.

    Three tails follow an import at real speed: one is killed and resumes from its store, one asked
    for ``now``, one stays. Then ``khala up`` is killed, started again on the same directory, and the
    import is repeated.
    """
    recording = FIXTURES / "missing-colon.jsonl"
    with running_system(tmp_path) as system:
        run_id = start_run(system, recording)
        stays = tmp_path / "stays.db"
        dies = tmp_path / "dies.db"
        staying = system.tail("stays", run_id, "--store", str(stays), "--until-finished")
        dying = system.tail("dies", run_id, "--store", str(dies), "--until-finished")
        from_now = system.tail("now", run_id, "--from", "now", "--until-finished")
        importing = system.start_command(*import_command(recording, speed=0.5))
        dying.wait_for(4)
        dying.kill()
        resumed = system.tail("dies", run_id, "--store", str(dies), "--until-finished")
        staying.wait_for(7)
        from_now.wait_for(1)
        system.kill()
        held_before = len(read_until_killed(staying))
        importing.kill()
        importing.communicate(timeout=10)

        system.start()
        repeated = system.run(*import_command(recording, speed=None))
        assert run_id in repeated.stdout
        assert [staying.finish(), resumed.finish(), from_now.finish()] == [0, 0, 0]

        journal = read_journal(system, run_id)
        assert check_journal(journal) == []
        recorded = [event.kind for event in parse_recording(recording.read_bytes()).events]
        kinds = [line.kind for line in journal.topics[format_run_events(run_id)]]
        assert kinds == ["run.started", *recorded, "run.finished"]
        assert held_before >= 7
        for name, store in (("stays", stays), ("dies", dies)):
            held = stored_history(system, store, run_id)
            assert held[0].seq == 1
            assert check_history(held, journal, source=name, is_complete=True) == []
        again = system.tail("again", run_id, "--store", str(stays), "--verify", "--until-finished")
        assert again.finish() == 0
        (end,) = (line for line in again.lines() if line["type"] == "end")
        assert (again.events(), end["verified"], int(end["through_seq"])) == ([], True, len(kinds))
        printed = printed_history(from_now.events())
        assert check_history(printed, journal, source="now", is_complete=True) == []
        assert (
            check_history(printed_history(staying.events()), journal, source="stays", is_complete=True) == []
        )


def start_run(system: System, recording: Path) -> str:
    """Make the run of an import that begins, so that tails can be there from its first event."""
    importing = system.start_command(*import_command(recording, speed=0.05))
    found: list[str] = []

    def is_there() -> bool:
        found.extend(run["run_id"] for run in list_runs(system))
        return bool(found)

    wait_until(is_there, timeout_s=30, what="the run")
    importing.kill()
    importing.communicate(timeout=10)
    return found[0]


def import_command(recording: Path, *, speed: float | None) -> list[str]:
    """Return the arguments of an import."""
    pace = [] if speed is None else ["--speed", str(speed)]
    return ["import", str(recording), *pace]


def read_until_killed(tail: Tail) -> list[dict[str, Any]]:
    """Return what a tail had printed by now."""
    return tail.events()
