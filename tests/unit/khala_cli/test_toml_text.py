"""Unit tests of khala.cli.toml_text."""

from __future__ import annotations

import datetime
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala.cli.toml_text import toml_document

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.dates()
    | st.times()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=2), max_size=2))
def test_what_is_written_is_read_again(sections: dict[str, dict[str, object]]) -> None:
    """For everything that a configuration file may hold, keys and texts of any kind included."""
    assert tomllib.loads(toml_document(sections)) == sections


def test_a_tuple_is_a_list() -> None:
    """Values of our own come as tuples, too."""
    assert tomllib.loads(toml_document({"a": {"b": (1, "x")}})) == {"a": {"b": [1, "x"]}}


@pytest.mark.parametrize("value", [None, b"x", object(), {1, 2}, datetime.timedelta(1)])
def test_what_has_no_form_is_refused(value: object) -> None:
    """A mistake of ours, found before a child finds it."""
    with pytest.raises(TypeError, match="has no form in TOML"):
        toml_document({"a": {"b": value}})
