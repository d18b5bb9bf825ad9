"""Each mutant is killed by the test that it names, and by nothing else that is wrong with the copy.

The named test passes in a copy without a defect and fails in one with it; the defective file is the one
that was imported. A patch that no longer applies fails: the defect that it stands for is untested.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from tests.mutants.mutant_runs import PytestRun, apply_patch, copy_tree, run_mutant, run_pytest_in
from tests.mutants.mutants import Mutant, all_mutants, read_mutant

MUTANTS = all_mutants()
# As many as the machine has cores, at the least; the first test waits for the run of all tests without a defect.
AT_ONCE = 2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@attrs.frozen
class Runs:
    """The runs of this session, in the background."""

    flawless: Future[PytestRun]
    by_mutant: dict[str, Future[PytestRun]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Start the runs of those mutants whose tests were asked for."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    asked = [mutant for each in params if isinstance(mutant := each.get("mutant"), Mutant)]
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        flawless = pool.submit(_run_flawless, asked, folder / "flawless")
        started = {mutant.name: pool.submit(run_mutant, mutant, folder / mutant.name) for mutant in asked}
        yield Runs(flawless, started)
        pool.shutdown(cancel_futures=True)


def _run_flawless(mutants: list[Mutant], tree: Path) -> PytestRun:
    copy_tree(tree)
    return run_pytest_in(tree, sorted({mutant.killed_by for mutant in mutants}))


def test_there_are_twenty() -> None:
    """Fewer would be less than what is promised; two with one name or one defect are one."""
    assert len(MUTANTS) >= 20
    assert len({mutant.defect for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_killed_by_the_test_that_it_names(mutant: Mutant, runs: Runs) -> None:
    """Without the defect the test passes, with it the test fails, in the very file that was patched."""
    flawless = runs.flawless.result()
    assert flawless.outcome(mutant.killed_by) == "passed", flawless.output
    run = runs.by_mutant[mutant.name].result()
    assert run.outcome(mutant.killed_by) == "failed", f"it survived: {mutant.defect}\n{run.output}"
    strangers = [file for file in run.imported if file.startswith("/")]
    assert strangers == [], "imported from outside of the copy"
    for path in mutant.paths:
        # A statement in SQL is read by the package in whose folder it lies.
        imported = path if path.endswith(".py") else f"{path.split('/')[0]}/__init__.py"
        assert imported in run.imported, f"{path} took no part in the test"


def test_a_patch_that_does_not_apply_is_refused(tmp_path: Path) -> None:
    """Its context is no longer in the file: nothing is changed and the reason is told."""
    (tmp_path / "words.py").write_text("one\ntwo\nthree\n")
    patch = tmp_path / "a.patch"
    patch.write_text("--- a/words.py\n+++ b/words.py\n@@ -1,3 +1,3 @@\n one\n-TWO\n+2\n three\n")
    assert "patch does not apply" in apply_patch(tmp_path, patch)
    patch.write_text(patch.read_text().replace("TWO", "two"))
    assert apply_patch(tmp_path, patch) == ""
    assert (tmp_path / "words.py").read_text() == "one\n2\nthree\n"


def test_a_patch_without_its_head_is_refused(tmp_path: Path) -> None:
    """A mutant says what it breaks and which test must notice."""
    patch = tmp_path / "a.patch"
    patch.write_text("Defect: nothing\nKilled by: nobody\n--- a/words.py\n+++ b/words.py\n")
    with pytest.raises(ValueError, match="expected a line 'Breaks"):
        read_mutant(patch)
