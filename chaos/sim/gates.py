"""Where a simulated process meets the rest of the world: its gate, its wall clock, and what goes wrong.

Every port of one process crosses that process's gate, so that a crash is one act: `PortGate.sever` first
lets no call return any more (what was in flight is decided by the model that holds it, by a coin), and
only then is the process's nursery cancelled. What runs while it unwinds reaches nothing.

Who models a port keeps to this:

*   an async call begins with ``await gate.cross(kind)``, and crosses once more before it returns what the
    other side answered (a reply may be lost with the process);
*   a sync call asks ``gate.is_severed`` and does nothing behind a severed gate;
*   what the process holds on the other side (locks, subscriptions, sockets) is given back by a call
    registered with ``gate.on_sever``;
*   randomness comes from the `random.Random` that the model was given, time from ``trio.current_time()``,
    wall time of shared services from ``WALL_START_S + trio.current_time()``;
*   nothing is decided by the order of a set or by an ``id()``.

The fault classes are switches: `faults.py` turns them, the models look at them at each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = [
    "WALL_START_S",
    "BrokerFaults",
    "ControlFaults",
    "DatabaseFaults",
    "Latency",
    "Note",
    "PortGate",
    "WallClock",
    "wall_now",
]

# Unix time at virtual time 0; a second that no leap or summer time is near.
WALL_START_S: Final = 1_780_000_000.0


def wall_now() -> float:
    """Return the world's true Unix time in seconds: the clock of the database, the broker and control."""
    return WALL_START_S + trio.current_time()


class Note(Protocol):
    """Writes one line into the trace of the run; see trace.py."""

    def __call__(self, who: str, what: str, /, **facts: object) -> None:
        """Remember that ``who`` (a process or a service) did ``what``; facts are printed in this order."""


@attrs.define
class WallClock:
    """One process's idea of the time; the port `Clock`.

    Invariant: now() == wall_now() + skew_s; a step changes the skew.
    """

    skew_s: float = 0.0

    def now(self) -> float:
        """Return Unix time in seconds."""
        return wall_now() + self.skew_s


@attrs.frozen
class Latency:
    """Seconds that something takes: uniform between two bounds."""

    low_s: float = 0.0
    high_s: float = 0.0

    def draw(self, rng: Random) -> float:
        """Return a duration in seconds."""
        return self.low_s if self.high_s <= self.low_s else rng.uniform(self.low_s, self.high_s)


@attrs.define(eq=False)
class PortGate:
    """All ports of one simulated process; see the module.

    Attributes:
        name: The process with its incarnation, e.g. ``node-2.1``. Unique in a world.
        role: ``runtime``, ``node``, ``client`` or ``publisher``.
        place: The host it runs on, e.g. ``node-2``: what partitions and skew name; restarts keep it.
        clock: The process's wall clock.
        note: Where it writes into the trace.
    """

    name: str
    role: str
    place: str
    clock: WallClock
    note: Note
    is_severed: bool = False
    _at_sever: dict[int, Callable[[], None]] = attrs.field(factory=dict, init=False)
    _next: int = attrs.field(default=0, init=False)

    async def cross(self, kind: str) -> None:
        """Pass the gate: a checkpoint, which returns only while the process lives.

        Args:
            kind: What crosses, e.g. ``journal.commit``; for people who read a stuck world.

        Cancellation: safe; nothing has crossed.
        """
        del kind
        if not self.is_severed:
            await trio.lowlevel.checkpoint()
        if self.is_severed:
            await trio.sleep_forever()

    def on_sever(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call ``call`` when the gate is severed, at once if it is; return what takes that back.

        Calls are made in the order of their registration and must not await.
        """
        if self.is_severed:
            call()
            return _nothing
        key = self._next
        self._next += 1
        self._at_sever[key] = call

        def forget() -> None:
            self._at_sever.pop(key, None)

        return forget

    def sever(self) -> None:
        """Cut the process off, for ever."""
        if self.is_severed:
            return
        self.is_severed = True
        while self._at_sever:
            self._at_sever.pop(next(iter(self._at_sever)))()


def _nothing() -> None:
    """Take nothing back: the call has been made."""


@attrs.define
class DatabaseFaults:
    """What the database does wrong at the moment.

    Attributes:
        is_down: No connection, no answer: each call raises Unavailable (nothing is written), connections
            that are open are lost (a commit in flight is decided by a coin).
        statement: How long each statement takes.
        commit: How long COMMIT takes on top.
        lost_before_commit: Probability that the connection breaks during COMMIT and nothing was written.
        lost_after_commit: Probability that it breaks during COMMIT and everything was written.
        lost_statement: Probability that any other statement meets a broken connection.
        serialization_trouble: Probability that a transaction is aborted (deadlock, serialization).
        lock_timeout_s: How long a transaction waits for a row lock before it is aborted.
        linger: How long the server keeps what a lost client left open, with its locks; a COMMIT that was
            on its way is decided by a coin, and carried out then.
        cut_from: Places that cannot reach the database.
    """

    is_down: bool = False
    statement: Latency = Latency(0.0002, 0.002)
    commit: Latency = Latency(0.0005, 0.003)
    lost_before_commit: float = 0.0
    lost_after_commit: float = 0.0
    lost_statement: float = 0.0
    serialization_trouble: float = 0.0
    lock_timeout_s: float = 1.0
    linger: Latency = Latency(0.0, 0.3)
    cut_from: dict[str, None] = attrs.field(factory=dict)


@attrs.define
class BrokerFaults:
    """What the broker does wrong at the moment; probabilities per record and receiver.

    Attributes:
        is_down: Publishing raises the driver's unavailability; nothing arrives. Subscribers learn
            "position unknown" when it is back, as the driver's contract says.
        delay: How long a record is under way.
        loss: Lost without a word.
        duplicate: Delivered twice.
        reorder: Delayed by up to `reorder_s` more than others.
        forge: A record of ours is accompanied by a forged one (right subject, next seq, wrong MAC).
        corrupt: Delivered with a byte changed.
        cut_to: Places to which nothing arrives (one-way partition, without a word).
        cut_from: Places from which nothing is taken: a publish there times out or raises.
    """

    is_down: bool = False
    delay: Latency = Latency(0.0002, 0.002)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.05
    forge: float = 0.0
    corrupt: float = 0.0
    cut_to: dict[str, None] = attrs.field(factory=dict)
    cut_from: dict[str, None] = attrs.field(factory=dict)


@attrs.define
class ControlFaults:
    """What control does wrong at the moment.

    Attributes:
        is_down: Each call raises Unavailable.
        reply: How long an answer takes.
        lost_reply: Probability that a call is carried out and its answer lost (Unavailable).
        push_loss: Probability that the hint about a revocation reaches no node.
    """

    is_down: bool = False
    reply: Latency = Latency(0.0005, 0.005)
    lost_reply: float = 0.0
    push_loss: float = 0.0
