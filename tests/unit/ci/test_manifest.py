import pytest

from tests.ci import manifest
from tests.ci.lanes import LANE_NAMES
from tests.ci.tree import ROOT
from tests.unit.ci.conftest import Plant


def test_fewer_than_expected_is_a_shortfall() -> None:
    """At the minimum passes, one below fails."""
    rules = manifest.Manifest({"unit": 10}, {})
    assert manifest.find_shortfalls(rules, "unit", ran=10, skips={}) == []
    [problem] = manifest.find_shortfalls(rules, "unit", ran=9, skips={})
    assert problem == "tests/ci/manifest.toml: lane unit ran 9, at least 10 are expected"


def test_lane_without_minimum_is_a_shortfall() -> None:
    """A new lane must say what it expects."""
    assert manifest.find_shortfalls(manifest.Manifest({}, {}), "unit", ran=1, skips={}) != []


def test_unlisted_skip_fails() -> None:
    """A skip needs a line with a reason in the manifest."""
    rules = manifest.Manifest({"unit": 1}, {"tests/a.py::test_a": "needs a compiler"})
    skips = {"tests/a.py::test_a[x]": "no cc", "tests/a.py::test_a[y]": "no cc", "tests/a.py::test_b": ""}
    assert manifest.find_shortfalls(rules, "unit", ran=1, skips=skips) == [
        "tests/a.py::test_b: skipped (no reason) and not listed in tests/ci/manifest.toml"
    ]


def test_an_allowed_skip_is_accounted_for() -> None:
    """A machine without a browser falls short of nothing; a skip that is not listed counts for nothing."""
    rules = manifest.Manifest({"browser": 2}, {"tests/a.py::test_a": "needs a browser"})
    assert manifest.find_shortfalls(rules, "browser", ran=1, skips={"tests/a.py::test_a": "none"}) == []
    unlisted, few = sorted(
        manifest.find_shortfalls(rules, "browser", ran=1, skips={"tests/a.py::test_b": "none"}),
        key=len,
        reverse=True,
    )
    assert "at least 2" in few or "at least 2" in unlisted


@pytest.mark.parametrize(
    "text",
    [
        "[lanes.unit]\nminimum_run = 0\n",
        '[[skips]]\ntest = "a"\n',
        '[[skips]]\ntest = "a"\nreason = " "\n',
    ],
)
def test_empty_promises_are_refused(plant: Plant, text: str) -> None:
    """A minimum of nothing and a skip without a reason are errors of the manifest."""
    context = plant({manifest.MANIFEST: text})
    with pytest.raises(ValueError, match=r"minimum_run|no reason"):
        manifest.read_manifest(context.root)


def test_our_manifest_knows_every_lane() -> None:
    """Every lane has its minimum, and no minimum is of a lane that is gone."""
    assert set(manifest.read_manifest(ROOT).minimum_run) == set(LANE_NAMES)
