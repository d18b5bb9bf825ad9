"""How the garbage collector of a service runs: a little, often, and never at what was there at the start.

Most of a service's memory is freed by counting references. The collector looks for the rest: it walks through young
objects after so many *more* of them than were freed, and through everything when enough have grown old. Two things make
that stand still for long:

- Modules and classes are 110,000 objects that never go, and every new connection adds hundreds.
- A service in balance frees as much as it makes, mostly older things for newer ones: nothing triggers a look, and the
  list of the young grows meanwhile. A node of 4,000 clients then walked through 80,000 of them every five seconds, in
  90 to 190 ms: its 99th percentile. So we look by the clock.

Figures: ``gc.callbacks`` in the processes of ``khala bench city``, 2026-11-22.
"""

from __future__ import annotations

import gc
from itertools import count
from typing import Final

import trio

__all__ = ["collect_by_the_clock", "settle_collector"]

# New objects, more than freed, between two looks that nobody asked for, as in a storm of connects; Python's own is 700.
# Higher: longer pauses, 0.2 microseconds for each object. Lower: more looks at what lives on.
YOUNG_OBJECTS: Final = 5_000
# Longer: longer pauses. Shorter: a service that does nothing wakes for nothing.
LOOK_EVERY_S: Final = 0.1
# One look in so many is also at those that survived one. Higher: longer pauses, since these are no longer in the processor's
# cache and cost 1 microsecond each.
SURVIVORS_EVERY: Final = 3
# And one in so many at everything, every quarter of an hour. With 4,000 clients that takes 0.25 s. Lower: oftener.
# Higher: cycles that lived for a second keep their memory for longer. Nothing else triggers that look: ours are counted
# as the collector's own.
EVERYTHING_EVERY: Final = 9_000


def settle_collector() -> None:
    """Leave out of every later look what is there now; call it once, when the process has started.

    Takes about 50 ms. Let ``collect_by_the_clock`` run beside. What this leaves out is still freed when the last reference to it goes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, SURVIVORS_EVERY - 1, EVERYTHING_EVERY)


async def collect_by_the_clock() -> None:
    """Look at what is young, at times at what is older, and seldom at everything, until cancelled."""
    for look in count(1):
        await trio.sleep(LOOK_EVERY_S)
        if look % EVERYTHING_EVERY == 0:
            gc.collect()
        else:
            gc.collect(0 if look % SURVIVORS_EVERY else 1)
