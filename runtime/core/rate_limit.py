"""Token buckets of events, one per topic that was written recently.

Pure: time is an argument. A bucket holds at most ``rate x burst_s`` tokens and a batch is one
decision: it passes if its tokens are there (or the bucket is full, so that a batch larger than the
bucket is not refused for ever) and then takes them all, going below zero if need be.

Asking and taking are two calls, because tokens are taken only for what was committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.topics import TopicClass

__all__ = ["Rate", "RateLimiter", "rates_of"]

# Buckets of idle topics fill up and are forgotten; this bounds how many are looked at between sweeps.
SWEEP_EVERY_TOPICS: Final = 1_024


@attrs.frozen
class Rate:
    """Sustained events per second, and the most tokens that an unused bucket holds."""

    per_s: float
    burst: float


@attrs.define
class _Bucket:
    # Invariant: tokens <= rate.burst; tokens as they were at `at`.
    tokens: float
    at: float
    rate: Rate

    def level(self, now: float) -> float:
        return min(self.rate.burst, self.tokens + max(0.0, now - self.at) * self.rate.per_s)


def rates_of(classes: Mapping[str, TopicClass], overrides: Mapping[str, float]) -> dict[str, Rate]:
    """Return the rate of each class that has one.

    Args:
        classes: The registry of topic classes.
        overrides: Configured events per second by class name; 0 lifts the limit of that class.

    Raises:
        ValueError: An override names no class, or is negative.
    """
    for name, per_s in overrides.items():
        if name not in classes:
            message = f"{name}: no topic class; known are {', '.join(classes)}"
            raise ValueError(message)
        if per_s < 0:
            message = f"{name}: expected events per second, or 0 for no limit"
            raise ValueError(message)
    rates: dict[str, Rate] = {}
    for name, row in classes.items():
        per_s = overrides.get(name, row.publish_rate_per_s or 0.0)
        if per_s > 0:
            rates[name] = Rate(per_s, per_s * row.publish_burst_s)
    return rates


class RateLimiter:
    """The buckets of all topics. A class without a rate is not limited."""

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self._rates = rates
        self._buckets: dict[str, _Bucket] = {}
        self._sweep_at = SWEEP_EVERY_TOPICS

    @property
    def topic_count(self) -> int:
        """How many topics are remembered."""
        return len(self._buckets)

    def rate_text(self, topic_class: str) -> str:
        """Return the sustained rate of a class as a configuration says it, without an exponent; 0: no limit (any more)."""
        return f"{_per_s(self._rates, topic_class):f}".rstrip("0").rstrip(".")

    def replace_rates(self, rates: Mapping[str, Rate]) -> list[tuple[str, float, float]]:
        """Take over other rates; return class, old and new events per second of what differs (0: no limit).

        Where anything differs, every topic begins anew with a full bucket.
        """
        names = sorted({*rates, *self._rates})
        changes = [
            (name, old, new)
            for name in names
            if (old := _per_s(self._rates, name)) != (new := _per_s(rates, name))
        ]
        if changes:
            self._rates = rates
            self._buckets.clear()
        return changes

    def wait_s(self, topic: str, topic_class: str, count: int, *, now: float, pending: int = 0) -> float:
        """Return 0 if ``count`` events may be written now, else the seconds until they may.

        Args:
            topic: The topic to be written.
            topic_class: Its class.
            count: Events of the batch.
            now: Seconds of any monotonic clock.
            pending: Events already decided for this topic whose tokens are not taken yet.
        """
        rate = self._rates.get(topic_class)
        if rate is None:
            return 0.0
        bucket = self._buckets.get(topic)
        level = (rate.burst if bucket is None else bucket.level(now)) - pending
        missing = min(float(count), rate.burst) - level
        return max(0.0, missing / rate.per_s)

    def take(self, topic: str, topic_class: str, count: int, *, now: float) -> None:
        """Take the tokens of events that were committed."""
        rate = self._rates.get(topic_class)
        if rate is None:
            return
        bucket = self._buckets.get(topic)
        if bucket is None:
            bucket = self._buckets[topic] = _Bucket(rate.burst, now, rate)
        bucket.tokens = bucket.level(now) - count
        bucket.at = now
        if len(self._buckets) >= self._sweep_at:
            self.forget_full(now)

    def forget_full(self, now: float) -> None:
        """Forget buckets that are full again: without one, a topic has exactly a full bucket."""
        self._buckets = {t: b for t, b in self._buckets.items() if b.level(now) < b.rate.burst}
        self._sweep_at = max(SWEEP_EVERY_TOPICS, 2 * len(self._buckets))


def _per_s(rates: Mapping[str, Rate], topic_class: str) -> float:
    rate = rates.get(topic_class)
    return 0.0 if rate is None else rate.per_s
