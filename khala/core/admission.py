"""Who may enter now, and when the others may come back: pure, the caller brings ``now``.

Connections enter at ``admission_per_s`` (``admission_burst`` at once) while fewer than ``handshakes_max`` have not
said hello. Whoever is refused gets a turn of its own: the n-th of those who wait is told to return after n / rate.
So a storm of reconnects is spread over just the time that the rate needs for it, without a draw of anybody's.
A turn is no reservation: who comes first enters. Turns that nobody takes are given away as their time passes.

Refusing costs, too: the first ``admission_burst`` refusals, and a tenth of ``admission_per_s`` later, are told in
words (an upgrade, an error, a close: what a browser can read), the rest by a bare answer of HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala.core.rate_limit import TokenBucket

if TYPE_CHECKING:
    from khala.core.limits import NodeLimits

# Longer: honest clients stay away after a flood by clients that never return. Shorter: of a storm of more than
# 30 s x rate, some are told to come too early.
RETURN_MAX_S: Final = 30.0
# Nobody returns before this: a handshake takes that long.
RETURN_MIN_S: Final = 0.1
# Beyond the burst there is one refusal in words for so many entries. It costs three times a bare one, and a storm
# must not pay for its refusals with the CPU that lets clients in. Whoever is refused barely backs off by itself.
ENTRIES_PER_WORD: Final = 10


@attrs.frozen
class Admitted:
    """Come in."""


@attrs.frozen
class TurnedAway:
    """Not now.

    Attributes:
        limit: Which one is exceeded: admission_per_s or handshakes_max.
        retry_after_ms: When to come back.
        is_told: Whether to say it in words; otherwise as cheaply as can be.
    """

    limit: str
    retry_after_ms: int
    is_told: bool


class Admission:
    """The door of one node."""

    def __init__(self, limits: NodeLimits, *, now: float) -> None:
        """Open with the whole burst."""
        self._limits = limits
        self._entries = TokenBucket.full(limits.admission_per_s, limits.admission_burst, now=now)
        self._words = TokenBucket.full(*_words_of(limits), now=now)
        # The turn that was given last; turns are 1 / rate apart.
        self._last_turn_at = now

    def decide(self, now: float, *, handshakes_open: int, telling: int) -> Admitted | TurnedAway:
        """Judge one connection; what is returned has been taken from the rates.

        Args:
            now: Monotonic seconds.
            handshakes_open: Admitted connections that have not said hello yet.
            telling: Refused connections that are being told; their number is bounded like that of handshakes.
        """
        limits = self._limits
        self._entries.retune(limits.admission_per_s, limits.admission_burst, now)
        self._words.retune(*_words_of(limits), now)
        has_place = handshakes_open < limits.handshakes_max
        if has_place and self._entries.take(now):
            return Admitted()
        is_told = telling < limits.handshakes_max and self._words.take(now)
        return TurnedAway(
            "admission_per_s" if has_place else "handshakes_max", self.give_turn_ms(now), is_told=is_told
        )

    def give_turn_ms(self, now: float) -> int:
        """Return when the next of those who wait may come back, milliseconds from now."""
        turn_s = 1 / self._limits.admission_per_s
        earliest = now + RETURN_MIN_S
        turn_at = max(earliest, self._last_turn_at + turn_s)
        if turn_at > now + RETURN_MAX_S:
            # All turns are given: begin again, so that those who come in vain are spread as well.
            turn_at = earliest
        self._last_turn_at = turn_at
        return max(1, round((turn_at - now) * 1000))


def _words_of(limits: NodeLimits) -> tuple[float, int]:
    """Return the rate and the burst of refusals in words."""
    return limits.admission_per_s / ENTRIES_PER_WORD, limits.admission_burst
