"""What a transaction takes, at each limit and one beyond."""

from __future__ import annotations

from collections import deque

import attrs
import pytest

from runtime.core.batch import take_batch
from runtime.core.commands import Submission
from runtime.core.limits import RuntimeLimits
from tests.actors.runtime.rig import append, facts, thoughts


@attrs.frozen
class Entry:
    submission: Submission


RUN = facts()
LIMITS = RuntimeLimits(batch_events_max=10, batch_bytes_max=1_000)


def entry(*texts: str) -> Entry:
    """Return one waiting submission with a thought for each text."""
    return Entry(Submission((append(RUN, thoughts(*texts)),)))


def test_empty_inbox() -> None:
    """Nothing waits, nothing is taken."""
    assert take_batch(deque[Entry](), LIMITS) == []


@pytest.mark.parametrize(("count", "taken"), [(9, 9), (10, 10), (11, 10)])
def test_events(count: int, taken: int) -> None:
    """A batch has at most batch_events_max events, oldest first; the rest stays in order."""
    entries = [entry("x") for _ in range(count)]
    inbox = deque(entries)
    assert take_batch(inbox, LIMITS) == entries[:taken]
    assert list(inbox) == entries[taken:]


def test_bytes() -> None:
    """A batch has at most batch_bytes_max payload bytes: exactly that many still fit."""
    size = entry("x" * 100).submission.size_bytes
    exact = RuntimeLimits(batch_events_max=10, batch_bytes_max=3 * size)
    entries = [entry("x" * 100) for _ in range(4)]
    assert take_batch(deque(entries), exact) == entries[:3]
    less = RuntimeLimits(batch_events_max=10, batch_bytes_max=3 * size - 1)
    assert take_batch(deque(entries), less) == entries[:2]


def test_first_is_taken_whatever_its_size() -> None:
    """One request may be larger than a batch; it goes alone."""
    large, small = entry(*["x"] * 20), entry("y")
    inbox = deque([large, small])
    assert take_batch(inbox, LIMITS) == [large]
    assert take_batch(inbox, LIMITS) == [small]


def test_submissions_are_whole() -> None:
    """A submission that does not fit any more waits for the next batch as a whole."""
    several = Entry(Submission(tuple(append(RUN, thoughts("s")) for _ in range(4))))
    entries = [entry(*["x"] * 7), several]
    inbox = deque(entries)
    assert take_batch(inbox, LIMITS) == entries[:1]
    assert take_batch(inbox, LIMITS) == entries[1:]
