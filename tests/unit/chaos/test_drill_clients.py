"""What drills say of clients that the stage does not know: the crowd, and those of a storm."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, cast

import pytest

from chaos.checker import Journal
from chaos.drills.client_setup import CrowdSetup
from chaos.drills.committed import Committed, frame_of
from chaos.drills.crowd_process import CrowdProcess
from chaos.drills.leaving import DRAIN_LIMIT_S, READINESS_LIMIT_S, Left
from chaos.drills.statement_log import StatementLog
from chaos.drills.storm import RefusalCost, most_in_a_second
from chaos.drills.storm_clients import Happening, StormClients, StormSetup
from khala_contracts.codec import EntryTemplate
from tests.unit.chaos.histories import TOPIC, history

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def crc_of(seq: int) -> int:
    """Return what stands for the CRC of the frame at a position."""
    return 1_000 + seq


def committed(events: int = 5) -> Committed:
    """Return a topic of so many events, committed one second apart."""
    lines = history(events=events)
    times = {(line.topic, line.seq): 100.0 + line.seq for line in lines}
    return Committed(Journal.of(lines), times, {key: crc_of(key[1]) for key in times})


def storm_of(folder: Path, *frames: tuple[int, int, int]) -> StormClients:
    """Return two clients of one topic that have written (connection, CRC, seq), as files without a program."""
    setup = StormSetup(
        name="client",
        folder=folder,
        profile="",
        topics=[TOPIC, TOPIC],
        node_url="ws://127.0.0.1:1/",
        lineage="lin",
        seed=1,
    )
    setup.file("frames").write_bytes(
        b"".join(struct.pack("<IIqq", c, crc, seq, 10**9) for c, crc, seq in frames)
    )
    clients = StormClients.__new__(StormClients)
    clients._setup = setup
    return clients


def test_whoever_has_everything_from_where_it_began(tmp_path: Path) -> None:
    """A piece of the journal to its head is no violation, wherever it begins."""
    frames = [(connection, crc_of(seq), seq) for connection in (0, 1) for seq in (3, 4, 5)]
    assert storm_of(tmp_path, *frames).check_histories(committed()) == []


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        ([(0, crc_of(3), 3), (0, crc_of(5), 5)], "gap"),
        ([(0, crc_of(4), 4), (0, crc_of(5), 5), (0, crc_of(5), 5)], "duplicate"),
        ([(0, crc_of(3), 3), (0, crc_of(4), 4)], "loss"),
        ([(0, crc_of(4), 4), (0, crc_of(4), 5)], "content"),
        ([(0, crc_of(5), 5), (0, crc_of(6), 6)], "foreign"),
        ([], "loss"),
    ],
)
def test_what_is_wrong_with_a_client_of_a_storm(
    frames: list[tuple[int, int, int]], rule: str, tmp_path: Path
) -> None:
    """A gap, a repeat, an end before the head, other bytes, and what nobody committed are all found."""
    whole = [(1, crc_of(seq), seq) for seq in (4, 5)]
    violations = storm_of(tmp_path, *frames, *whole).check_histories(committed())
    assert rule in {violation.rule for violation in violations}
    assert {violation.source for violation in violations} == {"client-0"}


@pytest.mark.parametrize("payload_bytes", [0, 1, 100, 200, 70_000])
def test_the_frame_of_an_entry(payload_bytes: int) -> None:
    """Clients see frames without the tag and length that an entry of the journal begins with."""
    entry = EntryTemplate(TOPIC).entry(7, "output", b"x" * payload_bytes, 1)
    frame = frame_of(entry)
    assert entry.endswith(frame)
    assert frame.startswith(b"\x0a" + bytes([len(TOPIC)]) + TOPIC.encode())
    assert zlib.crc32(frame) != zlib.crc32(entry)


def test_deliveries_since() -> None:
    """Latency is from commit to receipt, of what was committed from then on; the unknown is left out."""
    found = committed().deliveries([(TOPIC, 2, 102.5), (TOPIC, 5, 105.25), ("other", 1, 9.0)], since_s=103.0)
    assert (found.committed_at_s, found.latencies_s) == ([105.0], [0.25])


def test_what_became_of_a_crowd(tmp_path: Path) -> None:
    """Who is live, how long whoever was not, and how many came to a node in a second."""
    setup = CrowdSetup(name="crowd", folder=str(tmp_path), profile="", topics=(TOPIC,), clients=2)
    notices: list[dict[str, object]] = [
        {"notice": "connected", "at_s": 10.0, "client": 0, "node_id": "node-1"},
        {"notice": "live", "at_s": 10.1, "client": 0},
        {"notice": "connected", "at_s": 10.9, "client": 1, "node_id": "node-1"},
        {"notice": "live", "at_s": 11.0, "client": 1},
        {"notice": "disconnected", "at_s": 12.0, "client": 1, "code": "draining", "retry_in_s": 0.0},
        {"notice": "disconnected", "at_s": 12.2, "client": 1, "code": "unavailable", "retry_in_s": 0.3},
    ]
    setup.file("notices.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in notices))
    crowd = CrowdProcess(setup, cast("subprocess.Popen[bytes]", None))
    crowd.look()
    assert crowd.is_live == {0: True, 1: False}
    assert crowd.absences_s() == []
    assert crowd.connects_per_s(since_s=10.5) == {"node-1": {10: 1}}
    with setup.file("notices.jsonl").open("a") as file:
        file.write(json.dumps({"notice": "live", "at_s": 13.0, "client": 1}) + "\n")
    crowd.look()
    assert crowd.is_live == {0: True, 1: True}
    assert crowd.absences_s() == [1.0]


@pytest.mark.parametrize(
    ("not_ready_after_s", "not_ready_status", "seconds", "status", "is_orderly"),
    [
        (READINESS_LIMIT_S, 503, DRAIN_LIMIT_S, 0, True),
        (READINESS_LIMIT_S + 0.01, 503, 2.0, 0, False),
        (0.1, 503, DRAIN_LIMIT_S + 0.01, 0, False),
        (0.1, 503, 2.0, 1, False),
        (0.1, 0, 2.0, 0, False),
        (0.1, 0, READINESS_LIMIT_S, 0, True),
        (0.1, 0, READINESS_LIMIT_S + 0.01, 0, False),
        (0.1, 500, 0.2, 0, False),
    ],
)
def test_an_orderly_leave(
    not_ready_after_s: float, not_ready_status: int, seconds: float, status: int, is_orderly: bool
) -> None:
    """OPS-12: not ready within a second, in words or because it is gone, and gone with status 0 in time."""
    left = Left("node-1", not_ready_after_s, not_ready_status, seconds, status, 0.0)
    assert left.is_orderly is is_orderly


def test_the_busiest_second_begins_anywhere() -> None:
    """Two seconds of the clock may share what came in one second."""
    assert most_in_a_second([0.0, 0.9, 0.95, 1.0, 1.05, 1.8, 3.0]) == 5
    assert most_in_a_second([0.0, 1.0]) == 1
    assert most_in_a_second([]) == 0


def test_the_mean_cost_of_a_storms_refusals() -> None:
    """Each as it was: three bare ones and one in words."""
    refusals = [Happening(0, "refused", 0.0, 100, is_told=told) for told in (False, False, False, True)]
    assert RefusalCost(bare_ms=0.2, told_ms=0.6).mean_ms(refusals) == pytest.approx(0.3)


def test_statements_of_a_role(tmp_path: Path) -> None:
    """Executions are counted by their first line, once each; other roles and unfinished lines are not."""
    file = tmp_path / "postgres.log"
    line = "2026-11-21 22:00:00.000 UTC [7] user={} LOG:  execute __asyncpg_stmt_3__: {}\n"
    file.write_text(line.format("khala_reader", "SELECT before"))
    log = StatementLog(file, "khala_reader", file.stat().st_size)
    with file.open("a") as output:
        output.write(line.format("khala_reader", "-- Heads of topics."))
        output.write("\tSELECT 1\n")
        output.write(line.format("khala_runtime", "SELECT append_v1()"))
        output.write("2026-11-21 22:00:00.000 UTC [7] user=khala_reader LOG:  statement: SELECT 2\n")
        output.write(line.format("khala_reader", "-- Heads of topics."))
        output.write("2026-11-21 22:00:00.000 UTC [7] user=khala_reader LOG:  statement: SELE")
    assert log.read() == {"-- Heads of topics.": 2, "SELECT 2": 1}
    with file.open("a") as output:
        output.write("CT 3\n")
    assert log.read() == {"SELECT 3": 1}
