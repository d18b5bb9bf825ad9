"""When to try again: exponential backoff with full jitter, one per retried operation. Pure.

Reconnects of many clients must not meet: each delay is drawn uniformly from 0 to the current
ceiling. A server's own ``retry_after_ms`` replaces the draw, since it has already spread its
callers. Stability forgives: a connection that lasted STABLE_AFTER_S starts the sequence anew.
"""

from __future__ import annotations

from typing import Final, Protocol

import attrs

__all__ = ["Backoff", "BackoffLimits", "Rng"]

# A server's return time is obeyed up to here. Longer: one wrong number parks a client for days.
# Shorter: we come back while a long maintenance is still running, which costs it one refusal.
RETRY_AFTER_MAX_S: Final = 900.0


class Rng(Protocol):
    """The one method of random.Random that the client needs."""

    def random(self) -> float:
        """Return a float, 0.0 <= x < 1.0."""
        ...


@attrs.frozen
class BackoffLimits:
    """SPEC section 6, client backoff. Seconds."""

    first_s: float = 0.25
    ceiling_s: float = 30.0
    stable_after_s: float = 60.0


class Backoff:
    """Counts failures in a row and says how long to wait before the next attempt."""

    def __init__(self, limits: BackoffLimits | None = None) -> None:
        self.limits = limits or BackoffLimits()
        self.failures = 0
        self._began_s: float | None = None

    def begin(self, now_s: float) -> None:
        """Note that the operation works since ``now_s`` (a welcome arrived)."""
        self._began_s = now_s

    def end(self, now_s: float) -> None:
        """Note that it stopped working; forgives earlier failures if it was stable until now."""
        if self._began_s is not None and now_s - self._began_s >= self.limits.stable_after_s:
            self.failures = 0
        self._began_s = None

    def next_delay_s(self, rng: Rng, *, retry_after_ms: int = 0) -> float:
        """Return the wait before the next attempt, and count one more failure.

        Args:
            rng: Source of the jitter.
            retry_after_ms: The server's own return time; 0 if it gave none.
        """
        ceiling_s = self.ceiling_s()
        self.failures += 1
        if retry_after_ms > 0:
            return min(retry_after_ms / 1000, RETRY_AFTER_MAX_S)
        return rng.random() * ceiling_s

    def ceiling_s(self) -> float:
        """Return the longest wait that the next draw can give: first_s, doubling to ceiling_s."""
        # 2**64 * 0.25 s is past any ceiling; the bound keeps the power finite.
        return min(self.limits.ceiling_s, self.limits.first_s * 2.0 ** min(self.failures, 64))
