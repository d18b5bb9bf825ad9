"""Defects: that the patches are what they should be, that each is found, and that a search says so."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path  # noqa: TC003  # pytest looks at annotations of fixtures
from typing import TYPE_CHECKING

import pytest

from chaos.sim import defect_hunt
from chaos.sim.defect_hunt import Hunt, Hunted, hunt, hunt_one, markdown_of, median_seeds
from chaos.sim.defect_patches import (
    DefectRefused,
    all_defects,
    apply_defect,
    copy_source,
    defects_of,
    read_defect,
    source_root,
)
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.sim.defect_patches import Defect

DEFECTS = all_defects()
# What the drawn ones of a day may need; the report of all of them says what each did.
MAX_SEEDS = 500


def test_there_are_enough_and_no_two_are_one() -> None:
    """At least twenty-five; each says something else, and changes something else, in the product alone."""
    assert len(DEFECTS) >= 25
    assert len({defect.defect for defect in DEFECTS}) == len(DEFECTS)
    assert len({defect.patch.read_text().partition("\n\n")[2] for defect in DEFECTS}) == len(DEFECTS)
    for defect in DEFECTS:
        assert not [path for path in defect.paths if path.startswith(("chaos/", "tests/"))], defect.name


def test_each_patch_applies(tmp_path: Path) -> None:
    """One that does not stands for a bug that nobody looks for any more."""
    for defect in DEFECTS:
        tree = tmp_path / defect.name
        for path in defect.paths:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes((source_root() / path).read_bytes())
        apply_defect(tree, defect)
        changed = [
            path for path in defect.paths if (tree / path).read_text() != (source_root() / path).read_text()
        ]
        assert changed == list(defect.paths)
        for path in changed:
            compile((tree / path).read_text(), path, "exec")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Breaks: x\n", "expected a line 'Defect"),
        ("Defect: x\nBroken: y\n", "expected a line 'Breaks"),
        ("Defect: \n", "expected a line 'Defect"),
        ("Defect: x\nBreaks: y\n\nno diff\n", "not a patch"),
    ],
)
def test_a_patch_without_its_head_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    """It says which line is missing."""
    patch = tmp_path / "some.patch"
    patch.write_text(text)
    with pytest.raises(DefectRefused, match=complaint):
        read_defect(patch)


def test_a_patch_that_does_not_apply_is_refused(tmp_path: Path) -> None:
    """Never a copy without the defect, in which nothing would be found."""
    defect = DEFECTS[0]
    for path in defect.paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("something else\n")
    with pytest.raises(DefectRefused, match="does not apply any more"):
        apply_defect(tmp_path, defect)


def test_the_days_take_turns() -> None:
    """Three different ones a day, and over the days every one."""
    day = date(2026, 1, 1)
    drawn = [defects_of(day + timedelta(days=number)) for number in range(len(DEFECTS))]
    assert all(len({defect.name for defect in three}) == 3 for three in drawn)
    assert {defect.name for three in drawn for defect in three} == {defect.name for defect in DEFECTS}


def test_a_copy_is_whole_and_knows_no_defects(tmp_path: Path) -> None:
    """The packages of a world, without caches and without the patches themselves."""
    tree = tmp_path / "tree"
    copy_source(source_root(), tree)
    assert (tree / "chaos/sim/world.py").is_file()
    assert (tree / "khala/client/khala_client/core/follow.py").is_file()
    assert not list(tree.rglob("__pycache__"))
    assert not list(tree.rglob("*.patch"))


FOUND = Hunted("a", "is wrong", "INV-1", 7, 7, 1.5, ("topic | broke",))
SOON = Hunted("b", "is wrong too", "INV-2", 1, 1, 0.2, ("at once",))
MISSED = Hunted("c", "hides", "INV-3", None, 500, 90.0, ())


def test_the_report_names_what_was_missed_and_the_median() -> None:
    """Of those found; a table of five columns holds whatever a finding says."""
    result = Hunt((FOUND, SOON, MISSED), 1, 500)
    assert result.missed == ("c",)
    assert median_seeds(result.hunted) == 4
    page = markdown_of(result)
    assert "2 of 3 defects were found within 500 seeds" in page
    assert "the median took 4 seeds" in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("|")} == {7}
    assert page.index("| c |") < page.index("| a |") < page.index("| b |")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_drawn_by_date_are_found() -> None:
    """Each of the three of this day within the seeds that the report promises; without them nothing is found."""
    today = datetime.fromtimestamp(SystemClock().now(), UTC).date()
    result = hunt(defects_of(today), max_seeds=MAX_SEEDS, jobs=2)
    assert result.missed == ()
    assert all(found.findings for found in result.hunted)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_product_that_shows_something_is_not_hunted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding without a defect would count for every defect: it ends the hunt, and says what it was."""
    (defect,) = [defect for defect in DEFECTS if defect.name == "topic-gap-applied"]
    monkeypatch.setattr(defect_hunt, "hunt_one", partial(_with_a_defect, hunt_one, defect))
    with pytest.raises(DefectRefused, match="without a defect seed"):
        hunt([defect], max_seeds=MAX_SEEDS)


def _with_a_defect(
    real: Callable[..., Hunted], product: Defect, _asked: Defect | None, **bounds: int
) -> Hunted:
    return real(product, **bounds)
