"""Marks of passed positions against every single passing, remembered one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from khala.core.seq_times import SeqTimes

# (frames skipped, frames passed, seconds since the passing before, how long it took)
PASSINGS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 5), st.floats(0, 100), st.floats(0, 1)), max_size=120
)


@given(st.integers(4, 17), PASSINGS)
def test_bounds_contain_the_truth(max_marks: int, passings: list[tuple[int, int, float, float]]) -> None:
    """Whatever was noted stays covered by bounds that contain its time, in max_marks marks at most."""
    times = SeqTimes(max_marks)
    truth: dict[int, tuple[float, float]] = {}
    head, now = 0, 0.0
    for skipped, count, wait_s, took_s in passings:
        first, head, now = head + skipped + 1, head + skipped + count, now + wait_s
        times.note(first, head, now, now + took_s)
        truth |= dict.fromkeys(range(first, head + 1), (now, now + took_s))
        now += took_s
        assert len(times) <= max_marks
    for seq, (first_at, last_at) in truth.items():
        found = times.find(seq)
        assert found is not None
        assert found.first_at <= first_at
        assert last_at <= found.last_at
    assert times.find(head + 1) is None


@given(st.integers(1, 4_000))
def test_width_grows_with_age_only(count: int) -> None:
    """One frame a second for an hour: the newest are exact, the others at most an eighth as wide as old."""
    times = SeqTimes(192)
    for seq in range(1, count + 1):
        times.note(seq, seq, float(seq))
    for seq in range(1, count + 1):
        found = times.find(seq)
        assert found is not None
        assert found.last_at - found.first_at <= (count - seq) / 8
