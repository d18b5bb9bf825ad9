"""``khala verify`` on a real system: against the authority, and of what it and other commands left behind."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from chaos.checker import Journal, check_journal
from chaos.transcripts import read_lines
from khala_client.profiles import ProfileDirectory
from khala_client.store import SqliteStore
from khala_contracts.topics import format_run_events
from tests.e2e.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.system import System

pytestmark = pytest.mark.slow

RECORDING = "tests/fixtures/runs/missing-colon.jsonl"


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """Writes to the database behind the services' backs."""
    with Ledger.open(system) as opened:
        yield opened


@pytest.fixture(scope="module")
def run_id(system: System) -> str:
    """A recorded run."""
    return system.run("import", RECORDING).stdout.strip()


def verify(system: System, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Run the command; return its verdict."""
    done = system.run("verify", *arguments, "--json", check=False)
    assert done.returncode == status, (done.stdout, done.stderr)
    return dict(json.loads(done.stdout))


def test_against_the_authority_and_from_its_export(
    system: System, run_id: str, ledger: Ledger, tmp_path: Path
) -> None:
    """Everything is read and proven; the export proves itself later, also to the checker."""
    topic = format_run_events(run_id)
    (head,) = ledger.rows(
        "SELECT head_seq, encode(head_chain, 'hex') AS chain FROM runtime.topic_heads WHERE topic = $1", topic
    )
    export = tmp_path / "history.jsonl"
    online = verify(system, run_id, "--export", str(export))
    count = head["head_seq"]
    assert count > 3
    assert (online["verified"], online["events"], online["erased"]) == (True, count, 0)
    assert (online["head_seq"], online["chain"]) == (str(count), head["chain"])
    assert export.stat().st_mode & 0o777 == 0o600
    offline = verify(system, topic, "--file", str(export))
    same = ("verified", "events", "head_seq", "chain", "is_end_known")
    assert {name: offline[name] for name in same} == {name: online[name] for name in same}
    assert check_journal(Journal.of(read_lines(export))) == []
    said = system.run("verify", run_id).stdout
    assert f"{count} events, 0 of {count} erased, chain ok, head {count} {head['chain']}" in said.replace(
        "\n", " "
    )


def test_what_a_tail_left_behind(system: System, run_id: str, tmp_path: Path) -> None:
    """Its transcript and its store hold; one changed byte of either is named by its seq."""
    store, transcript = tmp_path / "store.db", tmp_path / "tail.jsonl"
    tailed = system.run("tail", run_id, "--store", str(store), "--until-finished", "--json").stdout
    transcript.write_text(tailed)
    lines = tailed.splitlines()
    events = [json.loads(line) for line in lines if '"type":"event"' in line]
    kept = verify(system, run_id, "--store", str(store))
    assert (kept["verified"], kept["events"]) == (True, len(events))
    followed = verify(system, run_id, "--file", str(transcript))
    assert (followed["verified"], followed["events"], followed["is_end_known"]) == (True, len(events), True)

    events[2]["data"]["text"] = "another"
    transcript.write_text("\n".join([*lines[:2], json.dumps(events[2]), *lines[3:]]))
    assert verify(system, run_id, "--file", str(transcript), status=1)["bad_seq"] == "3"

    topic = format_run_events(run_id)
    namespace = ProfileDirectory(system.data_dir / "profile").load().namespace
    with closing(SqliteStore.open(store, namespace=namespace)) as opened:
        opened._connection.execute(
            "UPDATE frames SET payload = payload || x'00' WHERE topic = ? AND seq = 4", (topic,)
        )
    assert verify(system, run_id, "--store", str(store), status=1)["bad_seq"] == "4"


def test_a_list_of_runs(system: System, run_id: str) -> None:
    """A topic that is no run's is followed from its floor to the head that the authority states."""
    profile = ProfileDirectory(system.data_dir / "profile").load()
    verdict = verify(system, f"user:{profile.user_id}:runs")
    assert run_id
    assert verdict["verified"]
    assert verdict["events"] >= 1


def test_an_authority_that_was_tampered_with(system: System, ledger: Ledger, tmp_path: Path) -> None:
    """Somebody changes a row of the log in the database: exit 1, the seq, and no export is left."""
    run_id = system.run("import", "tests/fixtures/runs/checks.jsonl").stdout.strip()
    topic = format_run_events(run_id)
    export = tmp_path / "history.jsonl"
    ledger.run("ALTER TABLE runtime.events DISABLE TRIGGER USER")
    ledger.run(
        "UPDATE runtime.events SET payload = payload || '\\x7a0178'::bytea WHERE topic = $1 AND seq = 3",
        topic,
    )
    ledger.run("ALTER TABLE runtime.events ENABLE TRIGGER USER")
    broken = verify(system, run_id, "--export", str(export), status=1)
    assert (broken["verified"], broken["bad_seq"]) == (False, "3")
    assert list(tmp_path.iterdir()) == []
    # Whoever has what was there before can still prove it.
    assert verify(system, system.run("import", RECORDING).stdout.strip())["verified"]
