"""Which sources a projector looks at next: what has news, what is held back, what is set aside.

Pure; ``now`` is an argument, in seconds of one monotonic clock. A source is in one of three places:
*ready* (news, oldest first), *later* (a summary that becomes due), or *set aside* (it failed; it gets
another try after a backoff, alone, whatever news it has).

Invariants:
1. At most ``capacity`` sources wait (INV-7). News of one more is refused, and ``has_lost`` says that a
   sweep must find it again: the queue is a hint, checkpoints are the truth.
2. At most ``capacity`` sources are set aside, beside those; of one more, the one that failed longest ago
   is forgotten, until a sweep finds it again. So failures take no room of healthy sources.
3. What is set aside is counted as that and nowhere else: neither as waiting nor as behind.
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName

__all__ = ["RETRY_FIRST_S", "RETRY_MAX_S", "ProjectionQueue"]

RETRY_FIRST_S: Final = 1.0
# Longer: a run whose poison was cured stays old. Shorter: a hopeless one costs a transaction and a log
# line that often.
RETRY_MAX_S: Final = 60.0


@attrs.define
class _Source:
    """What is known of one source.

    Attributes:
        head_seq: Highest position that was heard of.
        applied_seq: Applied, as far as is known.
        since: When the oldest news that is not applied came; None: all is applied.
        due_at: When it may be taken; 0: at once.
        failures: In a row; above 0 while it is set aside.
        taken_seq: What `head_seq` was when it was taken last.
        later_since: When the oldest news above `taken_seq` came; None: none has.
    """

    head_seq: int
    applied_seq: int = 0
    since: float | None = None
    taken_seq: int = 0
    later_since: float | None = None
    due_at: float = 0.0
    failures: int = 0


class ProjectionQueue:
    """The places of all sources that need attention."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._sources: dict[TopicName, _Source] = {}
        # The one that failed longest ago is the first.
        self._set_aside: dict[TopicName, _Source] = {}
        # Sources that may be taken, in the order in which they got news.
        self._ready: dict[TopicName, None] = {}
        # Those set aside whose next try is due, in that order.
        self._retries: dict[TopicName, None] = {}
        self._is_retry_next = False
        # (due_at, topic); an entry whose source has another due_at is void.
        self._later: list[tuple[float, TopicName]] = []
        self.has_lost = False

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, topic: object) -> bool:
        return topic in self._sources or topic in self._set_aside

    @property
    def set_aside_count(self) -> int:
        """Sources that failed and wait for another try."""
        return len(self._set_aside)

    @property
    def events_behind(self) -> int:
        """Events of sources that wait, known to exist and not known to be applied."""
        return sum(max(0, source.head_seq - source.applied_seq) for source in self._sources.values())

    def seconds_behind(self, now: float) -> float:
        """Return the age of the oldest news of a source that waits."""
        oldest = min((s.since for s in self._sources.values() if s.since is not None), default=now)
        return max(0.0, now - oldest)

    def note(self, topic: TopicName, *, head_seq: int, applied_seq: int, now: float) -> None:
        """Take news of a source.

        Args:
            topic: The source.
            head_seq: It has events up to this.
            applied_seq: Applied as far as the caller knows; what is known better stays.
            now: Current time.
        """
        source = self._find(topic)
        if source is None:
            if len(self._sources) >= self._capacity:
                self.has_lost = True
                return
            source = self._sources[topic] = _Source(head_seq, applied_seq)
        if head_seq > source.head_seq and source.later_since is None:
            source.later_since = now
        source.head_seq = max(source.head_seq, head_seq)
        if source.since is None and source.head_seq > source.applied_seq:
            source.since = now
        if not source.failures:
            source.due_at = 0.0
            self._ready[topic] = None

    def take(self, limit: int, *, now: float) -> list[TopicName]:
        """Return at most ``limit`` sources whose time has come; they stay known until they are settled.

        One that failed before comes alone, so that it spoils no transaction of others, and in turn with
        those that did not, so that neither kind waits for all of the other.
        """
        self._wake(now)
        is_retry = bool(self._retries) and (self._is_retry_next or not self._ready)
        place = self._retries if is_retry else self._ready
        self._is_retry_next = not is_retry
        taken = list(islice(place, 1 if is_retry else limit))
        for topic in taken:
            del place[topic]
            source = self._set_aside[topic] if is_retry else self._sources[topic]
            source.taken_seq, source.later_since = source.head_seq, None
        return taken

    def next_due(self) -> float | None:
        """Return when the next source that waits becomes ready; None: none waits."""
        while self._later and not self._is_current(*self._later[0]):
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def settle(self, topic: TopicName, applied_seq: int, *, now: float, wait_s: float | None) -> None:
        """Note what a step has done.

        Args:
            topic: A source that was taken.
            applied_seq: Its checkpoint.
            now: Current time.
            wait_s: Until a summary that is held back becomes due; None: nothing is held back.
        """
        source = self._sources.get(topic) or self._bring_back(topic)
        if source is None:
            return
        source.applied_seq = applied_seq
        if source.head_seq > applied_seq:
            if applied_seq >= source.taken_seq:
                # What is left came during the step. Without this a run that is written without a pause
                # would look older and older, although each step catches up.
                source.since = source.later_since
            source.due_at = 0.0
            self._ready[topic] = None
            return
        source.since = None
        self._ready.pop(topic, None)
        if wait_s is None:
            del self._sources[topic]
        else:
            self._put_off(topic, source, now + wait_s)

    def set_aside(self, topic: TopicName, *, now: float) -> float:
        """Put a source that failed aside and return for how many seconds."""
        source = self._find(topic) or _Source(0, since=now)
        self.forget(topic)
        if len(self._set_aside) >= self._capacity:
            self.forget(next(iter(self._set_aside)))
        self._set_aside[topic] = source
        delay_s = min(RETRY_FIRST_S * 2.0 ** min(source.failures, 16), RETRY_MAX_S)
        source.failures += 1
        self._put_off(topic, source, now + delay_s)
        return delay_s

    def put_back(self, topic: TopicName) -> None:
        """Make a source that was taken ready again: nobody has looked at it."""
        if topic in self._sources:
            self._ready[topic] = None
        elif topic in self._set_aside:
            self._retries[topic] = None

    def forget(self, topic: TopicName) -> None:
        """Drop a source, for example one that does not exist."""
        for place in (self._sources, self._set_aside, self._ready, self._retries):
            place.pop(topic, None)

    def _find(self, topic: TopicName) -> _Source | None:
        return self._sources.get(topic) or self._set_aside.get(topic)

    def _bring_back(self, topic: TopicName) -> _Source | None:
        """Let a source that is set aside wait again; None: it is not known, or there is no room."""
        source = self._set_aside.get(topic)
        if source is None:
            return None
        self.forget(topic)
        if len(self._sources) >= self._capacity:
            self.has_lost = True
            return None
        source.failures = 0
        self._sources[topic] = source
        return source

    def _put_off(self, topic: TopicName, source: _Source, due_at: float) -> None:
        source.due_at = due_at
        heapq.heappush(self._later, (due_at, topic))
        # Both places full are 2 * capacity: at least half of these are void.
        if len(self._later) > 4 * self._capacity:
            self._later = [entry for entry in self._later if self._is_current(*entry)]
            heapq.heapify(self._later)

    def _is_current(self, due_at: float, topic: TopicName) -> bool:
        source = self._find(topic)
        is_awake = topic in self._ready or topic in self._retries
        return source is not None and not is_awake and source.due_at == due_at

    def _wake(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            due_at, topic = heapq.heappop(self._later)
            if self._is_current(due_at, topic):
                self.put_back(topic)
