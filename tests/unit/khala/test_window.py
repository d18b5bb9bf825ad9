"""The window: bounds, ranges and alignment, on both sides of every number."""

import tracemalloc

import pytest

from khala.core.window import FRAME_OVERHEAD_BYTES, RANGE_ALIGNMENT, Window, aligned_end


def _window(count: int, *, size: int = 10, max_frames: int = 100, max_bytes: int = 10_000) -> Window:
    window = Window(max_frames, max_bytes)
    window.extend(_entries(1, count, size=size), b"c%d" % count)
    return window


def _entries(first: int, last: int, *, size: int = 10) -> list[bytes]:
    return [b"%d" % (seq % 10) * size for seq in range(first, last + 1)]


def test_empty_window_holds_nothing_and_covers_its_head() -> None:
    """A window that holds no frame has base_seq == head_seq + 1 and covers a reader at its head."""
    window = Window(10, 100)
    window.reset(41, b"chain")
    assert (len(window), window.size_bytes, window.base_seq, window.head_seq) == (0, 0, 42, 41)
    assert window.head_chain == b"chain"
    assert window.covers(41)
    assert not window.covers(40)


def test_covers_on_both_sides_of_the_base() -> None:
    """A position is covered iff the frame after it is held."""
    window = _window(10, max_frames=4)
    assert window.base_seq == 7
    assert [window.covers(position) for position in (4, 5, 6, 7, 10)] == [False, False, True, True, True]


@pytest.mark.parametrize(("count", "held"), [(3, 3), (4, 4), (5, 4), (6, 4)])
def test_trims_by_frames_at_the_bound_and_beyond(count: int, held: int) -> None:
    """INV-7: max_frames frames are held; one more drops the oldest."""
    window = _window(count, max_frames=4)
    assert len(window) == held
    assert window.entries(count - held, count) == _entries(count - held + 1, count)


@pytest.mark.parametrize(
    ("max_bytes", "held"),
    [(39, 3), (40, 4), (41, 4), (49, 4), (50, 5), (10, 1), (9, 1), (1, 1)],
)
def test_trims_by_bytes_at_the_bound_and_beyond(max_bytes: int, held: int) -> None:
    """INV-7: size_bytes <= max_bytes, but the newest frame stays even if it is larger alone."""
    window = _window(5, max_bytes=max_bytes)
    assert len(window) == held
    assert window.size_bytes == 10 * held
    assert window.entries(5 - held, 5) == _entries(6 - held, 5)


def test_trims_by_bytes_after_earlier_trims() -> None:
    """Running totals survive trimming: later bounds are as exact as the first."""
    window = Window(100, 40)
    for seq in range(1, 30):
        window.extend(_entries(seq, seq), b"c")
        assert len(window) == min(seq, 4)
        assert window.size_bytes == 10 * min(seq, 4)


def test_one_frame_larger_than_the_window_replaces_all() -> None:
    """A frame above max_bytes is held alone, and gives way to the next one."""
    window = _window(3, max_bytes=40)
    window.extend([b"L" * 41], b"c")
    assert (len(window), window.size_bytes, window.base_seq) == (1, 41, 4)
    window.extend([b"s"], b"c")
    assert (len(window), window.size_bytes, window.base_seq) == (1, 1, 5)


def test_extend_by_nothing_changes_only_the_chain() -> None:
    """No entries: head, bytes and frames stay."""
    window = _window(3)
    window.extend([], b"other")
    assert (window.head_seq, len(window), window.size_bytes, window.head_chain) == (3, 3, 30, b"other")


@pytest.mark.parametrize(
    ("count", "freed", "left"), [(-1, 0, 3), (0, 0, 3), (1, 10, 2), (3, 30, 0), (4, 30, 0)]
)
def test_drop_oldest_frees_what_it_says(count: int, freed: int, left: int) -> None:
    """drop_oldest returns the memory freed and never drops more than there is."""
    window = _window(3)
    assert window.drop_oldest(count) == freed + FRAME_OVERHEAD_BYTES * (3 - left)
    assert (len(window), window.head_seq, window.base_seq) == (left, 3, 4 - left)
    assert window.size_bytes == 10 * left


def test_drop_oldest_of_an_empty_window_frees_nothing() -> None:
    """A window that a restart of history emptied may be chosen for trimming all the same."""
    window = _window(3)
    window.reset(3, b"c")
    assert window.drop_oldest(1) == 0
    assert (len(window), window.head_seq) == (0, 3)


def test_a_drained_window_goes_on_at_its_head() -> None:
    """After dropping everything, the next frame is held at head_seq + 1 with exact bytes."""
    window = _window(3)
    window.drop_oldest(3)
    window.extend([b"abcd"], b"c")
    assert (window.base_seq, window.head_seq, window.size_bytes) == (4, 4, 4)
    assert window.entries(3, 4) == [b"abcd"]


