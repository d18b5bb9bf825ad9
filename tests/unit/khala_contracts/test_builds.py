"""Which build is older: versions by their numbers, what is no version before all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts.builds import is_older_build, parse_version

NUMBERS = st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("build_id", "minimum", "is_older"),
    [
        ("0.1.9", "0.2.0", True),
        ("0.2.0", "0.2.0", False),
        ("0.2", "0.2.0", False),
        ("0.10.0", "0.9.9", False),
        ("0.2.0rc1", "0.2.0", True),
        ("0.2.0.dev4", "0.2.0", True),
        ("0.2.0+abc", "0.2.0", False),
        ("my-app/0.2.0", "0.2.0", False),
        ("my-app/0.1.9", "0.2.0", True),
        ("nightly", "0.0.1", True),
        ("nightly", "0", False),
        ("", "0.0.0", False),
        ("1" * 20, "0.0.1", True),
    ],
)
def test_older(build_id: str, minimum: str, is_older: bool) -> None:
    """Each case of the rule in the module's docstring."""
    assert is_older_build(build_id, minimum) is is_older


@given(NUMBERS, NUMBERS)
def test_order_is_that_of_the_numbers(a: list[int], b: list[int]) -> None:
    """Two final versions compare as their numbers do, missing ones being 0."""
    texts = [".".join(map(str, numbers)) for numbers in (a, b)]
    padded = [numbers + [0] * (4 - len(numbers)) for numbers in (a, b)]
    if any(padded[1]):
        assert is_older_build(*texts) is (padded[0] < padded[1])


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Whatever a client calls itself is judged, and never raises."""
    assert is_older_build(text, "0.1") in (True, False)
    assert parse_version(text) is None or len(parse_version(text) or ()) == 5
