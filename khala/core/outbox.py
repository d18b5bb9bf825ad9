"""What waits for one socket: the remainder of the current chunk, and the control lane.

Only whole WebSocket frames are begun, and only when the remainder is empty. Order on the wire:
remainder, control lane, topics. Keeps INV-7: the remainder is at most one chunk
(64 KiB, or one frame that is larger alone), the lane at most ``max_messages`` and ``max_bytes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from khala.core.in_flight import InFlight


class ControlLaneFullError(Exception):
    """A control message has no room: the client does not read what it asked for."""


@attrs.define(eq=False)
class Outbox:
    """Bytes owed to one connection, in order."""

    max_messages: int
    max_bytes: int
    # Counts the remainder, with those of all others.
    in_flight: InFlight
    control_bytes: int = attrs.field(default=0, init=False)
    _control: list[bytes] = attrs.field(factory=list, init=False)
    _remainder: memoryview | None = attrs.field(default=None, init=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self._remainder is None and not self._control

    @property
    def has_room(self) -> bool:
        """Whether the lane is at most a quarter full; who fills it waits for this.

        Longer: a client would be a slow consumer for one subscribe of 64 topics, whose answers
        (39 KiB in JSON, with the longest names) must fit into the rest.
        """
        return len(self._control) <= self.max_messages // 4 and self.control_bytes <= self.max_bytes // 4

    @property
    def waiting_bytes(self) -> int:
        """Bytes of remainder and control lane."""
        return self.control_bytes + (len(self._remainder) if self._remainder is not None else 0)

    def push_control(self, framed: bytes) -> None:
        """Queue one framed control message.

        Raises:
            ControlLaneFullError: The lane is full. The message was not queued.
        """
        if len(self._control) >= self.max_messages or self.control_bytes + len(framed) > self.max_bytes:
            raise ControlLaneFullError
        self._control.append(framed)
        self.control_bytes += len(framed)

    def push_last(self, framed: bytes) -> None:
        """Queue the last words of a connection, whatever the lane holds."""
        self._control.append(framed)
        self.control_bytes += len(framed)

    def take_remainder(self) -> memoryview | None:
        """Take what the kernel did not accept last time; give back what it still does not."""
        remainder, self._remainder = self._remainder, None
        if remainder is not None:
            self.in_flight.held_bytes -= len(remainder)
        return remainder

    def take_control(self) -> bytes | None:
        """Take the whole lane as one piece; the remainder must be empty."""
        if not self._control:
            return None
        joined = self._control[0] if len(self._control) == 1 else b"".join(self._control)
        self._control.clear()
        self.control_bytes = 0
        return joined

    def keep_remainder(self, unsent: memoryview) -> None:
        """Keep what the kernel did not accept; nothing else is begun before it is gone."""
        self._remainder = unsent if len(unsent) else None
        self.in_flight.held_bytes += len(unsent)

    def clear(self) -> None:
        """Forget everything; the socket is gone."""
        self._control.clear()
        self.control_bytes = 0
        self.take_remainder()
