"""Median, range and the environment of a report."""

from __future__ import annotations

import json

import pytest

from chaos.load.statistics_of_pairs import Spread, describe_environment


def test_median_and_range() -> None:
    """The median of an even number lies between the two in the middle."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert Spread.of([4.0, 1.0, 2.0, 3.0]).median == 2.5


def test_no_figure_from_nothing() -> None:
    """A benchmark that measured nothing has no median."""
    with pytest.raises(ValueError, match="no median"):
        Spread.of([])


def test_four_significant_digits() -> None:
    """More would claim a precision that nobody has."""
    assert Spread.of([123456.0, 0.123456]).as_json() == {
        "median": 61730.0,
        "min": 0.1235,
        "max": 123500.0,
        "count": 2,
    }


def test_the_environment_names_no_host_and_no_path() -> None:
    """Reports are published; they say what kind of machine it was, not which."""
    environment = describe_environment()
    assert {"python", "system", "machine", "cpus"} <= environment.keys()
    assert "/" not in json.dumps(environment)
