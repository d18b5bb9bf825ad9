"""One nursery per connection: a reader, and only while needed a writer and a command task.

Everything that goes to the socket goes through this object, which is the one owner of the byte
stream: remainder, control lane, then topics in turn (core/outbox.py, core/scheduler.py). All of
``pump``, ``send_direct``, ``wake`` and ``push_control`` are synchronous, so no two tasks can
interleave inside a WebSocket frame. An idle connection has one task: its reader.

The reader never waits for the writer, or pings would stay unanswered; it stops reading only when
the client does not take the answers to what it sent. Keeps INV-3 (order), INV-7 (bounded memory).
Commands (hello, subscribe, ...) are run one after the other by actors/commands.py.

A bug met by this connection ends here (INV-9): in a command or the reader the client is told ``internal``
and closed with 4006; on the way of its bytes it is dropped, since they may be out of order. What others
call (``send_direct``, ``wake``, ``finish_subscription``) never raises.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import trio

from khala.core.answers import ending_of, replay_complete_of
from khala.core.counters import peer_close_label
from khala.core.outbox import ControlLaneFullError, Outbox
from khala.core.protocol import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOLS,
    ConnectionProtocol,
    Phase,
    RemoteProtocolError,
)
from khala.core.scheduler import DeficitRoundRobin
from khala.core.subscription import ENDED_UNREADABLE, EndedForbidden, EndedStale, FrameUnreadableError
from khala.core.websocket_frames import frame_message
from khala.ports import PeerClosedError, TransportBrokenError
from khala_contracts import codec, reason_codes
from khala_contracts.codec import ErrorMessage
from khala_service import failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from khala.actors.access_audit import AccessAudit
    from khala.actors.supervision import Supervisor
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.protocol import Command
    from khala.core.rate_limit import SlidingCount
    from khala.core.slow_consumer import SlowConsumer
    from khala.core.subscription import Subscription, SubscriptionEnding
    from khala.ports import ByteTransport, OriginPolicy, WebSocketPeer
    from khala_contracts.codec import ReplayComplete, ServerControl
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims
    from khala_contracts.topics import TopicName

# One call of pump() hands over at most this before others get a turn. Larger: one fast client
# that catches up holds the loop; smaller: more wake-ups per megabyte. 256 KiB is ~0.1 ms of send.
PUMP_MAX_BYTES: Final = 256 * 1024
COMMANDS_MAX: Final = 64


class CommandRunner(Protocol):
    """Runs what a client asked for; see actors/commands.py."""

    async def run(self, connection: Connection, command: Command) -> None:
        """Run one command to its answer.

        Raises:
            RemoteProtocolError: The connection must end.
        """


class Connection:
    """One client; see the module docstring for who may call what."""

    def __init__(
        self,
        connection_id: str,
        *,
        transport: ByteTransport,
        limits: NodeLimits,
        counters: NodeCounters,
        commands: CommandRunner,
        origin_policy: OriginPolicy,
        supervisor: Supervisor,
        audit: AccessAudit | None = None,
    ) -> None:
        """Take over a connected transport; ``serve`` does the rest. Without ``audit`` nothing is reported."""
        # A request id that the client named at its upgrade replaces the second.
        self.connection_id = self.request_id = connection_id
        self.limits = limits
        self.claims: SyncClaims | None = None
        self.subscriptions: dict[TopicName, Subscription] = {}
        self.next_heartbeat_at = trio.current_time() + limits.heartbeat_interval_s
        self.heartbeats_sent = 0
        self.opened_at = trio.current_time()
        self.closed_with: ReasonCode | None = None
        # As far as our own proxies know it; "" before the upgrade request.
        self.client_address = ""
        # Label of the client's version once it was welcomed; "" before.
        self.app_version = ""
        # Whether its first subscribe resumed with a cursor; None before it.
        self.has_resumed: bool | None = None
        self._counters = counters
        self._runner = commands
        self._origin_policy = origin_policy
        self._audit = audit
        self._supervisor = supervisor
        self._transport = transport
        self._outbox = Outbox(limits.control_lane_max_messages, limits.control_lane_max_bytes)
        self._protocol = ConnectionProtocol(limits, is_text=False, now=trio.current_time())
        self._turns = DeficitRoundRobin(limits.drr_quantum_bytes, limits.chunk_max_bytes, is_text=False)
        self._commands: deque[Command] = deque()
        self._is_running_commands = False
        self._has_writer = False
        # Whether a topic may write to the socket at once. Whatever waits has a writer, so:
        # invariant (outside a synchronous step): is_direct == not (_has_writer or is_text).
        self.is_direct = True
        # Monotonic time at which the kernel last took a byte while bytes were waiting.
        self._taken_at = trio.current_time()
        self._backlogged_since = trio.current_time()
        # Whose frames the chunk in hand carries, and its whole size; None: control messages.
        self._chunk_of: Subscription | None = None
        self._chunk_bytes = 0
        # Subscriptions that the sweeper has seen behind since this last drained.
        self.slow_consumers: dict[Subscription, SlowConsumer] = {}
        self.releases: SlidingCount | None = None
        self._ended_as = ""
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._peer: WebSocketPeer | None = None
        # Set when bytes were taken, a command was run or the end began; see _wait_until.
        self._progress = trio.Event()
        self._is_greeting = False
        # The reader waits until there is room for what a message may cause.
        self._is_reading_held = False

    # -- what others ask -------------------------------------------------------------------

    @property
    def is_text(self) -> bool:
        """Whether this client speaks khala.v1.json."""
        return self._protocol.is_text

    @property
    def phase(self) -> Phase:
        """Where the conversation stands."""
        return self._protocol.phase

    @property
    def heard_at(self) -> float:
        """Monotonic time of the last message or pong; now, as long as we are the one who does not read."""
        return trio.current_time() if self._is_reading_held else self._protocol.heard_at

    @property
    def has_room(self) -> bool:
        """Whether a message that may as well wait crowds out no answer."""
        return self._outbox.has_room

    @property
    def ended_as(self) -> str:
        """Why it ended: a reason code or a close code; "" if it was never upgraded, or lives."""
        return self._ended_as

    @property
    def waiting_bytes(self) -> int:
        """Bytes of remainder and control lane that the kernel has not taken."""
        return self._outbox.waiting_bytes

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

    # -- lifetime ----------------------------------------------------------------------------

    async def serve(self, peer: WebSocketPeer) -> None:
        """Serve the client until either side ends it; never raises for what a client does.

        Cancellation: the socket is dropped at once; drain by ``close`` first.
        """
        self._counters.handshakes_open += 1
        self._is_greeting = True
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    try:
                        await self._converse(peer)
                    finally:
                        # Before the nursery closes: a topic that sends to us while we leave
                        # would start a writer in a closed nursery, and crash for it.
                        self._leave()
                    nursery.cancel_scope.cancel()
        finally:
            self._end_greeting()
            if self.app_version:
                self._counters.leave(self.app_version)
            self._outbox.clear()
            self._turns.clear()
            self._transport.abort()

    async def _converse(self, peer: WebSocketPeer) -> None:
        try:
            if await self._shake_hands(peer):
                # From here on an end can be said in WebSocket frames.
                self._peer = peer
                await self._read(peer)
        except PeerClosedError as closed:
            self._count_end(peer_close_label(closed.code))
            self._leave()
        except TransportBrokenError:
            self._count_end("1006")
            return
        except Exception as exc:  # noqa: BLE001 - this is where a connection's crash ends
            self._supervisor.note_crash("connection", self.connection_id, exc)
            self.close(reason_codes.INTERNAL)
        await self._flush()

    async def _shake_hands(self, peer: WebSocketPeer) -> bool:
        with trio.move_on_at(self.opened_at + self.limits.hello_timeout_s) as scope:
            request = await peer.receive_request()
        if scope.cancelled_caught:
            return False
        self.client_address = request.client_address
        self.request_id = request.request_id or self.connection_id
        refusal = self._origin_policy.refusal(request)
        if refusal is None:
            for subprotocol in SUBPROTOCOLS:
                if subprotocol in request.subprotocols:
                    is_text = subprotocol == SUBPROTOCOL_JSON
                    self._protocol.is_text = self._turns.is_text = is_text
                    self.is_direct = not is_text
                    peer.accept(subprotocol)
                    return True
            refusal = (400, "offer the subprotocol khala.v1 or khala.v1.json")
        if self._audit is not None and refusal[0] == reason_codes.ORIGIN_FORBIDDEN.http_status:
            self._audit.origin_denied(self)
        self._counters.handshakes_rejected[str(refusal[0])] += 1
        peer.reject(*refusal)
        return False

    async def _read(self, peer: WebSocketPeer) -> None:
        while True:
            message = await peer.receive_message()
            try:
                command = self._protocol.receive_untrusted(message, trio.current_time())
            except RemoteProtocolError as exc:
                self.close(exc.reason, exc.details, retry_after_ms=exc.retry_after_ms)
                continue
            if command is not None:
                self._end_greeting()
                self._commands.append(command)
                if not self._is_running_commands:
                    self._is_running_commands = True
                    self._start(self._run_commands)
            if not self._has_reading_room():
                await self._hold_reading()

    async def _hold_reading(self) -> None:
        self._is_reading_held = True
        try:
            await self._wait_until(self._has_reading_room)
        finally:
            self._is_reading_held = False
        # What it has said meanwhile is still to be read.
        self._protocol.heard_at = trio.current_time()

    def _end_greeting(self) -> None:
        if self._is_greeting:
            self._is_greeting = False
            self._counters.handshakes_open -= 1

    def _has_reading_room(self) -> bool:
        return self._has_answering_room() and (
            len(self._commands) < COMMANDS_MAX or self.phase is Phase.CLOSING
        )

    def _has_answering_room(self) -> bool:
        return self._outbox.has_room or self.phase is Phase.CLOSING

    async def _wait_until(self, is_met: Callable[[], bool]) -> None:
        """Wait for progress until the condition holds. Cancellation: safe."""
        while not is_met():
            if self._progress.is_set():
                self._progress = trio.Event()
            await self._progress.wait()

    async def _run_commands(self) -> None:
        """Run queued commands in order; a task that exists only while there are some."""
        try:
            while self._commands and self.phase is not Phase.CLOSING:
                failpoints.hit("node.connection")
                await self._runner.run(self, self._commands.popleft())
                self._progress.set()
                await self._wait_until(self._has_answering_room)
        except RemoteProtocolError as exc:
            self.close(exc.reason, exc.details, retry_after_ms=exc.retry_after_ms)
        except Exception as exc:  # noqa: BLE001 - this is where a connection's crash ends
            self._supervisor.note_crash("connection", self.connection_id, exc)
            self.close(reason_codes.INTERNAL)
        finally:
            self._is_running_commands = False

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task)

    async def _flush(self) -> None:
        """Give the last bytes a moment to leave; the scope's deadline bounds it."""
        self._ensure_sending()
        with trio.move_on_after(self.limits.close_timeout_s):
            # Only the writer waits for the socket: two tasks may not.
            await self._wait_until(lambda: not self._has_writer)

    # -- sending -------------------------------------------------------------------------------

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
                    self._progress.set()
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
            self.abort()
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
            self._progress.set()
            self._chunk_of = None
            return control
        try:
            taken = self._turns.take_next()
        except FrameUnreadableError as exc:
            return self._end_unreadable(exc)
        if taken is None:
            return None
        subscription, framed = taken
        self._chunk_of, self._chunk_bytes = subscription, len(framed)
        self._counters.by_class[subscription.parsed.topic_class.name].deliveries += 1
        if subscription.take_barrier():
            self._queue_control(self._replay_complete(subscription))
            # What was committed during the replay waits for no further record.
            if subscription.has_frames:
                self._turns.add(subscription)
        return framed

    def _end_unreadable(self, exc: FrameUnreadableError) -> bytes | None:
        """End one topic and return what says so: the pump that asked for a chunk sends it."""
        subscription = exc.subscription
        self._counters.rows_unreadable += 1
        self._supervisor.note_crash("frame", subscription.parsed.name, exc)
        because, answer = ending_of(subscription, ENDED_UNREADABLE)
        self.remove_subscription(subscription.parsed.name, because)
        self._queue_control(answer)
        return self._outbox.take_control()

    def _ensure_sending(self) -> None:
        """Send now if nothing is in the way; leave the rest to a writer."""
        if not self._has_writer and not self.pump():
            self._start_writer()

    def _start_writer(self) -> None:
        self._has_writer = True
        self.is_direct = False
        self._taken_at = self._backlogged_since = trio.current_time()
        self._start(self._write_until_drained)

    async def _write_until_drained(self) -> None:
        try:
            while True:
                await self._transport.wait_writable()
                if self.pump():
                    return
        except TransportBrokenError:
            self.abort()
        except Exception as exc:  # noqa: BLE001 - this is where a connection's crash ends
            self.fail(exc)
        finally:
            self._has_writer = False
            self.is_direct = not self.is_text

    def send_direct(self, subscription: Subscription, framed: bytes, end_seq: int) -> None:
        """Write a range of a live subscription at once; see DeliverySink. Requires is_direct."""
        try:
            sent = self._transport.try_send(framed)
            if sent != len(framed):
                self._chunk_of, self._chunk_bytes = subscription, len(framed)
                subscription.chunk_frames = end_seq - subscription.position
                self._outbox.keep_remainder(memoryview(framed)[sent:])
                self._start_writer()
            subscription.advance(end_seq)
        except TransportBrokenError:
            self.abort()
        except Exception as exc:  # noqa: BLE001 - a topic sends to us: our crash is not its crash
            self.fail(exc)

    def wake(self, subscription: Subscription) -> None:
        """Let a subscription with frames to send take its turns; see DeliverySink."""
        try:
            if subscription.is_active and self._nursery is not None:
                self._turns.add(subscription)
                self._ensure_sending()
        except Exception as exc:  # noqa: BLE001 - a topic wakes us: our crash is not its crash
            self.fail(exc)

    def push_control(self, message: ServerControl) -> None:
        """Queue one control message behind those before it, ahead of any topic's next frames."""
        self._queue_control(message)
        self._ensure_sending()

    def _queue_control(self, message: ServerControl) -> None:
        if self.phase is Phase.CLOSING:
            return
        try:
            self._outbox.push_control(self._encode(message))
        except ControlLaneFullError:
            self.close_slow()

    def emit(self, wire: bytes) -> None:
        """Take what the WebSocket library wants sent: handshake, pong, close."""
        if not wire:
            return
        self._outbox.push_last(wire)
        self._ensure_sending()

    def _encode(self, message: ServerControl) -> bytes:
        if self._protocol.is_text:
            return frame_message(codec.encode_server_control_json(message), is_text=True)
        return frame_message(codec.encode_server_control(message))

    # -- endings ---------------------------------------------------------------------------------

    def welcome(self, claims: SyncClaims) -> None:
        """The hello was accepted; subscribes are served from now on."""
        self.claims = claims
        self._protocol.welcome()

    def deny_subscribe(self) -> None:
        """Count a denied subscribe; raises RemoteProtocolError when there were too many."""
        self._protocol.deny(trio.current_time())

    def add_subscription(self, subscription: Subscription) -> None:
        """Take a subscription whose ``subscribed`` has been queued, and send what it has."""
        self.subscriptions[subscription.parsed.name] = subscription
        self._counters.subscriptions_open += 1
        if subscription.take_barrier():
            self.push_control(self._replay_complete(subscription))
        self.wake(subscription)

    def _replay_complete(self, subscription: Subscription) -> ReplayComplete:
        if subscription.through_seq > subscription.start_seq:
            counts = self._counters.by_class[subscription.parsed.topic_class.name]
            counts.replay_durations.observe(trio.current_time() - subscription.began_at)
        return replay_complete_of(subscription)

    def remove_subscription(self, topic: TopicName, because: str) -> Subscription | None:
        """End a subscription; nothing of its topic is begun on this connection afterwards.

        Args:
            topic: It need not be subscribed.
            because: For explanations; see SubscriptionNote.
        """
        subscription = self.subscriptions.pop(topic, None)
        if subscription is not None:
            subscription.note.end(
                because,
                trio.current_time(),
                position=subscription.position,
                sent=subscription.position - self.unsent_part(subscription),
                closed_with=self._ended_as,
            )
            self.slow_consumers.pop(subscription, None)
            subscription.end()
            self._turns.discard(subscription)
            subscription.source.leave(subscription)
            self._counters.subscriptions_open -= 1
        return subscription

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """End a running subscription and say why; the connection and its other topics stay."""
        if self.subscriptions.get(subscription.parsed.name) is not subscription:
            return
        try:
            self._finish(subscription, ending)
        except Exception as exc:  # noqa: BLE001 - a topic ends us: our crash is not its crash
            self.fail(exc)

    def _finish(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        because, answer = ending_of(subscription, ending)
        if isinstance(ending, EndedForbidden) and self._audit is not None:
            self._audit.topic_evicted(self, subscription, "right_lost")
        if isinstance(ending, EndedStale):
            subscription.note.observe(ending.observation)
            counts = self._counters.by_class[subscription.parsed.topic_class.name]
            counts.stale_cursors[ending.reason.value] += 1
        self.remove_subscription(subscription.parsed.name, because)
        self.push_control(answer)

    def close_slow(self) -> None:
        """End a client that takes too little; all its cursors stay valid."""
        self._counters.slow_consumer_actions["disconnect"] += 1
        self.close(reason_codes.SLOW_CONSUMER)

    def close(
        self, reason: ReasonCode, details: dict[str, str] | None = None, *, retry_after_ms: int = 0
    ) -> None:
        """Say why, begin the closing handshake, and drop the socket if that takes too long."""
        if self.phase is Phase.CLOSING:
            return
        if reason is reason_codes.REAUTH_REQUIRED and self.phase is Phase.READY and self._audit is not None:
            self._audit.evicted(self)
        self.closed_with = reason
        self._count_end(reason.name)
        said = self._encode(ErrorMessage.of(reason, details=details or {}, retry_after_ms=retry_after_ms))
        self._leave()
        if self._peer is None or self._nursery is None:
            self._scope.cancel()
            return
        self._scope.deadline = trio.current_time() + self.limits.close_timeout_s
        self._outbox.push_last(said)
        self._peer.close(reason.close_code or 1011, reason.name)
        self._ensure_sending()

    def fail(self, exc: Exception) -> None:
        """End this connection for a bug of ours, without a word: its bytes may be out of order."""
        self._supervisor.note_crash("connection", self.connection_id, exc)
        self._drop(reason_codes.INTERNAL.name)

    def abort(self) -> None:
        """Drop the connection now, without a word."""
        self._drop("1006")

    def _drop(self, label: str) -> None:
        self._count_end(label)
        # At once, not when our task ends: a topic would go on sending to what cannot take it.
        self._leave()
        self._transport.abort()
        self._scope.cancel()

    def _count_end(self, label: str) -> None:
        """Count why this connection ends; what happens after that is not another end."""
        if self.phase is not Phase.CLOSING:
            self._ended_as = label
            self._counters.closes[label] += 1

    def _leave(self) -> None:
        """Take no further part: no command is run, nothing of any topic is begun."""
        self._protocol.close()
        for topic in tuple(self.subscriptions):
            self.remove_subscription(topic, "disconnected")
        self._progress.set()
