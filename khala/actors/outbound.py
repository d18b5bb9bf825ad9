"""What goes to one socket, and its one owner: remainder, control lane, then topics in turn.

The order is core/outbox.py's and core/scheduler.py's. All of it is synchronous except the writer, so
no two tasks can interleave inside a WebSocket frame. The writer is a task only while the kernel does
not take everything at once; then, and in the JSON subprotocol, no topic writes past it:

    direct     nothing waits: a topic that fans out writes to the socket itself    ``direct`` is its send
    queued     a remainder, control messages or topics wait                        ``direct`` is None

Keeps INV-3 (order on the wire) and INV-7 (bounded memory). The topics' side of it never raises: a bug
met on the way of these bytes ends the connection, not the topic (INV-9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from khala.core.outbox import Outbox
from khala.core.scheduler import DeficitRoundRobin
from khala.core.subscription import FrameUnreadableError
from khala.ports import TransportBrokenError
from khala_service import failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from khala.core.counters import NodeCounters
    from khala.core.in_flight import InFlight
    from khala.core.limits import NodeLimits
    from khala.core.subscription import Subscription, SubscriptionEnding
    from khala.ports import ByteTransport
    from khala_contracts.topics import TopicName

# One call of pump() hands over at most this before others get a turn. Larger: one fast client
# that catches up holds the loop; smaller: more wake-ups per megabyte. 256 KiB is ~0.1 ms of send.
PUMP_MAX_BYTES: Final = 256 * 1024


class StreamOwner(Protocol):
    """The connection of a stream, as the stream sees it. All of it is synchronous."""

    subscriptions: dict[TopicName, Subscription]

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task for as long as the connection lives."""

    def note_progress(self) -> None:
        """Say that bytes were taken, or that nothing waits any more."""

    def complete_replay(self, subscription: Subscription) -> bytes:
        """Return, framed, what tells the client that its replay is complete."""

    def end_unreadable(self, exc: FrameUnreadableError) -> bytes:
        """End a topic whose next frame cannot be encoded; return, framed, what says so."""

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """End a running subscription and say why."""

    def abort(self) -> None:
        """Drop the connection: its socket is gone."""

    def fail(self, exc: Exception) -> None:
        """Drop the connection for a bug of ours."""


