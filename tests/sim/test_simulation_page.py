"""The page about the simulation names tests and files that exist, and every kind of step is counted right."""

from __future__ import annotations

import re
from pathlib import Path

from chaos.sim.plan import QUIET_S, make_plan
from chaos.sim.probes import PROMISED_S
from chaos.sim.steps import ACTIONS, FAULTS
from chaos.sim.world import CONVERGE_S

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "runbooks" / "simulation.md").read_text()


def test_what_cannot_be_seen_is_covered() -> None:
    """Each row of the table names at least one test that is there, with tests in it or a suite."""
    table = PAGE.split("## What it cannot see")[1]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "covered by" not in line]
    assert len(rows) >= 12
    for row in rows:
        named = re.findall(r"`(tests/[^`]+\.py)`", row)
        assert named, row
        for path in named:
            text = (ROOT / path).read_text()
            assert re.search(r"def test_|class Test", text), path


def test_the_numbers_of_the_page() -> None:
    """So many actions and faults are there, worlds are so large, and so long is waited."""
    said = re.search(r"(\d+) actions and (\d+)\s+faults", PAGE)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (len(ACTIONS), len(FAULTS))
    plans = [make_plan(seed) for seed in range(200)]
    assert {plan.nodes for plan in plans} == {1, 2, 3}
    assert max(len(plan.clients) for plan in plans) == 5
    words = " ".join(PAGE.split())
    assert "one to three nodes and up to five clients" in words
    assert f"{QUIET_S:g} s are quiet" in words
    assert f"convergence {CONVERGE_S:g} s after the faults" in words
    assert f"every follower {PROMISED_S:g} s after its commit" in words
