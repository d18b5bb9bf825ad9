"""Unit tests of khala.cli.verify without a server: files and stores. Against one: tests/e2e/test_verify.py."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from khala.cli.main import main
from khala_client.core.cursor import Cursor
from khala_client.events import Event
from khala_client.history_export import HistoryExport
from khala_client.store import SqliteStore
from khala_contracts.chain import chain_start
from khala_contracts.topics import Lineage, Seq
from tests.unit.khala_client.node_model import LINEAGE, LogModel, topic_number

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = topic_number(1)


def events_of(count: int) -> list[Event]:
    """A history."""
    log = LogModel(TOPIC)
    log.append(count)
    return [Event.from_frame(frame, chain=log.chains[frame.seq]) for frame in log.frames]


def export_to(path: Path, count: int) -> list[str]:
    """Write an export; return its lines."""
    with path.open("w") as file:
        export = HistoryExport(file, chain_before=chain_start(TOPIC))
        for event in events_of(count):
            export.add(event)
        export.finish()
    return path.read_text().splitlines()


def store_at(path: Path, count: int, *, namespace: str = "usr/dev") -> None:
    """Keep a history in a store."""
    with closing(SqliteStore.open(path, namespace=namespace)) as store:
        store.begin(Cursor(TOPIC, Seq(0), Lineage(LINEAGE), chain_start(TOPIC)))
        store.commit(events_of(count))


def run(*arguments: str) -> int:
    """Run the command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["verify", TOPIC, *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def verdicts(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What it printed."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_file_that_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0, and what was proven; a run's id names its topic."""
    path = tmp_path / "history.jsonl"
    export_to(path, 4)
    assert run("--file", str(path), "--json") == 0
    (verdict,) = verdicts(capsys)
    chain = events_of(4)[-1].chain.hex()
    facts = {
        "verified": True,
        "events": 4,
        "erased": 0,
        "head_seq": "4",
        "chain": chain,
        "is_end_known": True,
    }
    assert facts.items() <= verdict.items()
    assert run("--file", str(path)) == 0
    assert f"4 events, 0 of 4 erased, chain ok, head 4 {chain}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("harm", "bad_seq"),
    [
        (lambda lines: [*lines[:2], lines[2].replace('"kind":"thought"', '"kind":"action"'), lines[3]], "3"),
        (lambda lines: [lines[0], *lines[2:]], "2"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "2"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "2"),
        (lambda lines: lines[:3], "4"),
        (lambda lines: [*lines[:3], lines[3][:50]], "4"),
    ],
    ids=["tampered", "missing", "reordered", "duplicated", "truncated", "half a line"],
)
def test_a_file_that_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Any, bad_seq: str
) -> None:
    """Exit status 1, and the first bad seq."""
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(harm(export_to(path, 4))))
    assert run("--file", str(path), "--json") == 1
    (verdict,) = verdicts(capsys)
    assert (verdict["verified"], verdict["bad_seq"]) == (False, bad_seq)
    assert run("--file", str(path)) == 1
    assert f"seq {bad_seq}:" in capsys.readouterr().out


def test_an_end_that_nobody_states_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain history holds, and says that its tail may be missing, and where it begins."""
    path = tmp_path / "history.jsonl"
    lines = [json.loads(line) for line in export_to(path, 5)]
    plain = [{k: v for k, v in line.items() if k not in {"head", "chain_before"}} for line in lines[2:]]
    path.write_text("\n".join(json.dumps(line) for line in plain))
    assert run("--file", str(path)) == 0
    said = capsys.readouterr().err
    assert "later events may be missing" in said
    assert "begins at seq 3" in said


def test_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody's history in it, each by itself."""
    path = tmp_path / "store.db"
    store_at(path, 3)
    store_at(path, 5, namespace="usr/other")
    assert run("--store", str(path), "--json") == 0
    found = [(verdict["source"], verdict["events"]) for verdict in verdicts(capsys)]
    assert found == [(f"{path} (usr/dev)", 3), (f"{path} (usr/other)", 5)]


@pytest.mark.parametrize(
    ("statement", "bad_seq"),
    [
        ("UPDATE frames SET payload = CAST('x' AS BLOB) WHERE seq = 2", "2"),
        ("UPDATE frames SET payload = 'text' WHERE seq = 2", "2"),
        ("DELETE FROM frames WHERE seq = 2", "2"),
        ("DELETE FROM frames WHERE seq = 4", "4"),
        ("UPDATE cursors SET seq = 5", "5"),
    ],
)
def test_a_store_that_was_tampered_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str, bad_seq: str
) -> None:
    """Also where it only says another position than its events."""
    path = tmp_path / "store.db"
    store_at(path, 4)
    with closing(SqliteStore.open(path, namespace="x")) as store:
        store._connection.execute(statement)
    assert run("--store", str(path), "--json") == 1
    assert verdicts(capsys)[0]["bad_seq"] == bad_seq


def test_nothing_of_the_topic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty file, another topic's store: status 1, in words."""
    path = tmp_path / "empty"
    path.touch()
    assert run("--file", str(path)) == 1
    assert "nothing of this topic" in capsys.readouterr().out
    store_at(tmp_path / "store.db", 1)
    with pytest.raises(SystemExit) as ended:
        main(["verify", topic_number(2), "--store", str(tmp_path / "store.db")])
    assert ended.value.code == 1
    assert "keeps nothing" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--file", "--store"), ("--file", "--export"), ("--store", "--export")])
def test_options_that_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    """One source, and an export of what the authority has only."""
    path = tmp_path / "file"
    path.touch()
    assert run(*[part for option in options for part in (option, str(path))]) == 2
    assert "Usage" in capsys.readouterr().err
