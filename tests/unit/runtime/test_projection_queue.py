"""What a projector looks at next, on values; time is an argument."""

from __future__ import annotations

import pytest

from runtime.core.projection_queue import RETRY_FIRST_S, RETRY_MAX_S, ProjectionQueue
from tests.actors.runtime.rig import topic_of

A, B, C = topic_of(1), topic_of(2), topic_of(3)


def noted(*topics: object, capacity: int = 10) -> ProjectionQueue:
    """Return a queue with news of one event of each topic, at time 0."""
    queue = ProjectionQueue(capacity=capacity)
    for topic in topics:
        queue.note(topic, head_seq=1, applied_seq=0, now=0.0)  # type: ignore[arg-type]
    return queue


def test_oldest_news_first_and_bounded() -> None:
    """Asked for so many, it gives the oldest, at most as many as asked; more news of one topic is still one."""
    queue = noted(A, B, C, A)
    assert queue.take(2, now=0) == [A, B]
    assert queue.take(2, now=0) == [C]
    assert queue.take(2, now=0) == []


@pytest.mark.parametrize(("count", "has_lost"), [(3, False), (4, True)])
def test_capacity(count: int, has_lost: bool) -> None:
    """INV-7: at the capacity all are known; one beyond it is refused and said so; known ones still move."""
    queue = noted(*map(topic_of, range(count)), capacity=3)
    assert (len(queue), queue.has_lost) == (3, has_lost)
    queue.note(topic_of(0), head_seq=9, applied_seq=0, now=0)
    assert queue.events_behind == 9 + 1 + 1


def test_settled_is_forgotten() -> None:
    """Applied and told: nothing is left of it."""
    queue = noted(A)
    queue.take(1, now=0)
    queue.settle(A, 1, now=0, wait_s=None)
    assert (len(queue), A in queue, queue.next_due()) == (0, False, None)
    queue.settle(A, 1, now=0, wait_s=None)
    assert len(queue) == 0


def test_what_is_left_is_ready_again() -> None:
    """A page was full, or news came during the step."""
    queue = ProjectionQueue(capacity=3)
    queue.note(A, head_seq=10, applied_seq=0, now=0)
    queue.take(1, now=0)
    queue.settle(A, 5, now=1, wait_s=None)
    assert queue.events_behind == 5
    assert queue.take(1, now=1) == [A]
    queue.note(A, head_seq=11, applied_seq=10, now=1)
    queue.settle(A, 10, now=1, wait_s=None)
    assert queue.take(1, now=1) == [A]


def test_news_that_a_step_has_covered_wakes_nobody() -> None:
    """The step read further than the news."""
    queue = noted(A)
    queue.take(1, now=0)
    queue.note(A, head_seq=2, applied_seq=1, now=0)
    queue.settle(A, 2, now=0, wait_s=None)
    assert queue.take(1, now=0) == []


def test_held_back_until_due() -> None:
    """Both sides of the time; news makes it ready before, and the old time is then void."""
    queue = noted(A)
    queue.take(1, now=0)
    queue.settle(A, 1, now=0, wait_s=0.5)
    assert queue.next_due() == 0.5
    assert queue.take(1, now=0.499) == []
    assert queue.take(1, now=0.5) == [A]
    queue.settle(A, 1, now=0.5, wait_s=0.5)
    queue.note(A, head_seq=2, applied_seq=1, now=0.6)
    assert queue.next_due() is None
    assert queue.take(1, now=0.6) == [A]
    queue.settle(A, 2, now=0.6, wait_s=1.0)
    assert queue.next_due() == 1.6
    assert queue.take(1, now=1.0) == []


def test_set_aside_backs_off_and_ignores_news() -> None:
    """Twice as long each time, up to the maximum; a success forgets it all."""
    queue, now = noted(A), 0.0
    delays = []
    for _ in range(9):
        assert queue.take(1, now=now) == [A]
        delays.append(queue.set_aside(A, now=now))
        queue.note(A, head_seq=5, applied_seq=0, now=now)
        assert queue.take(1, now=now + delays[-1] - 0.001) == []
        assert queue.set_aside_count == 1
        now += delays[-1]
    assert delays == [min(RETRY_FIRST_S * 2**n, RETRY_MAX_S) for n in range(9)]
    queue.take(1, now=now)
    queue.settle(A, 5, now=now, wait_s=None)
    assert (queue.set_aside_count, len(queue)) == (0, 0)


def test_set_aside_is_not_behind() -> None:
    """One poisoned run is a ticket; seconds and events behind are what the page is about, and leave it out."""
    queue = noted(A)
    queue.take(1, now=0)
    queue.set_aside(A, now=0)
    queue.note(A, head_seq=9, applied_seq=0, now=1)
    assert (queue.events_behind, queue.seconds_behind(100)) == (0, 0)
    queue.note(B, head_seq=1, applied_seq=0, now=90)
    assert (queue.events_behind, queue.seconds_behind(100)) == (1, 10)
    assert queue.take(9, now=100) == [A]
    assert queue.take(9, now=100) == [B]
    assert (queue.events_behind, queue.seconds_behind(100)) == (1, 10)
    # It works again, and a page of it was applied: what is left is behind.
    queue.settle(A, 5, now=100, wait_s=None)
    assert (queue.events_behind, queue.set_aside_count) == (1 + 4, 0)


