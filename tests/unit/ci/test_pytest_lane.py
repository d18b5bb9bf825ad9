import json
from pathlib import Path

import pytest

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


def write_pair(folder: Path) -> tuple[str, str]:
    """Write two folders whose tests pass only while the other's runs; return them."""
    names = ("first", "second")
    for own, other in (names, names[::-1]):
        (folder / own).mkdir()
        (folder / own / f"test_{own}.py").write_text(
            "import pathlib, time\n"
            f"def test_{own}():\n"
            f"    pathlib.Path({str(folder / own)!r}, 'here').touch()\n"
            "    ends = time.monotonic() + 20\n"
            f"    while not pathlib.Path({str(folder / other)!r}, 'here').exists():\n"
            "        assert time.monotonic() < ends\n"
            "        time.sleep(0.01)\n",
            encoding="utf-8",
        )
    return str(folder / "first"), str(folder / "second")


def test_two_processes_run_at_once_and_each_test_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What runs beside is left out of the first process; outcomes are those of both, and so is the report."""
    first, second = write_pair(tmp_path)
    (tmp_path / "first" / "test_more.py").write_text("def test_more(): pass\n", encoding="utf-8")
    more = f"{first}/test_more.py"
    # One is below a target, the other is a target itself.
    run = pytest_lane.run_pytest(ROOT, [first, second], beside=[second, more], budget_s=30)
    assert (list(run.outcomes.values()), run.problems) == (["passed"] * 3, [])
    reports = capfd.readouterr().out
    assert [reports.count(f"{count} passed") for count in (1, 2)] == [1, 1]


def test_a_failure_beside_is_one_of_the_lane(tmp_path: Path) -> None:
    """As is its hang; a folder that is gone is said before anything runs."""
    first, second = write_pair(tmp_path)
    (tmp_path / "second" / "test_second.py").write_text("def test_bad(): assert 0\n", encoding="utf-8")
    (tmp_path / "first" / "test_first.py").write_text("def test_good(): pass\n", encoding="utf-8")
    run = pytest_lane.run_pytest(ROOT, [first], beside=[second], budget_s=30)
    assert sorted(run.outcomes.values()) == ["failed", "passed"]
    (tmp_path / "second" / "test_second.py").write_text(
        "import signal\ndef test_hang(): signal.pause()\n", encoding="utf-8"
    )
    run = pytest_lane.run_pytest(ROOT, [first], beside=[second], budget_s=0.4)
    # The first process needs a second to start: on a busy machine it is ended as well.
    assert set(run.problems) == {"pytest: not finished after 2 s, ended"}
    run = pytest_lane.run_pytest(ROOT, [first], beside=["tests/gone"], budget_s=1)
    assert run.problems == ["tests/gone: no such file or folder"]


def test_what_runs_alone_runs_after_both(tmp_path: Path) -> None:
    """Nothing is beside it, it runs once, and its failure is the lane's."""
    _, second = write_pair(tmp_path)
    marks = [str(tmp_path / name / "over") for name in ("first", "second")]
    for name in ("first", "second"):
        with (tmp_path / name / f"test_{name}.py").open("a", encoding="utf-8") as file:
            file.write(f"    time.sleep(0.3)\n    pathlib.Path({str(tmp_path / name / 'over')!r}).touch()\n")
    (tmp_path / "test_last.py").write_text(
        "import pathlib\n"
        f"def test_last(): assert all(pathlib.Path(mark).exists() for mark in {marks!r})\n"
        "def test_bad(): assert 0\n",
        encoding="utf-8",
    )
    run = pytest_lane.run_pytest(
        ROOT, [str(tmp_path)], beside=[second], alone=[str(tmp_path / "test_last.py")], budget_s=30
    )
    by_name = {node.rpartition("::")[2]: outcome for node, outcome in run.outcomes.items()}
    assert by_name == {
        "test_first": "passed",
        "test_second": "passed",
        "test_last": "passed",
        "test_bad": "failed",
    }
    assert run.problems == []
