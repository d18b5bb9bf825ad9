import attrs
import pytest

from tests.ci import invariants
from tests.ci.checks import TestOutcome
from tests.unit.ci.conftest import Plant

TEST_FILE = "def test_x() -> None: ...\nclass TestY:\n    def test_z(self) -> None: ...\nTestMachine = Machine.TestCase\n"


def document(tests: str = "`tests/t.py::test_x`") -> str:
    """Return an architecture with the four founding invariants, the last one pinned by ``tests``."""
    return "".join(
        f"### INV-{number} {name}\n\n- formula: `a = b`\n- code: `khala/app.py`\n"
        f"- tests: {tests if number == 4 else '`tests/t.py::test_x`'}\n\n"
        for number, name in enumerate(invariants.FOUNDING, start=1)
    )


def tree(text: str) -> dict[str, str]:
    """Return the files around a document."""
    return {"runbooks/architecture.md": text, "khala/app.py": "", "tests/t.py": TEST_FILE}


def test_reads_the_fields() -> None:
    """Number, name, line, formula, code and tests are read from below the heading."""
    first = invariants.read_invariants(document())[0]
    assert first == invariants.Invariant(
        1, "proto-first", 1, "`a = b`", ("khala/app.py",), ("tests/t.py::test_x",)
    )


@pytest.mark.parametrize(
    "test", ["tests/t.py::test_x", "tests/t.py::TestY::test_z", "tests/t.py::TestMachine"]
)
def test_existing_tests_pass(plant: Plant, test: str) -> None:
    """Functions, methods and assigned machines are tests."""
    assert invariants.find_invariant_problems(plant(tree(document(f"`{test}`")))) == []


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ("none", "INV-4 names no test"),
        ("`tests/t.py::test_gone`", "names the test tests/t.py::test_gone, which does not exist"),
        ("`tests/t.py`", "names the test tests/t.py, which does not exist"),
    ],
)
def test_removed_mapping_fails(plant: Plant, tests: str, words: str) -> None:
    """An invariant without an existing test fails the lane."""
    [problem] = invariants.find_invariant_problems(plant(tree(document(tests))))
    assert problem.startswith("runbooks/architecture.md:19: ")
    assert words in problem


def test_inherited_test_exists_where_its_suite_is(plant: Plant) -> None:
    """A class that inherits a suite from another file has its tests; one that does not, has not."""
    files = {
        "tests/suite.py": "class Suite:\n    def test_shared(self) -> None: ...\n",
        "tests/t.py": TEST_FILE + "class TestReal(Suite): ...\nclass TestOther: ...\n",
    }
    good = plant({**tree(document("`tests/t.py::TestReal::test_shared`")), **files})
    assert invariants.find_invariant_problems(good) == []
    bad = plant({**tree(document("`tests/t.py::TestOther::test_shared`")), **files})
    assert len(invariants.find_invariant_problems(bad)) == 1


def test_removed_invariant_fails(plant: Plant) -> None:
    """Numbers are dense, and a founding invariant cannot be dropped."""
    text = document()
    without_second = text[: text.index("### INV-2")] + text[text.index("### INV-3") :]
    problems = invariants.find_invariant_problems(plant(tree(without_second)))
    assert problems == [
        "runbooks/architecture.md:1: invariants are not numbered 1, 2, 3 ...: [1, 3, 4]",
        "runbooks/architecture.md:1: no invariant is named two authority planes",
    ]


@pytest.mark.parametrize(
    ("outcomes", "is_good"),
    [
        ({"tests/t.py::test_x": "passed"}, True),
        ({"tests/t.py::test_x[a]": "passed", "tests/t.py::test_x[b]": "passed"}, True),
        ({"tests/t.py::test_x[a]": "passed", "tests/t.py::test_x[b]": "skipped"}, False),
        ({"tests/t.py::test_xy": "passed"}, False),
        ({}, False),
    ],
)
def test_full_build_wants_the_test_to_have_passed(
    plant: Plant, outcomes: dict[str, TestOutcome], is_good: bool
) -> None:
    """In a full build a pinning test that did not run, was skipped or failed is a problem."""
    context = attrs.evolve(plant(tree(document())), outcomes=outcomes)
    assert (invariants.find_invariant_problems(context) == []) is is_good


def test_unknown_number_in_code_is_a_problem(plant: Plant) -> None:
    """Code may refer only to invariants that the document defines."""
    context = plant({**tree(document()), "khala/app.py": "# keeps INV-2\n# and INV-9\n"})
    assert invariants.find_unknown_mentions(context) == [
        "khala/app.py:2: INV-9 is not in runbooks/architecture.md"
    ]
