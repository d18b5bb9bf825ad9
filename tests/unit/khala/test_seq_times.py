"""When positions were passed: exact while there is room, wider with age, never invented."""

from khala.core.seq_times import Passed, SeqTimes


def test_exact_while_there_is_room() -> None:
    """One mark for each passing; both its ends belong to it, its neighbours do not."""
    times = SeqTimes(8)
    times.note(3, 5, 10.0)
    times.note(6, 6, 11.0)
    times.note(9, 10, 12.0, 12.5)
    found = {seq: times.find(seq) for seq in range(2, 12)}
    assert found == {
        2: None,
        3: Passed(10.0, 10.0),
        4: Passed(10.0, 10.0),
        5: Passed(10.0, 10.0),
        6: Passed(11.0, 11.0),
        7: None,
        8: None,
        9: Passed(12.0, 12.5),
        10: Passed(12.0, 12.5),
        11: None,
    }


def test_the_first_time_counts() -> None:
    """What was noted before keeps its time; only what is above it is taken."""
    times = SeqTimes(8)
    times.note(1, 4, 1.0)
    times.note(3, 6, 2.0)
    times.note(2, 5, 3.0)
    assert [times.find(seq) for seq in (4, 5)] == [Passed(1.0, 1.0), Passed(2.0, 2.0)]
    assert (times.last_seq, len(times)) == (6, 2)


def test_neighbours_merge_when_there_is_no_room() -> None:
    """At the bound nothing is forgotten: two old marks become one, with the bounds of both."""
    times = SeqTimes(4)
    for seq in (1, 2, 3, 4):
        times.note(seq, seq, float(seq))
    assert [times.find(seq) for seq in (1, 4)] == [Passed(1, 1), Passed(4, 4)]
    times.note(5, 5, 5.0)
    assert len(times) == 4
    assert [times.find(seq) for seq in (1, 2)] == [Passed(1, 2), Passed(1, 2)]
    assert [times.find(seq) for seq in (3, 4, 5)] == [Passed(3, 3), Passed(4, 4), Passed(5, 5)]


def test_older_marks_move_to_the_next_level() -> None:
    """With room for several levels the first one is exact, the next one half as much, and so on."""
    times = SeqTimes(48)
    for seq in range(1, 41):
        times.note(seq, seq, float(seq))
    widths = [
        found.last_at - found.first_at for seq in range(1, 41) if (found := times.find(seq)) is not None
    ]
    assert len(widths) == 40
    assert widths == sorted(widths, reverse=True)
    assert set(widths) == {0.0, 1.0}
    assert widths.count(0.0) == 16


def test_a_clock_that_is_set_back() -> None:
    """Published times are wall times: whatever they do, the bound holds and nothing is lost."""
    times = SeqTimes(8)
    for seq in range(1, 100):
        times.note(seq, seq, -10.0 * seq)
        assert len(times) <= 8
    assert all(times.find(seq) is not None for seq in range(1, 100))


def test_forgetting() -> None:
    """After another history has begun, its seqs may be lower."""
    times = SeqTimes(4)
    times.note(7, 9, 1.0)
    times.clear()
    assert (times.find(8), times.last_seq) == (None, 0)
    times.note(1, 1, 2.0)
    assert times.find(1) == Passed(2.0, 2.0)
