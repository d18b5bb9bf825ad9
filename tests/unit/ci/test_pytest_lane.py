import json
from pathlib import Path

from tests.ci import pytest_lane
from tests.ci.tree import ROOT


def lines(*entries: dict[str, object]) -> list[str]:
    """Return a record."""
    return [json.dumps(entry) for entry in entries]


def test_record_keeps_the_worst_outcome() -> None:
    """A test that passed and failed in tear-down failed; a skip keeps its reason."""
    run, is_finished = pytest_lane.read_record(
        lines(
            {"test": "a", "outcome": "passed", "reason": ""},
            {"test": "a", "outcome": "failed", "reason": ""},
            {"test": "b", "outcome": "skipped", "reason": "no compiler"},
            {"test": "c", "outcome": "passed", "reason": ""},
            {"finished": True},
        )
    )
    assert run.outcomes == {"a": "failed", "b": "skipped", "c": "passed"}
    assert run.skips == {"b": "no compiler"}
    assert is_finished


def test_record_without_end_is_of_a_crash() -> None:
    """The end is written by the session itself."""
    _, is_finished = pytest_lane.read_record(lines({"test": "a", "outcome": "passed", "reason": ""}))
    assert not is_finished


def test_missing_target_is_a_problem(tmp_path: Path) -> None:
    """A lane whose folder is gone does not pass with nothing."""
    run = pytest_lane.run_pytest(tmp_path, ["tests/gone"], budget_s=1)
    assert run.problems == ["tests/gone: no such file or folder"]


def test_real_run_is_recorded(tmp_path: Path) -> None:
    """Pass, failure, skip and a file that cannot be imported are each seen for what they are."""
    (tmp_path / "test_one.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 0\n"
        "@pytest.mark.skip(reason='no compiler')\n"
        "def test_skipped(): pass\n",
        encoding="utf-8",
    )
    (tmp_path / "test_two.py").write_text("import no_such_module\n", encoding="utf-8")
    run = pytest_lane.run_pytest(ROOT, [str(tmp_path)], budget_s=30)
    by_name = {node.rpartition("::")[2].rpartition("/")[2]: outcome for node, outcome in run.outcomes.items()}
    assert by_name == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_skipped": "skipped",
        "test_two.py": "failed",
    }
    assert list(run.skips.values()) == ["no compiler"]


def test_hang_is_ended(tmp_path: Path) -> None:
    """A lane that outlives its limit is killed and says so."""
    (tmp_path / "test_one.py").write_text(
        "import signal\ndef test_hang(): signal.pause()\n", encoding="utf-8"
    )
    run = pytest_lane.run_pytest(ROOT, [str(tmp_path)], budget_s=0.4)
    assert run.problems == ["pytest: not finished after 2 s, ended"]