def test_what_failed_before_is_taken_alone_and_in_turn() -> None:
    """It spoils no transaction of others, and neither kind waits for all of the other."""
    queue = noted(A, B)
    for topic in queue.take(2, now=0):
        queue.set_aside(topic, now=0)
    for number in range(3, 7):
        queue.note(topic_of(number), head_seq=1, applied_seq=0, now=0)
    assert [queue.take(2, now=RETRY_FIRST_S) for _ in range(5)] == [
        [A], [topic_of(3), topic_of(4)], [B], [topic_of(5), topic_of(6)], [],
    ]  # fmt: skip
    queue.put_back(A)
    queue.put_back(B)
    assert [queue.take(2, now=RETRY_FIRST_S) for _ in range(2)] == [[A], [B]]


def test_set_aside_takes_no_room() -> None:
    """INV-7: those set aside have a bound of their own; beyond it the one that failed longest ago is forgotten."""
    queue = ProjectionQueue(capacity=3)
    for number in range(4):
        queue.set_aside(topic_of(number), now=number)
    queue.set_aside(topic_of(1), now=4)
    queue.set_aside(topic_of(4), now=5)
    assert queue.set_aside_count == 3
    assert [topic_of(number) in queue for number in range(5)] == [False, True, False, True, True]
    for number in range(5, 8):
        queue.note(topic_of(number), head_seq=1, applied_seq=0, now=6)
    assert (len(queue), queue.has_lost) == (3, False)
    # One of them works again, and there is no room: it is found again like any news that was refused.
    queue.settle(topic_of(3), 1, now=6, wait_s=1.0)
    assert (len(queue), queue.set_aside_count, queue.has_lost) == (3, 2, True)
    for number in range(8, 99):
        queue.set_aside(topic_of(number), now=7)
    assert queue.set_aside_count == 3
    assert len(queue._later) <= 4 * 3


def test_put_back_and_forget() -> None:
    """Nobody looked at it: ready again. It does not exist: gone."""
    queue = noted(A, B)
    queue.take(2, now=0)
    queue.put_back(A)
    queue.forget(B)
    queue.put_back(B)
    assert queue.take(2, now=0) == [A]
    assert queue.set_aside(C, now=0) == RETRY_FIRST_S
    assert (len(queue), queue.set_aside_count) == (1, 1)
    queue.forget(C)
    assert queue.set_aside_count == 0


def test_lag() -> None:
    """Events and seconds behind; what is only held back is not behind."""
    queue = ProjectionQueue(capacity=3)
    assert (queue.events_behind, queue.seconds_behind(5)) == (0, 0)
    queue.note(A, head_seq=10, applied_seq=4, now=1)
    queue.note(B, head_seq=3, applied_seq=3, now=2)
    queue.note(A, head_seq=12, applied_seq=10, now=3)
    assert (queue.events_behind, queue.seconds_behind(5)) == (8, 4)
    queue.take(2, now=5)
    queue.settle(A, 12, now=5, wait_s=1)
    assert (queue.events_behind, queue.seconds_behind(9)) == (0, 0)


def test_a_run_that_is_written_without_a_pause_is_not_old() -> None:
    """News comes during each step, which covers all that was there when it began: seconds, not minutes."""
    queue, head_seq = noted(A), 1
    for now in range(1, 100):
        assert queue.take(1, now=now) == [A]
        queue.note(A, head_seq=head_seq + 1, applied_seq=head_seq, now=now + 0.25)
        queue.settle(A, head_seq, now=now + 0.5, wait_s=None)
        assert queue.seconds_behind(now + 0.5) == 0.25
        head_seq += 1


@pytest.mark.parametrize(("applied_seq", "seconds"), [(9, 7), (10, 2)])
def test_a_step_that_leaves_old_news_leaves_it_old(applied_seq: int, seconds: float) -> None:
    """One below what was known when the step began: as old as before; all of it: as what came meanwhile."""
    queue = ProjectionQueue(capacity=3)
    queue.note(A, head_seq=10, applied_seq=0, now=0)
    queue.take(1, now=1)
    queue.note(A, head_seq=12, applied_seq=10, now=5)
    queue.note(A, head_seq=14, applied_seq=12, now=6)
    queue.settle(A, applied_seq, now=7, wait_s=None)
    assert queue.seconds_behind(7) == seconds


def test_void_entries_do_not_pile_up() -> None:
    """INV-7: a topic that is put off and woken again and again leaves nothing behind."""
    queue = noted(A, capacity=4)
    for number in range(2, 100):
        queue.take(1, now=0)
        queue.settle(A, number - 1, now=0, wait_s=float(number))
        queue.note(A, head_seq=number, applied_seq=number - 1, now=0)
    assert len(queue._later) <= 4 * 4
    assert queue.take(1, now=0) == [A]
