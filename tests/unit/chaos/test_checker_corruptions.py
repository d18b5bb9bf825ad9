"""Whatever is spoilt in the transcripts of a whole run, the checker's command says so, by the right rule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chaos.checker import main
from tests.unit.chaos.histories import OTHER_TOPIC, TOPIC, acks_of, history, write_acks, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Record = dict[str, Any]
Records = dict[str, list[Record]]

FOREIGN_TOPIC = "run:run_00000000000000000000000009:events"
BEGAN_S = 1_000.0
HARM_S = (1_002.0, 1_004.0)
NOTHING = "00" * 32


def whole_run(folder: Path) -> Records:
    """Write what a run without a fault leaves behind; return it by file."""
    ours, theirs, foreign = (
        history(topic, [("output", f"{topic} {number}".encode()) for number in range(5)])
        for topic in (TOPIC, OTHER_TOPIC, FOREIGN_TOPIC)
    )
    write_lines(folder / "journal", [*ours, *theirs, *foreign])
    write_lines(folder / "ann", [*ours, *theirs])
    write_lines(folder / "bob", theirs)
    write_acks(folder / "acks", acks_of([*ours, *theirs]))
    records = {name: _read(folder / name) for name in ("journal", "ann", "bob", "acks")}
    for name in ("ann", "bob"):
        for number, record in enumerate(records[name]):
            record["at_s"] = BEGAN_S + number / 10
    records["rights"] = [
        {"client": "ann", "topic": TOPIC},
        {"client": "ann", "topic": OTHER_TOPIC, "from_s": BEGAN_S},
        # Taken away after the last event and before the leeway ends.
        {"client": "bob", "topic": OTHER_TOPIC, "until_s": BEGAN_S + 0.3},
    ]
    records["closes"] = [
        _close("ann", 4000, go_away=True),
        _close("ann", 4001, error="slow_consumer"),
        _close("bob", 4501, error="reauth_required"),
        _close("bob", 1000, by_client=True),
        _close("ann", 1006, at_s=HARM_S[0] + 1),
        _close("bob", 1002),
    ]
    records["samples"] = [
        {"source": "node-1", "name": "window_bytes", "value": value, "at_s": BEGAN_S}
        for value in (10, 90, 20)
    ]
    return records


def _read(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _close(client: str, code: int, **facts: object) -> Record:
    return {"client": client, "connection": "c1", "code": code, "at_s": BEGAN_S, **facts}


def judge(folder: Path, records: Records) -> int:
    """Write the files and judge them as the command does."""
    for name, lines in records.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = {name: str(folder / name) for name in records}
    return main(
        [
            "--journal", file["journal"], "--history", f"ann={file['ann']}", "--history", f"bob={file['bob']}",
            "--complete", "--after=0", "--topic", OTHER_TOPIC, "--acks", file["acks"], "--keyed-kind=output",
            "--rights", file["rights"], "--closes", file["closes"], f"--fault={HARM_S[0]}:{HARM_S[1]}",
            "--samples", file["samples"], "--bound=window_bytes=100",
        ]
    )  # fmt: skip


def set_at(file: str, index: int, **facts: object) -> Callable[[Records], object]:
    """Return a corruption that changes members of one line."""
    return lambda records: records[file][index].update(facts)


def without(file: str, index: int) -> Callable[[Records], object]:
    """Return a corruption that takes a line away."""
    return lambda records: records[file].pop(index)


def again(file: str, index: int, place: int) -> Callable[[Records], object]:
    """Return a corruption that puts a line somewhere once more."""
    return lambda records: records[file].insert(place, dict(records[file][index]))


def swapped(file: str, one: int, other: int) -> Callable[[Records], object]:
    """Return a corruption that exchanges two lines."""

    def swap(records: Records) -> None:
        lines = records[file]
        lines[one], lines[other] = lines[other], lines[one]

    return swap


def added(file: str, record: Record) -> Callable[[Records], object]:
    """Return a corruption that adds a line."""
    return lambda records: records[file].append(record)


def leaked(records: Records) -> None:
    """Bob holds the true events of a topic that was never his."""
    records["bob"] += [
        {**line, "at_s": BEGAN_S} for line in records["journal"] if line["topic"] == FOREIGN_TOPIC
    ]


CORRUPTIONS: dict[str, tuple[Callable[[Records], object], str]] = {
    "an event was not applied": (without("ann", 2), "gap"),
    "an event was applied twice": (again("ann", 2, 3), "duplicate"),
    "an event was applied again, later": (again("ann", 1, 5), "order"),
    "two events changed places": (swapped("ann", 1, 2), "order"),
    "the end is missing": (without("bob", -1), "loss"),
    "the beginning is missing": (without("bob", 0), "loss"),
    "a client holds nothing of what it follows": (lambda records: records["bob"].clear(), "loss"),
    "an event nobody committed": (
        lambda records: records["bob"].append({**records["bob"][-1], "seq": "6"}),
        "foreign",
    ),
    "an event with another payload": (set_at("ann", 3, payload_sha256=NOTHING), "content"),
    "an event with another kind": (set_at("ann", 3, kind="thought"), "content"),
    "an event with another chain": (set_at("ann", 3, chain=NOTHING), "chain"),
    "the journal has a hole": (without("journal", 2), "gap"),
    "the journal was rewritten": (set_at("journal", 1, payload_sha256=NOTHING), "chain"),
    "an acknowledged event is not there": (set_at("acks", 4, seq="6"), "lost_ack"),
    "a key was applied at two places": (
        lambda records: records["acks"][1].update(key=records["acks"][0]["key"]),
        "applied_twice",
    ),
    "a payload is there under two keys": (
        lambda records: records["journal"][1].update(payload_sha256=records["journal"][0]["payload_sha256"]),
        "applied_twice",
    ),
    "a topic that was never granted": (leaked, "unauthorised"),
    "an event after the right was gone": (set_at("bob", 4, at_s=BEGAN_S + 1.4), "unauthorised"),
    "an event before the right was given": (set_at("ann", 5, at_s=BEGAN_S - 1), "unauthorised"),
    "a close code that nobody knows": (added("closes", _close("ann", 4242)), "unknown_close"),
    "a server that closes without a reason": (added("closes", _close("ann", 1000)), "unknown_close"),
    "a close that nothing announced": (set_at("closes", 1, error=None), "unannounced_close"),
    "a go_away before a close that is no drain": (
        added("closes", _close("ann", 4004, go_away=True)),
        "unannounced_close",
    ),
    "a close of another family than its error": (set_at("closes", 1, code=4501), "wrong_close"),
    "an error that closes nothing": (set_at("closes", 1, error="seq_conflict"), "wrong_close"),
    "a connection lost while all was well": (set_at("closes", 4, at_s=HARM_S[1] + 1), "unexplained_close"),
    "a client that came back although told not to": (set_at("closes", 2, resumed=True), "returned"),
    "a window above its bound": (set_at("samples", 1, value=100.5), "memory"),
    "a bound that nobody measured": (lambda records: records["samples"].clear(), "unmeasured"),
}


def test_a_run_that_kept_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of evidence is judged, and none of it is wrong: also on each bound itself."""
    records = whole_run(tmp_path)
    records["samples"][1]["value"] = 100
    records["bob"][4]["at_s"] = BEGAN_S + 0.3 + 1.0
    records["closes"][4]["at_s"] = HARM_S[1]
    assert judge(tmp_path, records) == 0
    assert capsys.readouterr().out == (
        "0 violations; 15 events, 3 topics, 2 histories, 1 acknowledgement files, 6 closes, 3 samples, 3 rights\n"
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_is_caught(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and a line that begins with the rule."""
    corrupt, rule = CORRUPTIONS[name]
    records = whole_run(tmp_path)
    corrupt(records)
    assert judge(tmp_path, records) == 1
    rules = {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[:-1]}
    assert rule in rules
