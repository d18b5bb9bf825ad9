"""Unit tests of khala.core.fanout_figures and khala_contracts.fairness: what fair means, and which topics are told."""

from __future__ import annotations

import pytest

from khala.core.fanout_figures import TOPICS_PER_LIST, FairnessSums, TopicFigures, choose_topics
from khala_contracts.fairness import jain_index
from khala_contracts.topics import TopicName

MIB = 1024 * 1024


def index_of(sums: FairnessSums) -> float:
    """Return Jain's index."""
    return jain_index(sums.judged, sums.total, sums.squares)


def test_the_index() -> None:
    """Equal shares 1, everything to one 1/n, nothing to anybody 0, nobody there 1."""
    assert jain_index(4, 4 * 0.3, 4 * 0.09) == pytest.approx(1.0)
    assert jain_index(4, 1.0, 1.0) == pytest.approx(0.25)
    assert jain_index(4, 0.0, 0.0) == 0.0
    assert jain_index(0, 0.0, 0.0) == 1.0


def test_everybody_got_everything() -> None:
    """Many at once are many one by one."""
    sums = FairnessSums()
    sums.note_whole(3)
    sums.note_share(1.0)
    assert (sums.judged, index_of(sums)) == (4, 1.0)


def test_half_are_forgotten() -> None:
    """An index of a half: below every threshold."""
    sums = FairnessSums()
    sums.note_whole(5)
    for _ in range(5):
        sums.note_share(0.0)
    assert index_of(sums) == pytest.approx(0.5)


def test_equal_topics_of_a_slow_connection() -> None:
    """Being slow is not unfair: what there was was divided evenly."""
    sums = FairnessSums()
    sums.note_contended([MIB, MIB, MIB])
    assert (sums.judged, index_of(sums)) == (3, pytest.approx(1.0))


def test_one_topic_holds_up_the_others() -> None:
    """Of three topics that all had frames waiting, one got all bytes."""
    sums = FairnessSums()
    sums.note_contended([3 * MIB, 0, 0])
    assert index_of(sums) == pytest.approx(1 / 3)


@pytest.mark.parametrize("got", [[], [100 * MIB], [256 * 1024, 256 * 1024 - 1], [64 * 1024, 0]])
def test_too_little_to_judge(got: list[int]) -> None:
    """One topic alone, or so few bytes that a single chunk would decide."""
    sums = FairnessSums()
    sums.note_contended(got)
    assert sums.judged == 0


def figures(name: str, *, rate: float = 0.0, lag: int = 0) -> TopicFigures:
    """Return a topic."""
    return TopicFigures(
        topic=TopicName(name),
        topic_class="run_events",
        head_seq=1,
        subscribers=1,
        replaying=0,
        frames_per_s=rate,
        lag_frames_max=lag,
    )


def test_the_busiest_and_the_most_delayed_are_told() -> None:
    """A hundred of each, each topic once."""
    rows = [figures(f"t{n}", rate=n, lag=1_000 - n) for n in range(1_000)]
    chosen = {row.topic for row in choose_topics(rows)}
    assert len(chosen) == 2 * TOPICS_PER_LIST
    assert {"t999", "t900", "t0", "t99"} <= chosen
    assert not {"t899", "t100"} & chosen
    assert len(choose_topics(rows[:10])) == 10
