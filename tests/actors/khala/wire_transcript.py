"""What one client has received, parsed from the socket's bytes and judged as it comes.

``WireTranscript`` asserts the grammar of SPEC section 3 on every connection of every test:

    topic: subscribed, frames by +1 from start_seq, replay_complete at through_seq with the right chain,
           frames by +1 ... until unsubscribed or stale_cursor; nothing of a topic outside of that
    close: one close frame, nothing after it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts.chain import chain_next
from khala_contracts.codec import (
    FramesMessage,
    ReplayComplete,
    StaleCursor,
    Subscribed,
    Unsubscribed,
    decode_server_message_json_untrusted,
    decode_server_message_untrusted,
)

if TYPE_CHECKING:
    from khala_contracts.codec import ServerMessage
    from khala_contracts.topics import TopicName

_TEXT, _BINARY, _CLOSE, _PONG = 1, 2, 8, 10


@attrs.frozen
class Pong:
    """A pong of the server."""

    payload: bytes


@attrs.frozen
class Close:
    """The server's close frame."""

    code: int


@attrs.define
class FollowedTopic:
    """One subscription as the client sees it."""

    position: int
    chain: bytes
    head_at_start: int
    # Everything received since ``subscribed``.
    seqs: list[int] = attrs.field(factory=list)
    completed_at: int | None = None


@attrs.define(eq=False)
class WireTranscript:
    """Parse bytes in whatever pieces they come."""

    is_text: bool = False
    http_head: bytes = b""
    closed_with: int | None = None
    topics: dict[TopicName, FollowedTopic] = attrs.field(factory=dict)
    _pending: bytearray = attrs.field(factory=bytearray)

    @property
    def has_partial_frame(self) -> bool:
        """Whether the last bytes are the beginning of a frame that has not ended."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[ServerMessage | Pong | Close]:
        """Return the messages that these bytes complete."""
        self._pending += data
        if not self.http_head:
            head, found, rest = bytes(self._pending).partition(b"\r\n\r\n")
            if not found:
                return []
            self.http_head = head
            self._pending[:] = rest
        messages = []
        while (frame := self._next_frame()) is not None:
            assert self.closed_with is None, f"bytes after the close: {frame}"
            message = self._decode(*frame)
            self._judge(message)
            messages.append(message)
        return messages

    def _next_frame(self) -> tuple[int, bytes] | None:
        data = self._pending
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80, "fragmented, or a reserved bit"
        assert data[1] < 128, "a server's frames are not masked"
        length, start = data[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            return None
        opcode, payload = data[0] & 0x0F, bytes(data[start : start + length])
        del data[: start + length]
        return opcode, payload

    def _decode(self, opcode: int, payload: bytes) -> ServerMessage | Pong | Close:
        if opcode == _PONG:
            return Pong(payload)
        if opcode == _CLOSE:
            return Close(int.from_bytes(payload[:2], "big"))
        if self.is_text:
            assert opcode == _TEXT
            return decode_server_message_json_untrusted(payload.decode())
        assert opcode == _BINARY
        return decode_server_message_untrusted(payload)

    def _judge(self, message: ServerMessage | Pong | Close) -> None:
        match message:
            case Close(code):
                self.closed_with = code
            case Subscribed():
                self._begin(message)
            case FramesMessage():
                self._follow(message)
            case ReplayComplete():
                self._complete(message)
            case Unsubscribed(topic) | StaleCursor(topic):
                self.topics.pop(topic, None)
            case _:
                pass

    def _begin(self, message: Subscribed) -> None:
        known = self.topics.get(message.topic)
        if known is not None and known.position - len(known.seqs) == message.start_seq:
            return  # a repeated answer; what follows continues
        self.topics[message.topic] = FollowedTopic(
            message.start_seq, message.chain_at_start, message.head_seq
        )

    def _follow(self, message: FramesMessage) -> None:
        assert message.frames, "an empty data message"
        for frame in message.frames:
            assert frame.topic == message.frames[0].topic, "frames of two topics in one message"
            topic = self.topics.get(frame.topic)
            assert topic is not None, f"a frame of {frame.topic}, which is not subscribed"
            assert frame.seq == topic.position + 1, f"seq {frame.seq} after {topic.position}"
            if topic.completed_at is None:
                assert frame.seq <= topic.head_at_start, "a live frame before replay_complete"
            topic.position = frame.seq
            topic.chain = chain_next(topic.chain, frame.seq, frame.schema_version, frame.kind, frame.payload)
            topic.seqs.append(frame.seq)

    def _complete(self, message: ReplayComplete) -> None:
        topic = self.topics[message.topic]
        assert topic.completed_at is None, "replay_complete twice"
        assert topic.position == message.through_seq, "replay_complete away from its position"
        assert topic.chain == message.chain, "the chain at through_seq does not follow"
        topic.completed_at = message.through_seq
