"""Plans, claims, figures and pages of drills, without a system."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from chaos.checker import Violation
from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.kill import QUICK, KillPlan, plan_of
from chaos.drills.reports import VIOLATIONS_MAX, document_of, render, write_report
from chaos.drills.split_system import SplitSystem
from chaos.drills.taken_port import is_answering, taken_port
from chaos.drills.verdict import Deliveries, Verdict, percentile
from chaos.drills.waiting import DrillFailed, wait_until
from khala_service.failpoints import FAILPOINTS
from tests.ci.markdown import fenced_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT: Mapping[str, str | int | float] = {
    "python": "3.11",
    "system": "Linux",
    "machine": "x",
    "cpus": 2,
    "load_1m_before": 0.5,
}
CLIENT: Mapping[str, Any] = {
    "name": "follower-node-1",
    "applied": 10,
    "connections": 2,
    "disconnects": 1,
    "gaps": 0,
    "repeats": 0,
}
LOAD: Mapping[str, Any] = {
    "acknowledgements": 12,
    "keys": 10,
    "keys_sent_again": 2,
    "events_per_s": 199.0,
    "seconds": 5.0,
    "passes_judged": 3,
    "closes": 1,
    "samples": 8,
}
BROKEN = Violation("gap", "follower", "run:x:events", 7, "follows 5")
KEPT = Verdict(10, [], [], [CLIENT], LOAD, Deliveries.of([]))


# -- plans ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan", [QUICK, KillPlan(), plan_of(300, is_quick=False), plan_of(4, is_quick=False)]
)
def test_every_plan_does_every_fault(plan: KillPlan) -> None:
    """However short: each failpoint, any process at any instant, PostgreSQL, all nodes, the runtime left down."""
    assert {"random", "postgres", "left down", "all nodes", *FAILPOINTS} == set(plan.faults)


def test_the_usual_plan_is_the_promised_one() -> None:
    """Twenty between commit and hint, twenty in the middle of a frame, twenty anywhere, five of PostgreSQL."""
    faults = plan_of(None, is_quick=False).faults
    counts = [faults.count(fault) for fault in ("runtime.committed", "node.mid_frame", "random", "postgres")]
    assert counts == [20, 20, 20, 5]
    many = plan_of(300, is_quick=False)
    assert 298 <= many.committed + many.mid_frame + many.at_random + many.postgres <= 302


# -- claims ----------------------------------------------------------------------------------------------


def test_what_was_kept_is_claimed() -> None:
    """No differences, retries among the appends, no gap, the load as offered."""
    assert all(claim.is_met for claim in claims_of(KEPT, offered_per_s=200))


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        ({"broken_histories": [BROKEN]}, "applied history"),
        ({"broken_appends": [BROKEN]}, "acknowledged append"),
        ({"broken_rules": [BROKEN]}, "Nobody got what is not theirs"),
        ({"clients": [{**CLIENT, "gaps": 1}]}, "No gap"),
        ({"clients": [{**CLIENT, "repeats": 1}]}, "No gap"),
        ({"clients": [{**CLIENT, "applied": 0}]}, "applied history"),
        ({"load": {**LOAD, "events_per_s": 150.0}}, "The load"),
        ({"load": {**LOAD, "keys_sent_again": 0}}, "acknowledged append"),
    ],
)
def test_one_broken_promise_is_named(change: dict[str, Any], promise: str) -> None:
    """Also where nothing could be judged: a client that got nothing, a load without a retry."""
    broken = [
        claim for claim in claims_of(attrs.evolve(KEPT, **change), offered_per_s=200) if not claim.is_met
    ]
    assert [promise in claim.promise for claim in broken] == [True]


# -- figures ---------------------------------------------------------------------------------------------


def test_percentiles() -> None:
    """The value that this share does not exceed; nothing has none."""
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (
        51.0,
        100.0,
        100.0,
    )
    assert percentile([], 0.99) == 0.0
    assert delivery_facts("none", [])["max ms"] == 0.0


def test_deliveries_are_chosen_by_the_time_of_their_commit() -> None:
    """A window includes its begin and not its end."""
    deliveries = Deliveries.of([(3.0, 0.3), (1.0, 0.1), (2.0, 0.2)])
    assert deliveries.between(1.0, 3.0) == [0.1, 0.2]
    assert deliveries.between(3.0, 9.0) == [0.3]


# -- pages -----------------------------------------------------------------------------------------------


def document(outcome: Outcome) -> dict[str, Any]:
    """Return the document of an outcome."""
    return document_of(
        outcome,
        drill="kill",
        command="khala drill run kill --quick --seed 1",
        date="2026-11-21",
        seconds=61.2,
        environment=ENVIRONMENT,
    )


def test_a_page_says_what_was_done_and_found(tmp_path: Path) -> None:
    """The command, each promise, each table; the figures lie beside it."""
    outcome = Outcome(
        [Claim("Nothing is lost", "0 of 10", is_met=True)], {"Faults": [{"fault": "x", "n": 1_000}]}, []
    )
    path = tmp_path / "reports" / "2026-11-21-kills.md"
    write_report(document(outcome), path)
    page = path.read_text()
    assert fenced_blocks(page)[0].text == "khala drill run kill --quick --seed 1"
    assert "# Drill kill, 2026-11-21" in page
    assert "| Nothing is lost | 0 of 10 | yes |" in page
    assert "| x | 1,000 |" in page
    assert json.loads(path.with_suffix(".json").read_text())["is_passed"] is True


def test_a_page_of_a_broken_promise_begins_with_it() -> None:
    """FAILED is in the title; of thousands of violations the first are shown, and how many there are."""
    outcome = Outcome([Claim("Nothing is lost", "9 of 10", is_met=False)], {"None": []}, [str(BROKEN)] * 999)
    page = render(document(outcome), "x.json")
    assert page.splitlines()[0].endswith("FAILED")
    assert "| Nothing is lost | 9 of 10 | NO |" in page
    assert "Violations (999)" in page
    assert page.count(str(BROKEN)) == VIOLATIONS_MAX


# -- the system ------------------------------------------------------------------------------------------


class Supervised:
    """What a supervisor and failpoints have written, without either."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder
        self.log = folder / "logs" / "supervisor.jsonl"
        self.log.parent.mkdir()
        self.hit_file = folder / "hits.jsonl"

    def says(self, event: str, name: str, pid: int, **facts: int) -> None:
        """Write one line of the supervisor."""
        with self.log.open("a") as file:
            file.write(json.dumps({"ts": "now", "event": event, "name": name, "pid": pid, **facts}) + "\n")


