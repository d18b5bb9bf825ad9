"""Token buckets, as values of time: pure, the caller brings ``now``."""

from __future__ import annotations

from collections import deque

import attrs


@attrs.define(eq=False)
class TokenBucket:
    """``rate_per_s`` sustained, ``burst`` at once. Invariant: ``0 <= tokens <= burst``."""

    rate_per_s: float
    burst: float
    _tokens: float
    _updated_at: float

    @classmethod
    def full(cls, rate_per_s: float, burst: float, *, now: float) -> TokenBucket:
        """Start with the whole burst available."""
        return cls(rate_per_s, burst, burst, now)

    def take(self, now: float, count: float = 1.0) -> bool:
        """Take tokens if there are enough; otherwise change nothing and return False."""
        if now > self._updated_at:
            self._tokens = min(self.burst, self._tokens + (now - self._updated_at) * self.rate_per_s)
            self._updated_at = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def wait_s(self, count: float = 1.0) -> float:
        """Return how long after the last ``take`` the tokens will be there."""
        return max(0.0, (count - self._tokens) / self.rate_per_s)

    def retune(self, rate_per_s: float, burst: float, now: float) -> None:
        """Take over limits that may have changed; what was earned until now was earned at the old rate.

        A bucket that was full is full again: a higher burst is there at once.
        """
        if rate_per_s == self.rate_per_s and burst == self.burst:
            return
        self.take(now, 0.0)
        is_full = self._tokens >= self.burst
        self.rate_per_s, self.burst = rate_per_s, burst
        self._tokens = burst if is_full else min(self._tokens, burst)


@attrs.define(eq=False)
class SlidingCount:
    """Counts events of the last ``window_s``; holds at most ``limit + 1`` times."""

    limit: int
    window_s: float
    _times: deque[float] = attrs.field(factory=deque)

    def exceeds(self, now: float) -> bool:
        """Count one more; return whether the window now holds ``limit`` or more."""
        self._times.append(now)
        while self._times and self._times[0] <= now - self.window_s:
            self._times.popleft()
        if len(self._times) > self.limit:
            self._times.popleft()
        return len(self._times) >= self.limit
