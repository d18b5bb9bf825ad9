"""A journal page: ranges of it, and where it ends."""

import pytest

from khala.core.pages import Page
from tests.topic_log import TopicLog


def _page(count: int, *, after_seq: int = 100) -> Page:
    """Frames of 1, 2, 3 ... bytes."""
    blob = b"".join(b"%d" % (size % 10) * size for size in range(1, count + 1))
    return Page.from_sizes(
        after_seq, blob, range(1, count + 1), last_chain=b"c", observation=TopicLog().observe()
    )


def test_empty_page_covers_nothing() -> None:
    """A page without frames ends where it starts."""
    page = _page(0)
    assert page.last_seq == 100
    assert not page.covers(100)


def test_covers_on_both_sides() -> None:
    """A position is covered iff the frame after it is in the page."""
    page = _page(3)
    assert page.last_seq == 103
    assert [page.covers(position) for position in (99, 100, 102, 103)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("position", "max_bytes", "end"),
    [
        (100, 0, None),
        (100, 1, 101),
        (100, 2, 101),
        (100, 3, 102),
        (101, 1, None),
        (101, 2, 102),
        (101, 4, 102),
        (101, 5, 103),
        (103, 3, None),
        (103, 4, 104),
        (103, 99, 104),
    ],
)
def test_choose_end_by_bytes(position: int, max_bytes: int, end: int | None) -> None:
    """A range of a page obeys the same bound as one of the window."""
    assert _page(4).choose_end(position, max_bytes=max_bytes, last_seq=1_000) == end


@pytest.mark.parametrize(("last_seq", "end"), [(101, 101), (102, 102), (104, 104), (105, 104)])
def test_choose_end_stops_at_the_barrier(last_seq: int, end: int) -> None:
    """A page that was read after the subscribe may reach beyond its barrier; the range does not."""
    assert _page(4).choose_end(100, max_bytes=1_000, last_seq=last_seq) == end


def test_choose_end_is_aligned() -> None:
    """A range inside a page ends at a multiple of 64."""
    page = Page.from_sizes(0, bytes(200), [1] * 200, last_chain=b"c", observation=TopicLog().observe())
    assert page.choose_end(0, max_bytes=100, last_seq=200) == 64
    assert page.choose_end(64, max_bytes=100, last_seq=200) == 128
    assert page.choose_end(128, max_bytes=100, last_seq=200) == 200


@pytest.mark.parametrize(("position", "end"), [(100, 101), (100, 104), (101, 103), (103, 104)])
def test_joined_and_entries_agree(position: int, end: int) -> None:
    """The bytes of a range are its entries, joined; each has the size it was read with."""
    page = _page(4)
    entries = page.entries(position, end)
    assert b"".join(entries) == page.joined(position, end)
    assert [len(entry) for entry in entries] == list(range(position - 99, end - 99))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_cut(count: int) -> None:
    """A page ends before the row that cannot be read, and says which it is."""
    page = _page(4).cut(count)
    assert (page.last_seq, page.unreadable_seq) == (100 + count, 101 + count)
    assert page.blob == b"".join(b"%d" % size * size for size in range(1, count + 1))
    assert [page.covers(position) for position in range(99, 105)].count(True) == count