class _Nobody:
    """The owner of a stream whose connection has ended."""

    def __init__(self) -> None:
        self.subscriptions: dict[TopicName, Subscription] = {}

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run nothing."""

    def note_progress(self) -> None:
        """Nobody waits."""

    def complete_replay(self, _subscription: Subscription) -> bytes:
        """There is nobody to be told."""
        return b""

    def end_unreadable(self, _exc: FrameUnreadableError) -> bytes:
        """There is nobody to be told."""
        return b""

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """It has ended."""

    def abort(self) -> None:
        """It has ended."""

    def fail(self, exc: Exception) -> None:
        """It has ended."""


_NOBODY: Final[StreamOwner] = _Nobody()


class OutboundStream:
    """The sending side of one connection; see the module docstring."""

    __slots__ = (
        "_backlogged_since",
        "_chunk_bytes",
        "_chunk_of",
        "_counters",
        "_has_writer",
        "_in_flight",
        "_outbox",
        "_owner",
        "_taken_at",
        "_transport",
        "_turns",
        "direct",
    )

    def __init__(
        self,
        transport: ByteTransport,
        owner: StreamOwner,
        *,
        limits: NodeLimits,
        counters: NodeCounters,
        in_flight: InFlight,
    ) -> None:
        """Send through ``transport``, which the owner closes; ``in_flight`` counts for the whole node."""
        # The socket's own send while nothing waits for it. Invariant (outside a synchronous step): it is
        # None iff a writer is at work, or was ended before its work was, or is_text.
        self.direct: Callable[[bytes], int] | None = transport.direct_send
        self._transport = transport
        self._owner = owner
        self._counters = counters
        self._in_flight = in_flight
        self._outbox = Outbox(limits.control_lane_max_messages, limits.control_lane_max_bytes, in_flight)
        self._turns = DeficitRoundRobin(
            limits.drr_quantum_bytes, limits.chunk_max_bytes, is_text=False, in_flight=in_flight
        )
        self._has_writer = False
        # Monotonic time at which the kernel last took a byte while bytes were waiting.
        self._taken_at = self._backlogged_since = 0.0
        # Whose frames the chunk in hand carries, and its whole size; None: control messages.
        self._chunk_of: Subscription | None = None
        self._chunk_bytes = 0

    def speak_text(self) -> None:
        """Send the JSON subprotocol from now on; nothing has been sent yet. Its topics take turns always."""
        self._turns.is_text = True
        self.direct = None

    # -- what others ask -------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether a message that may as well wait crowds out no answer."""
        return self._outbox.has_room

    @property
    def has_writer(self) -> bool:
        """Whether the kernel has left something, or other work waits for its turn."""
        return self._has_writer

    @property
    def waiting_bytes(self) -> int:
        """Bytes of remainder and control lane that the kernel has not taken."""
        return self._outbox.waiting_bytes

    @property
    def waiting_topics(self) -> int:
        """Topics that wait for their turn."""
        return len(self._turns)

    @property
    def stalled_since(self) -> float | None:
        """Since when bytes wait and the kernel takes none; None if nothing waits."""
        return self._taken_at if self._has_writer else None

    @property
    def backlogged_since(self) -> float | None:
        """Since when it has always had bytes waiting; None if nothing waits."""
        return self._backlogged_since if self._has_writer else None

    def unsent_part(self, subscription: Subscription) -> float:
        """Return how many frames of its last chunk the kernel has not taken; see DeliverySink."""
        if self._chunk_of is not subscription:
            return 0.0
        remainder_bytes = self._outbox.waiting_bytes - self._outbox.control_bytes
        return subscription.chunk_frames * remainder_bytes / self._chunk_bytes

    # -- what is to be sent ------------------------------------------------------------------------

    def push(self, framed: bytes) -> None:
        """Queue one control message behind those before it, ahead of any topic's next frames.

        Raises:
            ControlLaneFullError: The lane is full. The message was not queued.
        """
        self._outbox.push_control(framed)

    def push_last(self, framed: bytes) -> None:
        """Queue what the WebSocket library wants sent, or last words, whatever the lane holds."""
        self._outbox.push_last(framed)

    def wake(self, subscription: Subscription) -> None:
        """Let a subscription with frames to send take its turns; see DeliverySink."""
        try:
            if subscription.is_active:
                self._turns.add(subscription)
                self.ensure_sending()
        except Exception as exc:  # noqa: BLE001 - a topic wakes us: our crash is not its crash
            self._owner.fail(exc)

    def discard(self, subscription: Subscription) -> None:
        """Begin nothing more of this topic."""
        self._turns.discard(subscription)

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """End the subscription and tell the client why; see DeliverySink."""
        self._owner.finish_subscription(subscription, ending)

    def clear(self) -> None:
        """Forget everything; the socket is gone, and what it held is room for others."""
        self._outbox.clear()
        self._turns.clear()
        self._wake_waiting()

    def part(self) -> None:
        """Forget everything and the owner, which has ended: together they would wait for the garbage collector."""
        self.clear()
        self._owner = _NOBODY

    # -- the direct path -----------------------------------------------------------------------------

    def keep_unsent(self, subscription: Subscription, framed: bytes, sent: int, end_seq: int) -> None:
        """Keep what the kernel left of a range that was written directly; see DeliverySink."""
        try:
            self._chunk_of, self._chunk_bytes = subscription, len(framed)
            subscription.chunk_frames = end_seq - subscription.position
            self._outbox.keep_remainder(memoryview(framed)[sent:])
            subscription.advance(end_seq)
            self._start_writer()
        except Exception as exc:  # noqa: BLE001 - a topic sends to us: our crash is not its crash
            self._owner.fail(exc)

    def break_off(self, exc: Exception) -> None:
        """End the connection whose direct send raised this; see DeliverySink."""
        if isinstance(exc, TransportBrokenError | OSError):
            self._owner.abort()
        else:
            self._owner.fail(exc)

    # -- in turn -----------------------------------------------------------------------------------------

    def pump(self) -> bool:
        """Hand over what waits, in order, until the kernel takes no more or a turn is over.

        Returns:
            True if nothing waits any more. Otherwise a writer is (or must be) at work.
        """
        budget = PUMP_MAX_BYTES
        try:
            while budget > 0:
                chunk: bytes | memoryview | None = self._outbox.take_remainder()
                if chunk is None:
                    chunk = self._take_chunk()
                if chunk is None:
                    self._owner.note_progress()
                    return True
                # A remainder is a memoryview, control messages are nobody's chunk.
                is_frames = self._chunk_of is not None and isinstance(chunk, bytes)
                if is_frames and failpoints.is_armed("node.mid_frame"):
                    sent = self._send_half(chunk)
                else:
                    sent = self._transport.try_send(chunk)
                if sent:
                    self._taken_at = trio.current_time()
                    self._counters.bytes_pumped += sent
                    budget -= sent
                if sent < len(chunk):
                    self._outbox.keep_remainder(memoryview(chunk)[sent:])
                    return False
        except TransportBrokenError:
            self._owner.abort()
            return True
        return False

    def _send_half(self, chunk: bytes | memoryview) -> int:
        """Let the kernel have a part of the frame only, then pass the failpoint."""
        sent = self._transport.try_send(chunk[: (len(chunk) + 1) // 2])
        failpoints.hit("node.mid_frame")
        return sent

    def _take_chunk(self) -> bytes | None:
        """Take the next whole frames: the control lane, else the next topic's turn."""
        control = self._outbox.take_control()
        if control is not None:
            # Not only when all is sent: a replay may take minutes, and pings need a reader.
            self._owner.note_progress()
            self._chunk_of = None
            return control
        try:
            taken = self._turns.take_next()
        except FrameUnreadableError as exc:
            self._chunk_of = None
            return self._owner.end_unreadable(exc)
        if taken is None:
            return None
        subscription, framed = taken
        self._chunk_of, self._chunk_bytes = subscription, len(framed)
        self._counters.by_class[subscription.parsed.topic_class.name].deliveries += 1
        if subscription.take_barrier():
            self._outbox.push_last(self._owner.complete_replay(subscription))
            # What was committed during the replay waits for no further record.
            if subscription.has_frames:
                self._turns.add(subscription)
        return framed

    def ensure_sending(self) -> None:
        """Send now if nothing is in the way; leave the rest to a writer."""
        if not self._has_writer and not self.pump():
            self._start_writer()

    def _start_writer(self) -> None:
        self._has_writer = True
        self._set_direct(None)
        self._taken_at = self._backlogged_since = trio.current_time()
        self._owner.start(self._write_until_drained)

    def _set_direct(self, direct: Callable[[bytes], int] | None) -> None:
        self.direct = direct
        for subscription in self._owner.subscriptions.values():
            subscription.settle_direct()

    def _wake_waiting(self) -> None:
        """Let the replays of the node that wait for room go on, some now, and the others when others had a turn."""
        if not self._in_flight.wake_waiting():
            trio.lowlevel.current_trio_token().run_sync_soon(self._wake_waiting)

    async def _write_until_drained(self) -> None:
        is_drained = False
        try:
            while not is_drained:
                await self._transport.wait_writable()
                is_drained = self.pump()
                # Here, not in pump: whoever is woken pumps, too.
                self._wake_waiting()
                # Perhaps one of our own topics: it has left its turn to us.
                is_drained = is_drained and not self._turns
        except TransportBrokenError:
            self._owner.abort()
        except Exception as exc:  # noqa: BLE001 - this is where a connection's crash ends
            self._owner.fail(exc)
        finally:
            self._has_writer = False
            # Not after a cancellation: nobody may write behind the frame that it has left unfinished.
            if is_drained and not self._turns.is_text:
                self._set_direct(self._transport.direct_send)
            # Whoever waits for the last byte waits for this task.
            self._owner.note_progress()
