"""How soon an application asks again for what it may not read.

A node ends the connection of a client that it denied 20 subscribes within 60 s, and keeps it away for a minute
(`denied_subscribes_max`): its other topics wait with it. That is the product as promised, so an application
that is judged by what it is given must not ask for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

__all__ = ["ASK_AGAIN_S", "Refusals"]

ASK_AGAIN_S: Final = 1.0
_LATER_S: Final = 30.0
_SOON_MAX: Final = 8
# Together with what is asked later, by the few topics of one client, less than a node allows.
_WINDOW_S: Final = 60.0


@attrs.define
class Refusals:
    """Those of one incarnation of an application, of all its topics."""

    _times: deque[float] = attrs.field(factory=deque)

    def pause_s(self, now: float) -> float:
        """Count one more; return how long to wait before that topic is asked for again."""
        self._times.append(now)
        while self._times[0] <= now - _WINDOW_S:
            self._times.popleft()
        return ASK_AGAIN_S if len(self._times) <= _SOON_MAX else _LATER_S
