"""The first seed of a range that shows something, in a process of its own: ``python -m chaos.sim.seed_search``.

Started by defect_hunt.py inside a copy of the source with a defect: imports that copy once and runs seed after
seed. Writes one JSON object to standard output:

    {"seed": 17, "findings": ["..."], "seeds_run": 17, "cpu_s": 2.5}        seed is null if none showed anything

A world that spins, and so never ends, has shown something as well.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from chaos.sim.kernel import fix_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# What one defect shows may be thousands of lines; the first say it.
FINDINGS_MAX: Final = 5
# Seconds of a processor; a world takes a fraction of one.
SEED_MAX_S: Final = 30.0


def main(arguments: list[str]) -> int:
    """Run seeds until one shows something; return 0."""
    parser = argparse.ArgumentParser(prog="python -m chaos.sim.seed_search")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    asked = parser.parse_args(arguments)
    fix_hashes(["-m", "chaos.sim.seed_search", *arguments])
    # Not before: a defect may be in what this imports, and that has to be told apart from a found one.
    from chaos.sim.verdict import run_seed

    for seed in range(asked.first, asked.last + 1):

        def give_up(_signal: int, _frame: object, seed: int = seed) -> NoReturn:
            _answer(asked.first, seed, ["world: it does not end"], is_found=True)
            # Whatever spins would catch anything that is raised here.
            os._exit(0)

        signal.signal(signal.SIGVTALRM, give_up)
        signal.setitimer(signal.ITIMER_VIRTUAL, SEED_MAX_S)
        verdict = run_seed(seed)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if not verdict.is_good:
            _answer(asked.first, seed, verdict.findings[:FINDINGS_MAX], is_found=True)
            return 0
    _answer(asked.first, asked.last, (), is_found=False)
    return 0


def _answer(first: int, seed: int, findings: Sequence[str], *, is_found: bool) -> None:
    times = os.times()
    answer = {
        "seed": seed if is_found else None,
        "findings": list(findings),
        "seeds_run": seed - first + 1,
        "cpu_s": round(times.user + times.system, 3),
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
