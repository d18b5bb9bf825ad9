"""How the garbage collector of a service runs: a little, often, and never at what was there at the start.

Most of a service's memory is freed by counting references. The collector looks for the rest: it walks through young
objects after so many *more* of them than were freed, and through everything when enough have grown old. Two things make
that stand still for long:

- Modules and classes are 110,000 objects that never go, and every new connection adds hundreds.
- A service in balance frees as much as it makes, mostly older things for newer ones: nothing triggers a look, and the
  list of the young grows meanwhile. A node of 4,000 clients then walked through 80,000 of them every five seconds, in
  90 to 190 ms: its 99th percentile. So we look by the clock.
"""

from __future__ import annotations

import gc
from itertools import count
from typing import Final

import trio

__all__ = ["collect_young", "settle_collector"]

# New objects, more than freed, between two looks that nobody asked for, as in a storm of connects; Python's own is 700.
# Higher: longer pauses, 0.2 microseconds for each object. Lower: more looks at what lives on.
YOUNG_OBJECTS: Final = 5_000
# Looks between two at those that survived one; Python's own is 10. Higher: longer pauses, since these are no longer in the
# processor's cache and cost 1 microsecond each.
YOUNG_LOOKS: Final = 2
# Looks at those between two at all of them; Python's own is 10. With 4,000 clients that takes 0.25 s. Lower: oftener. Higher:
# cycles that lived for a second keep their memory for longer than a quarter of an hour.
OLD_LOOKS: Final = 3_000
# Longer: longer pauses. Shorter: a service that does nothing wakes for nothing.
LOOK_EVERY_S: Final = 0.1


def settle_collector() -> None:
    """Leave out of every later look what is there now; call it once, when the process has started, and let ``collect_young`` run.

    Takes about 50 ms. What this leaves out is still freed when the last reference to it goes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_LOOKS, OLD_LOOKS)


async def collect_young() -> None:
    """Look at what is young by the clock, until cancelled."""
    for look in count(1):
        await trio.sleep(LOOK_EVERY_S)
        gc.collect(0 if look % (YOUNG_LOOKS + 1) else 1)
