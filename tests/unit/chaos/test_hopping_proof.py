"""Unit tests of chaos.load.hopping_proof: what the file says, and that a broken history cannot look whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chaos.checker import History, Journal
from chaos.load.hopping_proof import proof_lines, write_proof
from tests.unit.chaos.histories import OTHER_TOPIC, TOPIC, history

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.checker import Line


def proof(journal: list[Line], **clients: list[Line]) -> list[dict[str, Any]]:
    """Return the objects of a proof."""
    histories = [History(source=name, lines=lines) for name, lines in clients.items()]
    return [json.loads(line) for line in proof_lines(Journal.of(journal), histories)]


def test_the_journal_and_who_holds_it() -> None:
    """A line for each event with its hash, and one for each client and topic with that of its last event."""
    one, other = history(TOPIC, 3), history(OTHER_TOPIC, 2)
    # Applied in turn, as two topics of one connection are.
    applied = [one[0], other[0], one[1], one[2], other[1]]
    lines = proof([*one, *other], ann=applied)
    assert [(row["journal"], row["seq"]) for row in lines[:5]] == [
        (TOPIC, "1"), (TOPIC, "2"), (TOPIC, "3"), (OTHER_TOPIC, "1"), (OTHER_TOPIC, "2"),
    ]  # fmt: skip
    hashes = {(row["journal"], row["seq"]): row["hash"] for row in lines[:5]}
    assert lines[5:] == [
        {"client": "ann", "topic": topic, "from_seq": "1", "through_seq": seq, "hash": hashes[topic, seq]}
        for topic, seq in ((TOPIC, "3"), (OTHER_TOPIC, "2"))
    ]


def test_a_gap_shows() -> None:
    """Two runs instead of one: nobody can take them for a whole history."""
    lines = history(TOPIC, 5)
    runs = [row for row in proof(lines, ann=[lines[0], lines[1], lines[3]]) if "client" in row]
    assert [(row["from_seq"], row["through_seq"]) for row in runs] == [("1", "2"), ("4", "4")]


def test_a_repeat_shows() -> None:
    """An event that was applied twice begins a run of its own."""
    lines = history(TOPIC, 2)
    runs = [row for row in proof(lines, ann=[lines[0], lines[0], lines[1]]) if "client" in row]
    assert [(row["from_seq"], row["through_seq"]) for row in runs] == [("1", "1"), ("1", "2")]


def test_the_file(tmp_path: Path) -> None:
    """One object a line."""
    file = tmp_path / "proof.jsonl"
    lines = history(TOPIC, 3)
    write_proof(file, Journal.of(lines), [History(source="ann", lines=lines)])
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 4