def test_reset_forgets_frames_and_totals() -> None:
    """After a reset the next frame follows the new head, also if that is lower."""
    window = _window(9)
    window.reset(2, b"forked")
    window.extend([b"abc"], b"c")
    assert (window.base_seq, window.head_seq, window.size_bytes) == (3, 3, 3)
    assert window.entries(2, 3) == [b"abc"]


@pytest.mark.parametrize(
    ("max_bytes", "end"),
    [(0, None), (9, None), (10, 6), (11, 6), (19, 6), (20, 7), (49, 9), (50, 10), (51, 10), (500, 10)],
)
def test_choose_end_by_bytes(max_bytes: int, end: int | None) -> None:
    """A range is no larger than max_bytes; None if not even its first frame fits."""
    assert _window(10).choose_end(5, max_bytes=max_bytes, last_seq=10) == end


@pytest.mark.parametrize(("last_seq", "end"), [(6, 6), (7, 7), (10, 10), (11, 10), (99, 10)])
def test_choose_end_never_passes_last_seq_or_head(last_seq: int, end: int) -> None:
    """A barrier and the head both end a range."""
    assert _window(10).choose_end(5, max_bytes=10_000, last_seq=last_seq) == end


def test_choose_end_after_trimming() -> None:
    """Byte totals are relative to what is still held, not to the first frame ever."""
    window = _window(10, max_frames=4)
    assert window.choose_end(6, max_bytes=20, last_seq=10) == 8
    assert window.choose_end(6, max_bytes=9, last_seq=10) is None


@pytest.mark.parametrize(
    ("first", "last", "head", "end"),
    [
        (1, 63, 200, 63),  # no boundary inside: where it is
        (1, 64, 200, 64),
        (1, 65, 200, 64),
        (1, 127, 200, 64),
        (1, 128, 200, 128),
        (64, 65, 200, 64),
        (65, 66, 200, 66),
        (65, 127, 200, 127),
        (65, 130, 200, 128),
        (10, 199, 200, 192),
        (33, 92, 200, 64),  # just half of it is left
        (35, 95, 200, 95),  # less than half
        (61, 120, 200, 120),
        (10, 200, 200, 200),  # reaches the head: everybody is there
        (64, 64, 64, 64),
    ],
)
def test_aligned_end(first: int, last: int, head: int, end: int) -> None:
    """Ranges of laggards end at multiples of 64 that leave half of them, ranges that reach the head end there."""
    assert RANGE_ALIGNMENT == 64
    assert aligned_end(first, last, head_seq=head) == end


def test_laggards_meet_at_boundaries() -> None:
    """Two readers that start apart choose the same end, so that they share all later ranges."""
    window = Window(1_000, 1_000_000)
    window.extend(_entries(1, 500), b"c")
    ends = {window.choose_end(position, max_bytes=700, last_seq=500) for position in (3, 20, 27)}
    assert ends == {64}


@pytest.mark.parametrize(
    ("position", "size_bytes"), [(1, None), (2, 1_200), (3, 900), (5, 300), (6, 0), (7, 0)]
)
def test_bytes_after(position: int, size_bytes: int | None) -> None:
    """Everything after a position, or None if some of it is not held: frames 3 to 6 are."""
    window = Window(4, 1_000_000)
    window.extend([bytes(300)] * 6, b"c")
    assert window.bytes_after(position) == size_bytes


def test_bytes_after_in_an_empty_window() -> None:
    """Nothing is held, so nothing is known of what came before the head."""
    window = Window(4, 1_000)
    window.reset(5, b"c")
    assert [window.bytes_after(position) for position in (4, 5)] == [None, 0]


@pytest.mark.parametrize("size", [20, 81, 263, 1_100])
def test_memory_is_what_the_process_needs(size: int) -> None:
    """INV-7: frames of any size cost within a tenth of what their node's budget is charged for them."""
    windows = [Window(1_024, 4 * 1024 * 1024) for _ in range(8)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for window in windows:
            for _ in range(0, 1_024, 16):
                window.extend([bytes(size) for _ in range(16)], b"chain")
        needed = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    charged = sum(window.memory_bytes for window in windows)
    assert 0.9 * needed <= charged <= 1.15 * needed


def test_what_dropping_frees_is_what_they_cost() -> None:
    """The budget is given back exactly what it was charged."""
    window = Window(1_024, 1 << 20)
    window.extend([bytes(10), bytes(20), bytes(30)], b"chain")
    before = window.memory_bytes
    assert window.drop_oldest(2) == before - window.memory_bytes > 30
    assert window.drop_oldest(5) > 30
    assert window.memory_bytes == 0
