"""A token bucket as a pure value: sustained rate and burst, no clock of its own."""

import attrs


@attrs.define
class TokenBucket:
    """Admits `burst` events at once and `rate_per_s` in the long run.

    Invariant: ``0 <= level <= burst``. A clock that goes back adds nothing.
    """

    rate_per_s: float
    burst: float
    level: float = attrs.field(init=False)
    _updated_at_s: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.level = self.burst

    def take(self, now_s: float) -> bool:
        """Return whether one more event is admitted at `now_s`, and count it if so."""
        if self._updated_at_s is not None:
            elapsed_s = max(0.0, now_s - self._updated_at_s)
            self.level = min(self.burst, self.level + elapsed_s * self.rate_per_s)
        self._updated_at_s = now_s
        if self.level < 1:
            return False
        self.level -= 1
        return True
