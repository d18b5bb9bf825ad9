"""What a network between two processes may do to their bytes, as values."""

from __future__ import annotations

from typing import Final, Literal

import attrs
from attrs.validators import ge, optional

__all__ = ["DIRECTIONS", "HEALTHY", "Counters", "Direction", "Fault", "directions_of"]

# Up is from the process that connects to the one that listens.
Direction = Literal["up", "down", "both"]
DIRECTIONS: Final = ("up", "down")


@attrs.frozen(kw_only=True)
class Fault:
    """What happens to the bytes of one direction of a link; several may happen at once.

    Attributes:
        delay_s: Every byte arrives this much later.
        jitter_s: And up to this much more, drawn for each piece; order is kept.
        is_cut: Nothing passes, neither bytes nor ends of connections, and nothing is lost: TCP would send
            it again. A new connection is made only while neither direction is cut.
        is_dropping: Bytes vanish, and with them the connection: it stays half open until the fault is
            cleared, and is then reset, because a stream with a hole must not go on.
        rate_bytes_per_s: At most so many bytes pass in a second; None: any number.
        is_refusing: New connections are reset at once; one direction is enough.
    """

    delay_s: float = attrs.field(default=0.0, validator=ge(0))
    jitter_s: float = attrs.field(default=0.0, validator=ge(0))
    is_cut: bool = False
    is_dropping: bool = False
    rate_bytes_per_s: float | None = attrs.field(default=None, validator=optional(ge(1)))
    is_refusing: bool = False


HEALTHY: Final = Fault()


@attrs.define(kw_only=True)
class Counters:
    """What a link has done since its process began; the proof that a fault happened.

    Attributes:
        accepted: Connections that were taken from a client.
        connected: Of these, the ones that reached the server.
        refused: Connections reset before a byte passed.
        failed: Connections whose server did not answer; reset, too.
        open: Connections now.
        reset: Connections that were reset on demand, or for a hole in their stream.
        passed_bytes: Written to the other side, by direction.
        cut_waits: Pieces, ends and new connections that waited for a cut to end, by direction.
        dropped_bytes: Vanished, by direction.
        delayed: Pieces that were held back by a delay, by direction.
        throttled_s: Time for which a rate held pieces back, by direction.
    """

    accepted: int = 0
    connected: int = 0
    refused: int = 0
    failed: int = 0
    open: int = 0
    reset: int = 0
    passed_bytes: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    cut_waits: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    dropped_bytes: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    delayed: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    throttled_s: dict[str, float] = attrs.field(factory=lambda: dict.fromkeys(DIRECTIONS, 0.0))


def directions_of(direction: Direction) -> tuple[str, ...]:
    """Return the directions that a word means."""
    return DIRECTIONS if direction == "both" else (direction,)
