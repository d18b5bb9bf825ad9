"""One nursery per connection: a reader, and only while needed a writer and a command task.

Everything that goes to the socket goes through its ``outbound``, the one owner of the byte stream
(actors/outbound.py). An idle connection has one task: its reader.

The reader never waits for the writer, or pings would stay unanswered; it stops reading only when
the client does not take the answers to what it sent. Keeps INV-3 (order), INV-7 (bounded memory).
Commands (hello, subscribe, ...) are run one after the other by actors/commands.py.

A bug met by this connection ends here (INV-9): in a command or the reader the client is told ``internal``
and closed with 4006; on the way of its bytes it is dropped, since they may be out of order. What topics
call (``finish_subscription``, and all of ``outbound``) never raises.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from khala.actors.flushing import begin_flush, flush_then_close
from khala.actors.outbound import OutboundStream
from khala.core.answers import ending_of, frame_control, replay_complete_of
from khala.core.counters import peer_close_label
from khala.core.departures import Departure
from khala.core.limits import VIOLATIONS
from khala.core.outbox import ControlLaneFullError
from khala.core.protocol import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOLS,
    ConnectionProtocol,
    Phase,
    RemoteProtocolError,
)
from khala.core.subscription import ENDED_UNREADABLE, EndedForbidden, EndedStale
from khala.core.websocket_frames import frame_message
from khala.ports import PeerClosedError, TransportBrokenError
from khala_contracts import codec, reason_codes
from khala_contracts.codec import ErrorMessage, GoAway
from khala_service import failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from khala.actors.access_audit import AccessAudit
    from khala.actors.actor_ports import CommandRunner
    from khala.actors.supervision import Supervisor
    from khala.core.admission import TurnedAway
    from khala.core.counters import NodeCounters
    from khala.core.in_flight import InFlight
    from khala.core.limits import NodeLimits
    from khala.core.protocol import Command
    from khala.core.rate_limit import SlidingCount
    from khala.core.slow_consumer import SlowConsumer
    from khala.core.subscription import FrameUnreadableError, Subscription, SubscriptionEnding
    from khala.ports import ByteTransport, OriginPolicy, WebSocketPeer
    from khala_contracts.codec import ReplayComplete, ServerControl
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims
    from khala_contracts.topics import TopicName

# Commands that wait for those before them; then the client is not read.
COMMANDS_MAX: Final = 64


class Connection:
    """One client; see the module docstring for who may call what."""

    __slots__ = (
        "__weakref__",
        "_audit",
        "_commands",
        "_counters",
        "_ended_as",
        "_is_greeting",
        "_is_reading_held",
        "_is_running_commands",
        "_nursery",
        "_origin_policy",
        "_peer",
        "_progress",
        "_protocol",
        "_runner",
        "_supervisor",
        "_transport",
        "_turned_away",
        "app_version",
        "claims",
        "client_address",
        "closed_with",
        "connection_id",
        "has_resumed",
        "heartbeats_sent",
        "limits",
        "look_at",
        "next_heartbeat_at",
        "opened_at",
        "outbound",
        "releases",
        "request_id",
        "slow_consumers",
        "subscriptions",
    )

    def __init__(
        self,
        connection_id: str,
        *,
        transport: ByteTransport,
        limits: NodeLimits,
        counters: NodeCounters,
        commands: CommandRunner[Connection],
        origin_policy: OriginPolicy,
        supervisor: Supervisor,
        in_flight: InFlight,
        audit: AccessAudit | None = None,
        turned_away: TurnedAway | None = None,
    ) -> None:
        """Take over a connected transport; ``serve`` does the rest. Without ``audit`` nothing is reported.

        ``turned_away``: it is upgraded only to be told so.
        """
        # A request id that the client named at its upgrade replaces the second.
        self.connection_id = self.request_id = connection_id
        self.limits = limits
        self.claims: SyncClaims | None = None
        self.subscriptions: dict[TopicName, Subscription] = {}
        self.next_heartbeat_at = trio.current_time() + limits.heartbeat_interval_s
        # The sweeper need not look before this; 0 after a deadline was moved up, or a writer was started.
        self.look_at = 0.0
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
        self.outbound = OutboundStream(transport, self, limits=limits, counters=counters, in_flight=in_flight)
        self._protocol = ConnectionProtocol(limits, is_text=False, now=trio.current_time())
        # A list although it is a queue: it is short, and an empty deque would be 0.7 KiB of an idle connection.
        self._commands: list[Command] = []
        self._is_running_commands = False
        # Subscriptions that the sweeper has seen behind since this last drained.
        self.slow_consumers: dict[Subscription, SlowConsumer] = {}
        self.releases: SlidingCount | None = None
        self._ended_as = ""
        self._nursery: trio.Nursery | None = None
        self._peer: WebSocketPeer | None = None
        # There while somebody waits for a change; see wait_until.
        self._progress: trio.Event | None = None
        self._is_greeting = False
        # Told right after the upgrade: it may not enter, or the node leaves.
        self._turned_away: TurnedAway | Departure | None = turned_away
        # The reader waits until there is room for what a message may cause.
        self._is_reading_held = False

    # -- what others ask -------------------------------------------------------------------

    @property
    def is_text(self) -> bool:
        """Whether this client speaks khala.v1.json."""
        return self._protocol.is_text

    @property
    def is_greeting(self) -> bool:
        """Whether it takes a place among those who have not said hello."""
        return self._is_greeting

    @property
    def phase(self) -> Phase:
        """Where the conversation stands."""
        return self._protocol.phase

    @property
    def heard_at(self) -> float:
        """Monotonic time of the last message or pong; now, as long as we are the one who does not read."""
        return trio.current_time() if self._is_reading_held else self._protocol.heard_at

    @property
    def ended_as(self) -> str:
        """Why it ended: a reason code or a close code; "" if it was never upgraded, or lives."""
        return self._ended_as

    # -- lifetime ----------------------------------------------------------------------------

    async def serve(self, peer: WebSocketPeer) -> None:
        """Serve the client until either side ends it; never raises for what a client does.

        Cancellation: the socket is dropped at once; drain by ``close`` first.
        """
        if self._turned_away is None:
            self._counters.handshakes_open += 1
            self._is_greeting = True
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    if self.phase is not Phase.CLOSING:
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
            self.outbound.part()
            self._peer = None
            self._transport.abort()

    async def _converse(self, peer: WebSocketPeer) -> None:
        try:
            if await self._shake_hands(peer):
                # From here on an end can be said in WebSocket frames.
                self._peer = peer
                if self._turned_away is not None:
                    self._turn_away(self._turned_away)
                await self._read(peer)
        except PeerClosedError as closed:
            if closed.code == reason_codes.MESSAGE_TOO_LARGE.close_code:
                self.note_limit("inbound_message_max_bytes")
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
            self._count_end(reason_codes.HELLO_TIMEOUT.name)
            self.note_limit("hello_timeout_s")
            return False
        self.client_address = request.client_address
        self.request_id = request.request_id or self.connection_id
        refusal = self._origin_policy.refusal(request)
        if refusal is None:
            for subprotocol in SUBPROTOCOLS:
                if subprotocol in request.subprotocols:
                    is_text = subprotocol == SUBPROTOCOL_JSON
                    self._protocol.is_text = is_text
                    if is_text:
                        self.outbound.speak_text()
                    await peer.accept(subprotocol)
                    return True
            refusal = (400, "offer the subprotocol khala.v1 or khala.v1.json")
        if self._audit is not None and refusal[0] == reason_codes.ORIGIN_FORBIDDEN.http_status:
            self._audit.origin_denied(self)
        self._counters.handshakes_rejected[str(refusal[0])] += 1
        await peer.reject(*refusal)
        return False

    def _turn_away(self, turned_away: TurnedAway | Departure) -> None:
        if isinstance(turned_away, Departure):
            self._refuse_draining(turned_away)
            return
        self._counters.hellos_refused[reason_codes.RATE_LIMITED.name] += 1
        self.close(
            reason_codes.RATE_LIMITED,
            self.limits.name_limit(turned_away.limit),
            retry_after_ms=turned_away.retry_after_ms,
        )

    async def _read(self, peer: WebSocketPeer) -> None:
        while True:
            # Not into a variable: it would be kept until the next message comes.
            self._take_message(await peer.receive_message())
            if self.phase is Phase.CLOSING:
                # For the answer to our close only, behind what was on its way; a flood is not read for ever.
                await trio.sleep(self._protocol.reading_pause_s())
            elif not self._has_reading_room():
                await self._hold_reading()

    def _take_message(self, message: bytes | str | None) -> None:
        try:
            command = self._protocol.receive_untrusted(message, trio.current_time())
        except RemoteProtocolError as exc:
            self.close(exc.reason, exc.details, retry_after_ms=exc.retry_after_ms)
            return
        if command is not None:
            self._end_greeting()
            self._commands.append(command)
            if not self._is_running_commands:
                self._is_running_commands = True
                self.start(self._run_commands)

    async def _hold_reading(self) -> None:
        self._is_reading_held = True
        try:
            await self.wait_until(self._has_reading_room)
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
        return self.outbound.has_room or self.phase is Phase.CLOSING

    async def wait_until(self, is_met: Callable[[], bool]) -> None:
        """Wait for progress until the condition holds. Cancellation: safe."""
        while not is_met():
            if self._progress is None:
                self._progress = trio.Event()
            await self._progress.wait()

    async def _run_commands(self) -> None:
        """Run queued commands in order; a task that exists only while there are some."""
        try:
            while self._commands and self.phase is not Phase.CLOSING:
                failpoints.hit("node.connection")
                await self._runner.run(self, self._commands.pop(0))
                self.note_progress()
                await self.wait_until(self._has_answering_room)
        except RemoteProtocolError as exc:
            self.close(exc.reason, exc.details, retry_after_ms=exc.retry_after_ms)
        except Exception as exc:  # noqa: BLE001 - this is where a connection's crash ends
            self._supervisor.note_crash("connection", self.connection_id, exc)
            self.close(reason_codes.INTERNAL)
        finally:
            self._is_running_commands = False

    async def _flush(self) -> None:
        """Give the last bytes a moment to leave; the scope's deadline bounds it."""
        self.outbound.ensure_sending()
        with trio.move_on_after(self.limits.close_timeout_s):
            # Only the writer waits for the socket: two tasks may not.
            await self.wait_until(lambda: not self.outbound.has_writer)

    # -- sending -------------------------------------------------------------------------------

    def push_control(self, message: ServerControl) -> None:
        """Queue one control message behind those before it, ahead of any topic's next frames."""
        self._push(self._encode(message))

    def queue_control(self, message: ServerControl) -> None:
        """Do as ``push_control``, but let what follows in the same step bring it on its way: one write for both."""
        self._queue(self._encode(message))

    def push_heartbeat(self, entries: Iterable[bytes], server_time_ms: int) -> None:
        """Queue a heartbeat of these entries, which were encoded for ``is_text``; see core/heartbeats.py."""
        heartbeat = codec.join_heartbeat(entries, server_time_ms, is_text=self.is_text)
        self._push(frame_message(heartbeat, is_text=self.is_text))

    def _push(self, framed: bytes) -> None:
        self._queue(framed)
        self.outbound.ensure_sending()

    def _queue(self, framed: bytes) -> None:
        if self.phase is Phase.CLOSING:
            return
        try:
            self.outbound.push(framed)
        except ControlLaneFullError:
            self.close_slow("control_lane_max_bytes")

    def emit(self, wire: bytes) -> None:
        """Take what the WebSocket library wants sent: handshake, pong, close."""
        if not wire:
            return
        self.outbound.push_last(wire)
        self.outbound.ensure_sending()

    def _encode(self, message: ServerControl) -> bytes:
        return frame_control(message, is_text=self._protocol.is_text)

    # -- what its stream asks: see StreamOwner -----------------------------------------------------

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task for as long as the connection lives."""
        assert self._nursery is not None
        self.look_at = 0.0
        self._nursery.start_soon(task)

    def note_progress(self) -> None:
        """Wake whoever waits for a change: bytes were taken, a command was run, the end began."""
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    def complete_replay(self, subscription: Subscription) -> bytes:
        """Return, framed, what tells the client that its replay is complete."""
        return self._encode(self._replay_complete(subscription))

    def end_unreadable(self, exc: FrameUnreadableError) -> bytes:
        """End a topic whose next frame cannot be encoded; return, framed, what says so."""
        subscription = exc.subscription
        self._counters.rows_unreadable += 1
        self._supervisor.note_crash("frame", subscription.parsed.name, exc)
        because, answer = ending_of(subscription, ENDED_UNREADABLE)
        self.remove_subscription(subscription.parsed.name, because)
        return self._encode(answer)

    # -- the node leaves ---------------------------------------------------------------------------

    def tell_to_go(self, turn: Departure) -> None:
        """Tell the client that the node leaves, in the words that it understands now. It is served until its turn."""
        if self.phase is Phase.READY:
            self._counters.go_aways += 1
            now = trio.current_time()
            self.push_control(GoAway(turn.return_after_ms(now), turn.close_after_ms(now)))
        elif self._peer is not None:
            self._refuse_draining(turn)
        elif self._turned_away is None:
            self._turned_away = turn

    def _refuse_draining(self, turn: Departure) -> None:
        if self.phase is not Phase.CLOSING:
            self._counters.hellos_refused[reason_codes.DRAINING.name] += 1
            self.close_draining(turn)

    def go(self, turn: Departure) -> None:
        """Its turn has come: send what the windows hold for it, and close."""
        if self.phase is Phase.CLOSING or self._nursery is None:
            return
        if self._peer is None:
            # Until its upgrade nothing can be said to it, and then it is told at once.
            self._nursery.cancel_scope.deadline = trio.current_time() + self.limits.close_timeout_s
            return
        if begin_flush(self):
            self.start(partial(flush_then_close, self, turn))
        else:
            self.close_draining(turn)

    def close_draining(self, turn: Departure) -> None:
        """Close at its turn."""
        self.close(reason_codes.DRAINING, retry_after_ms=turn.return_after_ms(trio.current_time()))

    # -- endings ---------------------------------------------------------------------------------

    def welcome(self, claims: SyncClaims) -> None:
        """The hello was accepted; subscribes are served from now on."""
        self.claims = claims
        self._protocol.welcome()

    def deny_subscribe(self) -> None:
        """Count a denied subscribe; raises RemoteProtocolError when there were too many."""
        self._protocol.deny(trio.current_time())

    def add_subscription(self, subscription: Subscription) -> None:
        """Take a subscription whose ``subscribed`` has been queued, and send that and what it has."""
        self.subscriptions[subscription.parsed.name] = subscription
        self._counters.subscriptions_open += 1
        if subscription.take_barrier():
            self.queue_control(self._replay_complete(subscription))
        if subscription.has_frames:
            self.outbound.wake(subscription)
        else:
            self.outbound.ensure_sending()

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
                sent=subscription.position - self.outbound.unsent_part(subscription),
                closed_with=self._ended_as,
            )
            self.slow_consumers.pop(subscription, None)
            subscription.end()
            self.outbound.discard(subscription)
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

    def close_slow(self, limit: str) -> None:
        """End a client that takes too little by this limit; all its cursors stay valid."""
        self._counters.slow_consumer_actions["disconnect"] += 1
        self.close(reason_codes.SLOW_CONSUMER, self.limits.name_limit(limit))

    def note_limit(self, limit: str) -> None:
        """Count and report that this client exceeded a limit; see limits.VIOLATIONS."""
        self._counters.limit_violations[limit] += 1
        if self._audit is not None:
            self._audit.limit_exceeded(self, limit, VIOLATIONS[limit], str(getattr(self.limits, limit)))

    def close(
        self, reason: ReasonCode, details: dict[str, str] | None = None, *, retry_after_ms: int = 0
    ) -> None:
        """Say why, begin the closing handshake, and drop the socket if that takes too long.

        ``details`` that name a limit (NodeLimits.name_limit) make it a violation, counted and reported.
        """
        if self.phase is Phase.CLOSING:
            return
        if details and "limit" in details:
            self.note_limit(details["limit"])
        if reason is reason_codes.REAUTH_REQUIRED and self.phase is Phase.READY and self._audit is not None:
            self._audit.evicted(self)
        self.closed_with = reason
        self._count_end(reason.name)
        said = self._encode(ErrorMessage.of(reason, details=details or {}, retry_after_ms=retry_after_ms))
        self._leave()
        if self._peer is None or self._nursery is None:
            self._cancel()
            return
        # Who has been silent for so long answers no close: it is freed as soon as the kernel has these bytes.
        patience_s = 0.0 if reason is reason_codes.HEARTBEAT_TIMEOUT else self.limits.close_timeout_s
        self._nursery.cancel_scope.deadline = trio.current_time() + patience_s
        self.outbound.push_last(said)
        self._peer.close(reason.close_code or 1011, reason.name)
        self.outbound.ensure_sending()

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
        self._cancel()

    def _cancel(self) -> None:
        # Without a nursery it has not been served yet, and will not be: see serve.
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _count_end(self, label: str) -> None:
        """Count why this connection ends; what happens after that is not another end."""
        if self.phase is not Phase.CLOSING:
            self._ended_as = label
            self._counters.closes[label] += 1

    def _leave(self) -> None:
        """Take no further part: no command is run, nothing of any topic is begun."""
        self._protocol.close()
        self._end_greeting()
        for topic in tuple(self.subscriptions):
            self.remove_subscription(topic, "disconnected")
        self.note_progress()
