"""What a lane must have run at least, and which tests may be skipped: `manifest.toml`, read and judged.

A filter that matches nothing passes; so does a suite that lost a file. The manifest turns both into failures.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs

from tests.ci.checks import Problems

MANIFEST = "tests/ci/manifest.toml"


@attrs.frozen
class Manifest:
    """Least number of tests and checks that run (skips do not count) per lane; reasons of allowed skips.

    A skip is named by node id without parameters: it holds for every case of the test.
    """

    minimum_run: Mapping[str, int]
    skips: Mapping[str, str]


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of the tree.

    Raises:
        ValueError: A skip without a reason, or a minimum below one. The author of the manifest acts.
    """
    table = tomllib.loads((root / MANIFEST).read_text(encoding="utf-8"))
    minimum = {lane: int(row["minimum_run"]) for lane, row in table.get("lanes", {}).items()}
    skips = {row["test"]: str(row.get("reason", "")).strip() for row in table.get("skips", [])}
    wrong = [f"lane {lane}: minimum_run is below 1" for lane, count in minimum.items() if count < 1]
    wrong += [f"skip {test}: no reason" for test, reason in skips.items() if not reason]
    if wrong:
        raise ValueError("; ".join(wrong))
    return Manifest(minimum, skips)


def find_shortfalls(manifest: Manifest, lane: str, *, ran: int, skips: Mapping[str, str]) -> Problems:
    """Return what a lane owes: too few that ran or were rightly skipped, or a skip that the manifest does not allow."""
    minimum = manifest.minimum_run.get(lane)
    if minimum is None:
        return [f"{MANIFEST}: lane {lane} has no minimum_run"]
    problems = []
    strangers = {test: why for test, why in skips.items() if test.partition("[")[0] not in manifest.skips}
    # An allowed skip is accounted for: a machine without a browser runs fewer tests, and loses none of them.
    if ran + len(skips) - len(strangers) < minimum:
        problems.append(f"{MANIFEST}: lane {lane} ran {ran}, at least {minimum} are expected")
    problems += [
        f"{test}: skipped ({reason or 'no reason'}) and not listed in {MANIFEST}"
        for test, reason in sorted(strangers.items())
    ]
    return problems
