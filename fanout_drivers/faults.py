"""What the driver ``faulty`` does to one delivery, by seeded chance. No I/O; time is an argument.

Each delivery of the inner driver is taken once and becomes none, one or several, now or later.
Invariants:
1. A record that is not lost is delivered, unchanged, within ``HOLD_MAX_S``, forgeries beside it or not.
2. At most ``HELD_MAX`` deliveries are held back; beyond that the oldest is delivered (INV-7).
3. One seed and one sequence of (delivery, time) give one result.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import attrs

from fanout_drivers.base import PositionUnknown, RecordCopy
from khala_contracts.errors import WireError
from khala_contracts.fanout_records import KEY_MIN_BYTES, RecordSigner, read_unverified

if TYPE_CHECKING:
    from collections import Counter
    from random import Random

    from fanout_drivers.base import Delivery

__all__ = ["FAULTS", "HELD_MAX", "HINT_FAULTS", "HOLD_MAX_S", "FaultRates", "Faults"]

FAULTS: Final = ("loss", "duplicate", "reorder", "delay", "disconnect", "forge")
# What happens to hints of revocations, beside ``loss``.
HINT_FAULTS: Final = ("hint_loss",)
FORGERIES: Final = ("flipped", "other_topic", "invented", "other_lineage")
HELD_MAX: Final = 1_024
# A delayed record comes 50 to 500 ms late, one that is overtaken when 50 ms have passed.
DELAY_MIN_S: Final = 0.05
HOLD_MAX_S: Final = 0.5
OVERTAKEN_S: Final = 0.05


def _is_rate(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is a probability, 0..1")


@attrs.frozen(kw_only=True)
class FaultRates:
    """The probability of each fault, for each delivery. Raises ValueError outside 0..1.

    Attributes:
        loss: It never arrives, and nobody says so.
        duplicate: It arrives again later.
        reorder: Those that follow within OVERTAKEN_S overtake it.
        delay: It comes late.
        disconnect: It and everything held back is lost, and PositionUnknown says so.
        forge: A forgery arrives just before it.
        hint_loss: A hint of revocations never arrives; other deliveries are not concerned.
    """

    loss: float = attrs.field(default=0.0, validator=_is_rate)
    duplicate: float = attrs.field(default=0.0, validator=_is_rate)
    reorder: float = attrs.field(default=0.0, validator=_is_rate)
    delay: float = attrs.field(default=0.0, validator=_is_rate)
    disconnect: float = attrs.field(default=0.0, validator=_is_rate)
    forge: float = attrs.field(default=0.0, validator=_is_rate)
    hint_loss: float = attrs.field(default=0.0, validator=_is_rate)


@attrs.define(eq=False)
class Faults:
    """The faults of one subscriber."""

    rates: FaultRates
    rng: Random
    injected: Counter[str]
    # (due, number, delivery); the number keeps the order of equal times.
    _held: list[tuple[float, int, Delivery]] = attrs.field(factory=list, init=False)
    _number: int = attrs.field(default=0, init=False)
    # The latest record, and the latest of another topic: to be put where it does not belong.
    _latest: RecordCopy | None = attrs.field(default=None, init=False)
    _other: RecordCopy | None = attrs.field(default=None, init=False)

    def next_due(self) -> float | None:
        """When the first delivery that is held back is due; None if none is."""
        return self._held[0][0] if self._held else None

    def release(self, now: float) -> list[Delivery]:
        """Return what is due, oldest first."""
        due = []
        while self._held and (self._held[0][0] <= now or len(self._held) > HELD_MAX):
            due.append(heapq.heappop(self._held)[2])
        return due

    def take(self, delivery: Delivery, now: float) -> list[Delivery]:
        """Return what arrives now because of a delivery; hold back what arrives later."""
        if self._happens("disconnect"):
            self._held.clear()
            return [PositionUnknown(None)]
        forgeries: list[Delivery] = []
        if isinstance(delivery, RecordCopy):
            if self._latest is not None and self._latest.topic != delivery.topic:
                self._other = self._latest
            self._latest = delivery
            if self._happens("forge"):
                forgeries.append(self._forge(delivery))
        if self._happens("loss"):
            return forgeries
        if self._happens("duplicate"):
            self._hold(delivery, now + self.rng.uniform(0.0, HOLD_MAX_S))
        if self._happens("delay"):
            self._hold(delivery, now + self.rng.uniform(DELAY_MIN_S, HOLD_MAX_S))
            return forgeries
        if self._happens("reorder"):
            self._hold(delivery, now + OVERTAKEN_S)
            return forgeries
        return [*forgeries, delivery]

    def loses_hint(self) -> bool:
        """Whether a hint of revocations, which is never held back, is lost."""
        return self._happens("loss") or self._happens("hint_loss")

    def _happens(self, fault: str) -> bool:
        rate: float = getattr(self.rates, fault)
        # Not drawn for a rate of 0, so that adding a fault to a test changes nothing for the others.
        if rate == 0 or self.rng.random() >= rate:
            return False
        self.injected[fault] += 1
        return True

    def _hold(self, delivery: Delivery, due: float) -> None:
        self._number += 1
        heapq.heappush(self._held, (due, self._number, delivery))

    def _forge(self, copy: RecordCopy) -> RecordCopy:
        kind = self.rng.choice(FORGERIES)
        forged = None
        if kind == "other_topic" and self._other is not None and self._other.topic != copy.topic:
            forged = self._other.data
        elif kind in {"invented", "other_lineage"}:
            forged = self._invent(copy.data, is_next=kind == "invented")
        if forged is None:
            kind, forged = "flipped", self._flip(copy.data)
        self.injected[f"forge_{kind}"] += 1
        return RecordCopy(copy.topic, forged)

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"\x00"
        place = self.rng.randrange(len(data))
        changed = data[place] ^ self.rng.randrange(1, 256)
        return data[:place] + bytes([changed]) + data[place + 1 :]

    def _invent(self, data: bytes, *, is_next: bool) -> bytes | None:
        """Return a record by somebody who knows everything but the key; None if there is no pattern."""
        try:
            record, key_id = read_unverified(data)
        except WireError:
            return None
        key = self.rng.randbytes(KEY_MIN_BYTES)
        if is_next:
            record = attrs.evolve(
                record,
                first_seq=record.last_seq + 1,
                last_seq=record.last_seq + max(1, len(record.entries)),
                chain_before=record.chain_after,
                chain_after=self.rng.randbytes(len(record.chain_after)),
            )
        else:
            record = attrs.evolve(record, lineage=f"lin_{self.rng.getrandbits(64):016x}")
        return RecordSigner(key_id, key).seal(record)
