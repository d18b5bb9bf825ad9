"""How long to wait before the next attempt to connect: capped exponential, full jitter. Pure.

An attempt waits a random part of a time that doubles from ``FIRST_S`` to ``SHORT_CAP_S``: a restart is
noticed within seconds. A broker that was connected once and has been away for ``patience_s`` in all since
then is tried every ``LONG_MIN_S`` to ``2 * LONG_MIN_S``, whatever the draw. Before the first connection
that never happens: somebody waits for it in order to become ready. Only a connection that held for
``STABLE_S`` starts it anew, so that a broker which accepts and drops is not hammered.

There is one owner of retries for each connection (``reconnecting.py``); libraries retry nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FIRST_S", "LONG_MIN_S", "PATIENCE_S", "SHORT_CAP_S", "STABLE_S", "Backoff"]

FIRST_S: Final = 0.1
# Longer: after an outage of a minute, delivery is slow for longer than 5 s. Shorter: more attempts.
SHORT_CAP_S: Final = 4.0
PATIENCE_S: Final = 120.0
LONG_MIN_S: Final = 30.0
STABLE_S: Final = 60.0
# 2**16 is far above the cap; higher powers only make the numbers large.
_DOUBLINGS_MAX: Final = 16


@attrs.define
class Backoff:
    """The waiting times of one connection. Every ``now`` is a monotonic time in seconds."""

    rng: Callable[[], float]
    _away_since: float
    _patience_s: float = PATIENCE_S
    # Time without a connection since the last stable one, up to _away_since; none before the first.
    _away_s: float = 0.0
    _failures: int = 0
    _connected_at: float | None = None
    _was_connected: bool = False

    def connected(self, now: float) -> None:
        """A connection was made."""
        if self._was_connected:
            self._away_s += now - self._away_since
        self._was_connected = True
        self._connected_at = now

    def lost(self, now: float) -> None:
        """The connection was lost, or an attempt made none."""
        if self._connected_at is None:
            return
        if now - self._connected_at >= STABLE_S:
            self._failures = 0
            self._away_s = 0.0
        self._connected_at = None
        self._away_since = now

    def next_delay_s(self, now: float) -> float:
        """Return how long to wait before the next attempt; counts it."""
        ceiling = min(SHORT_CAP_S, FIRST_S * 2.0 ** min(self._failures, _DOUBLINGS_MAX))
        self._failures += 1
        if self._was_connected and self._away_s + now - self._away_since >= self._patience_s:
            return LONG_MIN_S * (1.0 + self.rng())
        return ceiling * self.rng()
