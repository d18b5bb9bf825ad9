"""Five minutes of seeds: others each day, so that the test command explores as the days go by.

A failing seed prints its command and what to do with it. KHALA_SIM_SEEDS names another range, for example the
one that failed yesterday; KHALA_SIM_MINUTES another time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from khala_service.identifiers import SystemClock

SEEDS_OF_A_DAY = 100_000
MINUTES = 5.0


def _seeds_of_today() -> str:
    day = datetime.fromtimestamp(SystemClock().now(), UTC).date().toordinal()
    first = day * SEEDS_OF_A_DAY
    return f"{first}..{first + SEEDS_OF_A_DAY - 1}"


@pytest.mark.timeout(1_900)
def test_no_seed_breaks_a_promise() -> None:
    """Two hundred worlds or more, and nothing is found."""
    seeds = os.environ.get("KHALA_SIM_SEEDS", _seeds_of_today())
    minutes = os.environ.get("KHALA_SIM_MINUTES", str(MINUTES))
    command = [sys.executable, "-m", "khala.cli", "sim", "--seeds", seeds, "--jobs", "2"]
    done = subprocess.run(
        [*command, "--minutes", minutes], capture_output=True, text=True, timeout=1_800, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
