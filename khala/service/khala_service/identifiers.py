"""The real clock, randomness and identifiers: production values of the services' ports.

The only module besides the adapters that reads the wall clock or the system's randomness; everything
else takes `now`, `rng` and `ids` as values, so that the simulation can replace them.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from khala_contracts import ids

_NS_PER_MS: Final = 1_000_000
# RFC 9562 section 6.2, method 1: a 12-bit counter in rand_a. Its top bit starts at 0, so that at
# least 2,048 ids of one millisecond fit before the timestamp has to run ahead of the clock.
_COUNTER_MAX: Final = 0xFFF
_COUNTER_SEED_MASK: Final = 0x7FF
_RANDOM_BITS: Final = 62
_TIMESTAMP_MAX: Final = (1 << 48) - 1


class SystemClock:
    """Wall time of this machine."""

    def now(self) -> float:
        """Return Unix time in seconds. Never use it for time-outs: it may jump."""
        return time.time()


class SystemRng:
    """The operating system's randomness."""

    def random(self) -> float:
        """Return a number in [0, 1), for jitter."""
        return int.from_bytes(os.urandom(7), "big") / (1 << 56)

    def token_bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes, for secrets and identifiers."""
        return os.urandom(count)


class UuidV7Source:
    """Makes UUIDv7 values that strictly ascend within this process.

    Invariant: every value is greater, compared as bytes, than every value returned before, also if
    the clock is set back or more than 2,048 values are asked for within a millisecond.
    """

    def __init__(
        self,
        *,
        time_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._time_ns = time_ns
        self._random_bytes = random_bytes
        # Ids may be asked for from worker threads (imports, key generation).
        self._lock = threading.Lock()
        self._last_ms = -1
        self._counter = 0

    def next_bytes(self) -> bytes:
        """Return the 16 bytes of the next value."""
        random_part = int.from_bytes(self._random_bytes(10), "big")
        with self._lock:
            now_ms = self._time_ns() // _NS_PER_MS
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                self._counter = (random_part >> _RANDOM_BITS) & _COUNTER_SEED_MASK
            elif self._counter < _COUNTER_MAX:
                self._counter += 1
            else:
                self._last_ms += 1
                self._counter = 0
            timestamp, counter = self._last_ms, self._counter
        value = (timestamp & _TIMESTAMP_MAX) << 80
        value |= 0x7 << 76
        value |= counter << 64
        value |= 0b10 << _RANDOM_BITS
        value |= random_part & ((1 << _RANDOM_BITS) - 1)
        return value.to_bytes(16, "big")


class SystemIds:
    """Makes the server's identifiers: a registered prefix and a UUIDv7 in lower-case base32."""

    def __init__(self, source: UuidV7Source | None = None) -> None:
        self._source = source or UuidV7Source()

    def new(self, prefix: str) -> str:
        """Return a new identifier, for example ``run_01jd...`` for the prefix ``run``.

        Raises:
            ValueError: The prefix is not registered in `khala_contracts.ids`.
        """
        return ids.format_id(prefix, self._source.next_bytes())
