"""Seeds that have found something, by what it was. They run for ever, whatever their plans are by now.

The tests that keep each defect away are named beside it: a plan changes when the vocabulary of steps grows, and
with it what a seed does.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# (seed, what it was)
FOUND = (
    (
        289,
        "two heartbeats that a stopped reader found in front of its frames were taken for a lost tail; test_follow.py",
    ),
    (297, "the same, by a slow reader with frames of other topics in between; test_follow.py"),
    (
        309,
        "while the database was away, heartbeats stated frames that only the journal had; test_lost_tail.py",
    ),
    (440, "a subscribe behind a renew was judged by the new grants and ended as forbidden; test_sync.py"),
    (
        73994200106,
        "the simulated application asked each second for two topics that it may not read, until its node ended "
        "the connection for it, as it must: not the product; test_refusals.py",
    ),
    (1225, "the model of a client that was stopped twice never read again: not the product; test_network.py"),
)


@pytest.fixture(scope="module")
def findings() -> dict[int, str]:
    """What each seed shows now: one process for all of them."""
    seeds = [str(seed) for seed, _ in FOUND]
    run = "import sys; from chaos.sim.verdict import run_seed\n"
    run += "for seed in map(int, sys.argv[1:]): print(seed, '; '.join(run_seed(seed).findings), sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", run, *seeds],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return {int(line.split("|")[0]): line.split("|", 1)[1] for line in done.stdout.splitlines()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "what"), FOUND, ids=[str(seed) for seed, _ in FOUND])
def test_it_stays_fixed(findings: dict[int, str], seed: int, what: str) -> None:
    """The seed shows nothing any more."""
    assert findings[seed] == "", what
