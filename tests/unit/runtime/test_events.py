"""Columns keep their invariant."""

from __future__ import annotations

import pytest

from runtime.core.events import EventColumns


def test_size_and_length() -> None:
    """The size is the sum of the payloads."""
    events = EventColumns(("a", "b"), ("k", "k"), (b"xyz", b""), (1, 1))
    assert (len(events), events.size_bytes) == (2, 3)


@pytest.mark.parametrize(
    "columns",
    [
        ((), (), (), ()),
        (("a",), (), (b"",), (1,)),
        (("a",), ("k", "k"), (b"",), (1,)),
        (("a",), ("k",), (b"", b""), (1,)),
        (("a",), ("k",), (b"",), ()),
    ],
)
def test_uneven_columns(
    columns: tuple[tuple[str, ...], tuple[str, ...], tuple[bytes, ...], tuple[int, ...]],
) -> None:
    """No event at all, or columns of different lengths, are refused."""
    with pytest.raises(ValueError, match="columns"):
        EventColumns(*columns)
