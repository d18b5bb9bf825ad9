import pytest

from tests.ci.__main__ import choose_lanes, format_list, main
from tests.ci.lanes import LANE_NAMES, LANES


def test_all_is_every_lane_but_release() -> None:
    """`all` keeps the order of the table and leaves out what only a release needs."""
    lanes, is_full_build = choose_lanes(["all"], "")
    assert [lane.name for lane in lanes] == [name for name in LANE_NAMES if name != "release"]
    assert is_full_build


def test_some_lanes_are_no_full_build() -> None:
    """A named lane runs alone, whatever the environment says; a narrowed `all` is not full."""
    assert [lane.name for lane in choose_lanes(["docs"], "unit")[0]] == ["docs"]
    lanes, is_full_build = choose_lanes(["all"], "unit docs")
    assert [lane.name for lane in lanes] == ["docs", "unit"]
    assert not is_full_build


def test_list_documents_every_lane(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` prints each lane once at the beginning of a line."""
    assert main(["--list"]) == 0
    heads = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert heads == list(LANE_NAMES)
    assert format_list().count("pytest tests/unit") == 1


def test_unknown_lane_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt lane must not pass as nothing."""
    assert main(["dosc"]) == 2
    assert "no such lane: dosc" in capsys.readouterr().err
    assert main([]) == 2


def test_names_of_checks_are_unique_in_their_lane() -> None:
    """`--only` selects one."""
    for lane in LANES:
        names = [check.name for check in lane.checks]
        assert len(names) == len(set(names))
