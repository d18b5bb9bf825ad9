"""Looks for each defect with seed after seed, and reports how many were needed: ``khala sim --defects``.

Each defect gets a copy of the source in a temporary folder, with its patch applied, and a process of its own that
imports that copy (`seed_search.py`). A copy without a defect runs first, some seeds of it: what they show there is a
finding about the product, and would say nothing about a defect.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from chaos.sim.defect_patches import (
    DefectRefused,
    apply_defect,
    copy_source,
    environment_of,
    source_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.sim.defect_patches import Defect

__all__ = ["MAX_SEEDS", "Hunt", "Hunted", "hunt", "hunt_one", "markdown_of", "median_seeds"]

# Within so many seeds each must be found.
MAX_SEEDS: Final = 500
# Seeds in which the product as it is must show nothing.
FLAWLESS_SEEDS: Final = 20
# A seed that never ends would stop the search for good; one takes a fraction of a second.
_SECONDS_PER_SEED: Final = 30.0
_SECONDS_TO_START: Final = 120.0


@attrs.frozen
class Hunted:
    """What became of the search for one defect.

    Attributes:
        seed: The first seed that showed it; None: none did.
        seeds_run: How many were run.
        findings: What that seed showed first.
    """

    name: str
    defect: str
    breaks: str
    seed: int | None
    seeds_run: int
    cpu_s: float
    findings: tuple[str, ...]


@attrs.frozen
class Hunt:
    """All searches of one run."""

    hunted: tuple[Hunted, ...]
    first_seed: int
    max_seeds: int

    @property
    def missed(self) -> tuple[str, ...]:
        """Defects that no seed found."""
        return tuple(one.name for one in self.hunted if one.seed is None)


def hunt_one(defect: Defect | None, *, first_seed: int, max_seeds: int) -> Hunted:
    """Look for one defect; None: the product as it is, in which nothing must be found.

    Raises:
        DefectRefused: The patch does not apply, the search fails, or there is no source.
    """
    root = source_root()
    name = "no defect" if defect is None else defect.name
    with tempfile.TemporaryDirectory(prefix="khala-defect-") as folder:
        tree = Path(folder) / "tree"
        copy_source(root, tree)
        if defect is not None:
            apply_defect(tree, defect)
        command = [sys.executable, "-m", "chaos.sim.seed_search"]
        command += ["--first", str(first_seed), "--last", str(first_seed + max_seeds - 1)]
        try:
            done = subprocess.run(
                command,
                cwd=tree,
                env=dict(environment_of(tree)),
                capture_output=True,
                text=True,
                timeout=_SECONDS_TO_START + _SECONDS_PER_SEED * max_seeds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            message = f"{name}: the search did not end"
            raise DefectRefused(message) from error
    if done.returncode or not done.stdout:
        # Not "found": also a copy that cannot be imported ends like this.
        message = f"{name}: the search failed:\n{done.stderr[-2000:]}"
        raise DefectRefused(message)
    answer = json.loads(done.stdout.splitlines()[-1])
    texts = ("", "") if defect is None else (defect.defect, defect.breaks)
    return Hunted(
        name, *texts, answer["seed"], answer["seeds_run"], answer["cpu_s"], tuple(answer["findings"])
    )


def hunt(
    defects: Sequence[Defect],
    *,
    first_seed: int = 1,
    max_seeds: int = MAX_SEEDS,
    jobs: int = 1,
    tell: Callable[[Hunted], None] | None = None,
) -> Hunt:
    """Look for each defect, ``jobs`` at a time; ``tell`` hears of each as it ends.

    Raises:
        DefectRefused: see hunt_one; or the product without a defect shows something.
    """
    flawless = hunt_one(None, first_seed=first_seed, max_seeds=min(max_seeds, FLAWLESS_SEEDS))
    if flawless.seed is not None:
        message = f"without a defect seed {flawless.seed} shows: {flawless.findings[0]}"
        raise DefectRefused(message)
    look = partial(hunt_one, first_seed=first_seed, max_seeds=max_seeds)
    hunted: list[Hunted] = []
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for one in pool.map(look, defects):
            hunted.append(one)
            if tell is not None:
                tell(one)
    return Hunt(tuple(hunted), first_seed, max_seeds)


def median_seeds(hunted: Sequence[Hunted]) -> float | None:
    """Return the median number of seeds that finding took, of those that were found; None if none was."""
    needed = [one.seeds_run for one in hunted if one.seed is not None]
    return statistics.median(needed) if needed else None


def markdown_of(result: Hunt) -> str:
    """Return the report for people."""
    found = [one for one in result.hunted if one.seed is not None]
    median = median_seeds(result.hunted)
    lines = [
        "# Defects found by seed",
        "",
        f"{len(found)} of {len(result.hunted)} defects were found within {result.max_seeds} seeds"
        f" (from seed {result.first_seed} on); the median took {'-' if median is None else f'{median:g}'} seeds.",
        "",
        "| defect | what is wrong in it | breaks | seeds | CPU s | what the seed showed first |",
        "|---|---|---|---:|---:|---|",
    ]
    for one in sorted(result.hunted, key=lambda one: (one.seed is None, one.seeds_run), reverse=True):
        needed = "none" if one.seed is None else str(one.seeds_run)
        first = one.findings[0].replace("|", "/")[:120] if one.findings else ""
        lines.append(f"| {one.name} | {one.defect} | {one.breaks} | {needed} | {one.cpu_s:.1f} | {first} |")
    return "\n".join(lines) + "\n"
