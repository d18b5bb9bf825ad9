"""A node as its clients see it, without I/O: what the client's machines are tested against.

Speaks the real protocol through khala_contracts.codec. It keeps the promises of a node (a topic's
frames of one subscription are strictly +1, barriers in their places); whoever tests faults puts
them between this model and the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import codec, reason_codes
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import (
    ClientHeartbeat,
    ConnectionLimits,
    CursorStart,
    ErrorMessage,
    Hello,
    Renew,
    Renewed,
    ReplayComplete,
    ServerHeartbeat,
    StaleCursor,
    StaleReason,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    SubscriptionMode,
    TopicHeartbeat,
    TopicStart,
    Unsubscribe,
    Unsubscribed,
    UnsubscribedReason,
    Welcome,
)
from khala_contracts.frames import Frame
from khala_contracts.topics import Tier, TopicName

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LINEAGE", "LogModel", "NodeModel", "topic_number"]

LINEAGE: Final = f"lin_{1:026d}"
TOKEN_TTL_MS: Final = 300_000


def topic_number(number: int) -> TopicName:
    """Return the topic of a run."""
    return TopicName(f"run:run_{number:026d}:events")


class LogModel:
    """The history of one topic; ``floor_seq`` and ``lineage`` may be changed by a test."""

    def __init__(self, topic: TopicName, lineage: str = LINEAGE) -> None:
        self.topic = topic
        self.lineage = lineage
        self.floor_seq = 1
        self.frames: list[Frame] = []
        self.chains = [chain_start(topic)]

    @property
    def head_seq(self) -> int:
        """Newest committed position."""
        return len(self.frames)

    def append(self, count: int = 1, *, payload: bytes | None = None) -> None:
        """Commit ``count`` more frames."""
        for _ in range(count):
            seq = self.head_seq + 1
            frame = Frame(self.topic, seq, "thought", payload if payload is not None else b"\x0a\x01x", 1)
            self.frames.append(frame)
            self.chains.append(chain_next(self.chains[-1], seq, 1, frame.kind, frame.payload))

    def after(self, seq: int, count: int) -> tuple[Frame, ...]:
        """Return the next ``count`` frames after ``seq``."""
        return tuple(self.frames[seq : seq + count])


@attrs.define
class _Sending:
    sent_seq: int
    through_seq: int
    is_complete: bool


class NodeModel:
    """One connection's end at the node. Make a new one per connection over the same logs."""

    def __init__(self, logs: Iterable[LogModel], *, wall_ms: int = 1_700_000_000_000) -> None:
        self.logs = {log.topic: log for log in logs}
        self.wall_ms = wall_ms
        self.heartbeat_interval_ms = 15_000
        self.token_ttl_ms = TOKEN_TTL_MS
        self.hello: Hello | None = None
        self.tokens: list[str] = []
        self.heartbeats = 0
        self.starts: list[TopicStart] = []
        # Answers a test wants instead of the model's own, once per topic.
        self.refusals: dict[str, ErrorMessage] = {}
        self._sending: dict[TopicName, _Sending] = {}

    @property
    def topics(self) -> tuple[TopicName, ...]:
        """Topics with a running subscription."""
        return tuple(self._sending)

    def receive(self, data: bytes) -> list[bytes]:
        """Take one message of the client; return the answers."""
        message = codec.decode_client_message_untrusted(data)
        match message:
            case Hello():
                assert self.hello is None, "a second hello"
                self.hello = message
                self.tokens.append(message.token or "")
                return [codec.encode_server_control(self._welcome())]
            case Subscribe():
                return [codec.encode_server_control(self._subscribe(start)) for start in message.topics]
            case Unsubscribe():
                return [
                    self._unsubscribe(TopicName(topic), UnsubscribedReason.ASKED) for topic in message.topics
                ]
            case Renew():
                self.tokens.append(message.token)
                return [codec.encode_server_control(Renewed(self.wall_ms + self.token_ttl_ms))]
            case ClientHeartbeat():
                self.heartbeats += 1
                return []

    def _welcome(self) -> Welcome:
        return Welcome(
            connection_id="con_1",
            node_id="nod_1",
            protocol=1,
            schema=1,
            heartbeat_interval_ms=self.heartbeat_interval_ms,
            limits=ConnectionLimits(subscriptions_max=256, topics_per_subscribe_max=64, dead_after_ms=45_000),
            token_expires_at_ms=self.wall_ms + self.token_ttl_ms,
            server_time_ms=self.wall_ms,
        )

    def _subscribe(self, asked: TopicStart) -> Subscribed | StaleCursor | ErrorMessage:
        self.starts.append(asked)
        topic = TopicName(asked.topic)
        refusal = self.refusals.pop(asked.topic, None)
        if refusal is not None:
            return refusal
        log = self.logs.get(topic)
        if log is None:
            return ErrorMessage.of(reason_codes.FORBIDDEN, topic=asked.topic)
        after_seq = self._start_seq(log, asked)
        stale = self._stale_reason(log, asked, after_seq)
        if stale is not None:
            return StaleCursor(
                topic, stale, log.lineage, log.head_seq, log.floor_seq, log.chains[log.floor_seq - 1]
            )
        is_live = after_seq == log.head_seq
        self._sending[topic] = _Sending(after_seq, log.head_seq, is_live)
        return Subscribed(
            topic=topic,
            lineage=log.lineage,
            head_seq=log.head_seq,
            floor_seq=log.floor_seq,
            chain_at_start=log.chains[after_seq],
            tier=Tier.WARM,
            mode=SubscriptionMode.LIVE if is_live else SubscriptionMode.REPLAYING,
            start_seq=after_seq,
        )

    def _start_seq(self, log: LogModel, asked: TopicStart) -> int:
        if isinstance(asked.start, CursorStart):
            return asked.start.seq
        return {
            SubscribeFrom.BEGINNING: 0,
            SubscribeFrom.EARLIEST: log.floor_seq - 1,
            SubscribeFrom.NOW: log.head_seq,
        }[asked.start.start]

    def _stale_reason(self, log: LogModel, asked: TopicStart, after_seq: int) -> StaleReason | None:
        start = asked.start
        if isinstance(start, CursorStart) and start.seq > 0:
            other_chain = (
                bool(start.chain) and after_seq <= log.head_seq and start.chain != log.chains[after_seq]
            )
            if start.lineage != log.lineage or after_seq > log.head_seq or other_chain:
                return StaleReason.LINEAGE_MISMATCH
        return StaleReason.RETENTION_EXPIRED if after_seq + 1 < log.floor_seq else None

    def _unsubscribe(self, topic: TopicName, reason: UnsubscribedReason) -> bytes:
        self._sending.pop(topic, None)
        return codec.encode_server_control(Unsubscribed(topic, reason))

    def release(self, topic: TopicName, reason: UnsubscribedReason) -> bytes:
        """End a subscription by the node's own decision."""
        return self._unsubscribe(topic, reason)

    def pump(self, topic: TopicName, count: int = 1_000_000) -> list[bytes]:
        """Return the next messages of a subscription: up to ``count`` frames, and its barrier."""
        sending = self._sending.get(topic)
        if sending is None:
            return []
        log = self.logs[topic]
        messages: list[bytes] = []
        frames = log.after(sending.sent_seq, count)
        if frames:
            messages.append(b"".join(codec.encode_entry(frame) for frame in frames))
            sending.sent_seq = frames[-1].seq
        if not sending.is_complete and sending.sent_seq >= sending.through_seq:
            sending.is_complete = True
            through = sending.through_seq
            messages.append(codec.encode_server_control(ReplayComplete(topic, through, log.chains[through])))
        return messages

    def heartbeat(self) -> bytes:
        """Return a heartbeat about every running subscription."""
        entries = [
            TopicHeartbeat(topic, self.logs[topic].head_seq, self.logs[topic].chains[-1], 1_000, 60_000)
            for topic in self._sending
        ]
        return codec.encode_server_control(ServerHeartbeat(tuple(entries), self.wall_ms))
