"""How the figures of all nodes changed over the last hour, in bounded memory. Pure.

Reports carry totals; what counts here is by how much they grew, noted in buckets of ``BUCKET_S``.
Invariant: at most ``KEPT_S / BUCKET_S`` buckets, oldest first.
"""

from __future__ import annotations

from collections import deque
from math import floor
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.fairness import jain_index

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.core.node_reports import FanoutFigures

__all__ = ["BUCKET_S", "KEPT_S", "FanoutChanges", "FanoutTrend", "FanoutTrendLog"]

# As often as nodes report. Longer: short windows of a test show nothing.
BUCKET_S: Final = 5
KEPT_S: Final = 3_600
# What ``fairness_min`` is the worst of. Shorter: a handful of subscriptions decides. Longer: a bad moment is averaged away.
_MINUTE_S: Final = 60


@attrs.frozen(kw_only=True)
class FanoutChanges:
    """By how much totals grew."""

    throttle: int = 0
    catch_up: int = 0
    release: int = 0
    disconnect: int = 0
    evictions: int = 0

    @classmethod
    def between(cls, before: FanoutFigures | None, after: FanoutFigures) -> FanoutChanges:
        """Return the growth from one report of a process to a later one; None: since it started."""
        return cls(
            **{
                field.name: max(
                    0, getattr(after, field.name) - (getattr(before, field.name) if before else 0)
                )
                for field in attrs.fields(cls)
            }
        )

    def plus(self, other: FanoutChanges) -> FanoutChanges:
        """Return both together."""
        return FanoutChanges(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in attrs.fields(FanoutChanges)
            }
        )


@attrs.frozen
class FanoutTrend:
    """What a window shows.

    Attributes:
        covered_s: How much of the window has been seen.
        fairness: Over all that were judged in it.
        fairness_min: The lowest of any minute in which somebody was judged.
        before: Growth in the older half of what is covered.
        after: Growth in the newer half.
    """

    window_s: int
    covered_s: int
    fairness: float
    fairness_min: float
    before: FanoutChanges
    after: FanoutChanges


@attrs.define
class _Bucket:
    number: int
    changes: FanoutChanges = attrs.field(factory=FanoutChanges)
    judged: int = 0
    fairness_sum: float = 0.0
    fairness_squares: float = 0.0


class FanoutTrendLog:
    """The buckets of the last hour."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        # Monotonic time of the first note; before it nothing is known.
        self._since: float | None = None

    def note(self, changes: FanoutChanges, figures: FanoutFigures, now: float) -> None:
        """Note the growth that a report shows, and the fairness of its last look."""
        if self._since is None:
            self._since = now
        number = floor(now / BUCKET_S)
        if not self._buckets or self._buckets[-1].number < number:
            self._buckets.append(_Bucket(number))
            while self._buckets[0].number <= number - KEPT_S // BUCKET_S:
                self._buckets.popleft()
        bucket = self._buckets[-1]
        bucket.changes = bucket.changes.plus(changes)
        bucket.judged += figures.judged
        bucket.fairness_sum += figures.fairness_sum
        bucket.fairness_squares += figures.fairness_squares

    def trend(self, window_s: int, now: float) -> FanoutTrend:
        """Return what the last ``window_s`` seconds show, 1..KEPT_S."""
        covered_s = 0.0 if self._since is None else min(float(window_s), now - self._since)
        oldest, middle = floor((now - covered_s) / BUCKET_S), floor((now - covered_s / 2) / BUCKET_S)
        seen = [bucket for bucket in self._buckets if bucket.number >= oldest]
        minutes: dict[int, list[_Bucket]] = {}
        for bucket in seen:
            minutes.setdefault((bucket.number - oldest) * BUCKET_S // _MINUTE_S, []).append(bucket)
        return FanoutTrend(
            window_s=window_s,
            covered_s=floor(covered_s),
            fairness=_fairness(seen),
            fairness_min=min(map(_fairness, minutes.values()), default=1.0),
            before=_sum(bucket.changes for bucket in seen if bucket.number < middle),
            after=_sum(bucket.changes for bucket in seen if bucket.number >= middle),
        )


def _fairness(buckets: Iterable[_Bucket]) -> float:
    rows = tuple(buckets)
    return jain_index(
        sum(row.judged for row in rows),
        sum(row.fairness_sum for row in rows),
        sum(row.fairness_squares for row in rows),
    )


def _sum(changes: Iterable[FanoutChanges]) -> FanoutChanges:
    total = FanoutChanges()
    for row in changes:
        total = total.plus(row)
    return total
