"""How the garbage collector of a service runs: what was there at its start is not looked at again.

Most of a service's memory is freed by counting references. The collector looks for the rest: it walks through young
objects after every so many new ones, and through everything when enough have grown old. Modules and classes are 110,000
objects that never go, and every new connection adds hundreds: by default a storm of connects is a tenth collecting, in
pauses that hold up every other client.
"""

import gc
from typing import Final

__all__ = ["settle_collector"]

# New objects between two looks at them. Higher: fewer looks at what lives on, and more garbage that waits, about
# 200 bytes each. Python's own is 700.
YOUNG_OBJECTS: Final = 10_000
# Looks between two at those that survived one, and of those between two at all; Python's own is 10.
LOOKS: Final = 20


def settle_collector() -> None:
    """Leave out of every later look what is there now; call it once, when the process has started.

    Takes about 50 ms. What this leaves out is still freed when the last reference to it goes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, LOOKS, LOOKS)
