"""One seed is one world, in every process and whatever ran before it there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SEEDS = (3, 12, 18, 20, 31)
_RUN = """
import sys
from chaos.sim.verdict import run_seed
for seed in map(int, sys.argv[1:]):
    print(seed, run_seed(seed).digest)
"""


def _digests(*seeds: int) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, seeds)],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return dict(map(str.split, done.stdout.splitlines()))


@pytest.mark.timeout(600)
def test_one_seed_gives_one_trace() -> None:
    """The hash of every event's line is equal in two processes, which ran the seeds in opposite orders."""
    assert _digests(*SEEDS) == _digests(*reversed(SEEDS))