@pytest.fixture
def supervised(tmp_path: Path) -> Supervised:
    """A folder in which a system could live."""
    return Supervised(tmp_path)


def system_of(supervised: Supervised) -> SplitSystem:
    """Return the system as a drill sees it."""
    return SplitSystem(supervised, {"nodes": []}, supervised.hit_file, "token")  # type: ignore[arg-type]


def test_a_kill_counts_by_pid_and_status(supervised: Supervised) -> None:
    """The newest process of a name is the one that can be killed; its own end is what is waited for."""
    system = system_of(supervised)
    supervised.says("started", "runtime", 10)
    supervised.says("ended", "runtime", 10, status=-9)
    supervised.says("started", "runtime", 11)
    assert (system.pid("runtime"), system.is_running("runtime")) == (11, True)
    assert system.wait_killed(10).status == -9
    with pytest.raises(DrillFailed, match="process 11 is killed"):
        system.wait_killed(11, timeout_s=0.0)


def test_an_end_that_was_no_kill_is_no_fault_of_ours(supervised: Supervised) -> None:
    """A process that fails by itself must not be taken for one that was killed."""
    system = system_of(supervised)
    supervised.says("started", "node-1", 10)
    supervised.says("ended", "node-1", 10, status=1)
    with pytest.raises(DrillFailed, match="ended with status 1, not -9"):
        system.wait_killed(10)
    with pytest.raises(DrillFailed, match="has started no postgres"):
        system.pid("postgres")


def test_a_failpoint_counts_where_it_was_hit(supervised: Supervised) -> None:
    """Point and process must both be the ones that were armed."""
    system = system_of(supervised)
    supervised.hit_file.write_text('{"failpoint": "runtime.committed", "action": "kill", "pid": 10}\n')
    assert system.has_hit("runtime.committed", 10)
    assert not system.has_hit("runtime.committed", 11)
    assert not system.has_hit("node.mid_frame", 10)


def test_waiting_ends_with_the_condition_or_says_for_what() -> None:
    """A condition that holds at once costs nothing."""
    assert wait_until(lambda: True, timeout_s=0.0, what="nothing") < 1.0
    with pytest.raises(DrillFailed, match=r"not within 0 s: the impossible"):
        wait_until(lambda: False, timeout_s=0.0, what="the impossible")


def test_a_taken_port_answers_nobody() -> None:
    """No server can have it, and whoever connects is hung up on; afterwards it is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with taken_port(port):
        assert not is_answering(port)
        with socket.socket() as server, pytest.raises(OSError, match="in use"):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
