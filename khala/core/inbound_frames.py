"""Where the upgrade request of a client and each of its frames end (RFC 6455, 5.2); what is in them is not judged.

Feed bytes in whatever pieces they come; take pieces that belong to one frame each. The payload stays masked.
Whoever reads this way can stop after any frame, and learns from a frame's head alone that a
message is too large. Everything else (masks, reserved bits, order of fragments, UTF-8) is the library's to judge.

Invariants (tests/unit/khala/test_inbound_frames.py):
    the pieces joined are the bytes that were fed, up to a frame's head that is not complete;
    a piece is of one frame, or of the request; no piece is of a frame that makes its message too large.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

OPCODE_CLOSE: Final = 0x8
# Of pieces of the request.
REQUEST: Final = -1

_FIN: Final = 0x80
_MASKED: Final = 0x80
_OPCODE: Final = 0x0F
# From here on opcodes are of control frames.
_CONTROL: Final = 0x8
_PING_AND_PONG: Final = (0x9, 0xA)
# Lines end as leniently as in the most lenient parser behind this.
_END_OF_REQUEST: Final = re.compile(rb"\n\r?\n")
# An end that is not complete begins in so many last bytes.
_SPLIT_END_BYTES: Final = 2


class MessageTooBigError(Exception):
    """The head of a frame announces more than a message may have."""


@attrs.frozen
class FramePiece:
    """Bytes of one frame.

    Attributes:
        data: As they came, masked.
        opcode: Of the frame; 0 in the second and later fragments of a message; REQUEST before the frames.
        ends_frame: Nothing of this frame, or of the request, follows.
        is_silent: The frame completes nothing that a library reports: a ping, a pong, a fragment before the last.
    """

    data: bytes
    opcode: int
    ends_frame: bool
    is_silent: bool = False


@attrs.define(eq=False)
class InboundFrames:
    """Cuts what a client sends at the ends of its request and of its frames."""

    message_max_bytes: int
    # Another fragment of the message that has begun must follow.
    is_in_message: bool = attrs.field(default=False, init=False)
    _waiting: bytearray = attrs.field(factory=bytearray, init=False)
    _is_request: bool = attrs.field(default=True, init=False)
    # Last bytes of the request that were taken.
    _taken_of_request: bytes = attrs.field(default=b"", init=False)
    # Invariant: _payload_left > 0 iff the head of the frame has been taken and its payload not.
    _payload_left: int = attrs.field(default=0, init=False)
    _first_byte: int = attrs.field(default=0, init=False)
    # Announced by the fragments of the message so far.
    _message_bytes: int = attrs.field(default=0, init=False)

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        self._waiting += data

    def take(self) -> FramePiece | None:
        """Return the next piece, None if more must arrive before there is one.

        Raises:
            MessageTooBigError: The next frame makes its message larger than ``message_max_bytes``.
        """
        if not self._waiting:
            return None
        if self._is_request:
            return self._take_of_request()
        head = 0
        if not self._payload_left:
            head = self._begin_frame()
            if not head:
                return None
        payload = min(self._payload_left, len(self._waiting) - head)
        data = self._cut(head + payload)
        self._payload_left -= payload
        opcode = self._first_byte & _OPCODE
        is_fragment = opcode < _CONTROL and not self._first_byte & _FIN
        return FramePiece(
            data,
            opcode,
            ends_frame=not self._payload_left,
            is_silent=is_fragment or opcode in _PING_AND_PONG,
        )

    def forget_message(self) -> None:
        """Expect no further fragment of the message that has begun."""
        self.is_in_message = False

    def _cut(self, size: int) -> bytes:
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        return data

    def _take_of_request(self) -> FramePiece:
        before = self._taken_of_request
        found = _END_OF_REQUEST.search(before + self._waiting)
        if found is None:
            data = self._cut(len(self._waiting))
            self._taken_of_request = (before + data)[-_SPLIT_END_BYTES:]
        else:
            data = self._cut(found.end() - len(before))
            self._is_request = False
        return FramePiece(data, REQUEST, ends_frame=found is not None)

    def _begin_frame(self) -> int:
        """Read the head of a frame; return its size, 0 if it is not complete."""
        waiting = self._waiting
        if len(waiting) < 2:
            return 0
        first, second = waiting[0], waiting[1]
        length, size = second & ~_MASKED, 2
        if length >= 126:
            size += 2 if length == 126 else 8
            length = int.from_bytes(waiting[2:size], "big")
        is_masked = bool(second & _MASKED)
        if is_masked:
            size += 4
        if len(waiting) < size:
            return 0
        is_control = first & _OPCODE >= _CONTROL
        if not is_control:
            self.is_in_message = not first & _FIN
        # A client that does not mask is told that, whatever it announces.
        if is_masked:
            self._check(length, is_control=is_control)
        self._first_byte, self._payload_left = first, length
        return size

    def _check(self, length: int, *, is_control: bool) -> None:
        if is_control:
            if length > self.message_max_bytes:
                raise MessageTooBigError
            return
        # An empty fragment counts as something: whoever collects them would collect without end.
        self._message_bytes += max(length, 1) if self.is_in_message else length
        if self._message_bytes > self.message_max_bytes:
            raise MessageTooBigError
        if not self.is_in_message:
            self._message_bytes = 0
