"""The whole client without I/O: every followed topic over one connection after the other.

The ring owns the socket and the waiting; it performs each Output before it takes the next step:

    connected(token, topics)   a socket is open              -> hello
    receive_untrusted(data)    one binary message            -> deliveries, replies
    follow / leave / pause / resume / renew / tick           -> whatever they need to send
    disconnected(close_code)   the socket is gone            -> Reconnect when, or Stop why

One ended connection, one decision, one wait: the ring has no retry of its own around this one.
Subscribes are sent only for topics that the connection's token was minted for; a topic added later
asks for a new token first (TokenDue) and is subscribed when ``renewed`` confirms it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from khala_client.core.advice import Advised, NextStep, advise_close
from khala_client.core.backoff import Backoff, BackoffLimits, Rng
from khala_client.core.follow import FollowState, TopicFollow, error_of
from khala_client.core.happenings import CloseRequest, Happening, Output, TokenDue
from khala_client.core.protocol import ClientProtocol, Identity, Phase, ProtocolLimits, RemoteProtocolError
from khala_client.errors import KhalaError, ReauthRequired, UpgradeRequired
from khala_contracts import codec
from khala_contracts.codec import (
    ErrorMessage,
    FramesMessage,
    Lagging,
    Renewed,
    ReplayComplete,
    ServerHeartbeat,
    ServerMessage,
    StaleCursor,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
)
from khala_contracts.topics import TopicName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from khala_client.core.cursor import After

__all__ = ["FOLLOWS_MAX", "Reconnect", "Stop", "SyncMachine"]

# SPEC section 6: subscriptions of one connection, and topics of one token.
FOLLOWS_MAX: Final = 256
# What a subscribe may name if the welcome does not say.
_TOPICS_PER_MESSAGE: Final = 64
# In so many rounds a node has sent something of every topic that has frames: its largest frame has 16 times
# the bytes of one turn.
_TURNS: Final = 20
_Item = TypeVar("_Item")


@attrs.frozen
class Reconnect:
    """Wait ``delay_s``, mint a token, connect and resume. ``code`` says why it ended."""

    delay_s: float
    code: str


@attrs.frozen
class Stop:
    """Do not reconnect: every followed topic ends with ``error``."""

    error: KhalaError


class SyncMachine:
    """Follows any number of topics; holds no socket, no clock and no task."""

    def __init__(
        self,
        identity: Identity,
        *,
        rng: Rng,
        backoff_limits: BackoffLimits | None = None,
        protocol_limits: ProtocolLimits | None = None,
    ) -> None:
        self._identity = identity
        self._rng = rng
        self._protocol_limits = protocol_limits
        self._backoff = Backoff(backoff_limits)
        self._protocol: ClientProtocol | None = None
        self._follows: dict[TopicName, TopicFollow] = {}
        # Topics of the token in force, and of the one that a renew has just presented.
        self._granted: frozenset[TopicName] = frozenset()
        self._presented: frozenset[TopicName] | None = None
        self._is_token_awaited = False
        self._was_fresh_authority_refused = False
        self._is_closed_by_us = False
        # Messages with frames, of any topic and connection.
        self._frames_seen = 0

    # -- what is followed -------------------------------------------------------------------

    @property
    def topics(self) -> tuple[TopicName, ...]:
        """Topics to mint the next token for, sorted."""
        return tuple(sorted(name for name, follow in self._follows.items() if _is_wanted(follow)))

    def follow_of(self, topic: TopicName) -> TopicFollow | None:
        """Return the follow of ``topic`` if there is one."""
        return self._follows.get(topic)

    def follow(self, topic: TopicName, after: After) -> Output:
        """Start to follow ``topic``.

        Raises:
            ValueError: it is followed already, or FOLLOWS_MAX topics are.
        """
        before = self._follows.get(topic)
        if before is not None and _is_wanted(before):
            message = f"{topic} is followed already"
            raise ValueError(message)
        if len(self._follows) >= FOLLOWS_MAX and before is None:
            message = f"{FOLLOWS_MAX} topics are followed already"
            raise ValueError(message)
        follow = TopicFollow(topic, after, rng=self._rng)
        if before is not None and before.state is FollowState.LEAVING:
            follow.succeed(before)
        self._follows[topic] = follow
        return self._output()

    def leave(self, topic: TopicName) -> Output:
        """Stop following ``topic``; unknown topics are left already."""
        follow = self._follows.get(topic)
        if follow is not None:
            follow.is_unwanted = True
            follow.leave()
        return self._output()

    def pause(self, topic: TopicName) -> Output:
        """Take no more of ``topic`` until ``resume``; the cursor stays where it is."""
        follow = self._follows.get(topic)
        if follow is not None:
            follow.is_paused = True
            follow.leave()
        return self._output()

    def resume(self, topic: TopicName) -> Output:
        """Take ``topic`` up again after its cursor."""
        follow = self._follows.get(topic)
        if follow is not None:
            follow.is_paused = False
        return self._output()

    # -- one connection ---------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True between welcome and the end of the connection."""
        return self._protocol is not None and self._protocol.phase is Phase.OPEN

    @property
    def connection_id(self) -> str:
        """Name of the open connection, for reports; empty before welcome."""
        welcome = self._protocol.welcome if self._protocol is not None else None
        return welcome.connection_id if welcome is not None else ""

    def connected(self, token: str, topics: Iterable[TopicName], now_s: float) -> Output:
        """Begin on a new socket with a token minted for ``topics``."""
        self._protocol = ClientProtocol(self._identity, rng=self._rng, limits=self._protocol_limits)
        self._granted = frozenset(topics)
        self._presented = None
        self._is_token_awaited = False
        return Output(send=(self._protocol.open(token, now_s),))

    def receive_untrusted(self, data: bytes, now_s: float) -> Output:
        """Take one binary message. A violation closes the connection; what was applied stays."""
        protocol = self._open_protocol()
        try:
            message, happenings = protocol.receive_untrusted(data, now_s)
            happenings += self._dispatch(message, now_s)
        except RemoteProtocolError as error:
            self._is_closed_by_us = True
            return Output(happenings=error.happenings, close=CloseRequest(1002, str(error)))
        if isinstance(message, Welcome):
            self._backoff.begin(now_s)
        if isinstance(message, Renewed) and self._presented is not None:
            self._granted, self._presented = self._presented, None
        return self._output(happenings)

    def _dispatch(self, message: ServerMessage, now_s: float) -> tuple[Happening, ...]:
        match message:
            case FramesMessage():
                self._frames_seen += 1
                # No frames: a control message of a newer node, which this build does not know.
                return (
                    self._follow_named(message.frames[0].topic).note_frames(message.frames)
                    if message.frames
                    else ()
                )
            case Subscribed():
                return self._follow_named(message.topic).note_subscribed(message)
            case ReplayComplete():
                return self._follow_named(message.topic).note_replay_complete(message)
            case ServerHeartbeat():
                beats = ((self._follows.get(beat.topic), beat) for beat in message.topics)
                return tuple(
                    each
                    for follow, beat in beats
                    if follow is not None
                    for each in follow.note_heartbeat(
                        beat,
                        now_s=now_s,
                        frames_seen=self._frames_seen,
                        settle_s=self._open_protocol().heartbeat_interval_s / 2,
                        turns=_TURNS * (1 + len(self._follows)),
                    )
                )
            case Unsubscribed() | StaleCursor() | Lagging() | ErrorMessage():
                # Both sides may end a subscription at once: what comes about one that is gone here
                # (the ack of an unsubscribe after the node's own decision) is about nothing any more.
                follow = self._follows.get(TopicName(message.topic))
                return self._note_end(follow, message, now_s) if follow is not None else ()
            case _:
                return ()

    def _note_end(
        self, follow: TopicFollow, message: Unsubscribed | StaleCursor | Lagging | ErrorMessage, now_s: float
    ) -> tuple[Happening, ...]:
        match message:
            case Unsubscribed():
                return follow.note_unsubscribed(message, now_s)
            case StaleCursor():
                return follow.note_stale(message)
            case Lagging():
                return follow.note_lagging(message)
            case ErrorMessage():
                return follow.note_error(message, now_s)

    def _follow_named(self, topic: TopicName) -> TopicFollow:
        follow = self._follows.get(topic)
        if follow is None:
            raise RemoteProtocolError("protocol_error", f"a message about {topic}, which is not followed")
        return follow

    def alive(self, now_s: float) -> None:
        """Note a pong."""
        if self._protocol is not None:
            self._protocol.alive(now_s)

    def tick(self, now_s: float) -> Output:
        """Do what is due at ``now_s``."""
        for follow in self._follows.values():
            follow.tick(now_s)
        if self._protocol is None:
            return Output()
        ticked = self._protocol.tick(now_s)
        if ticked.close is not None:
            self._is_closed_by_us = True
            return ticked
        if any(isinstance(happening, TokenDue) for happening in ticked.happenings):
            self._is_token_awaited = True
        rest = self._output()
        return attrs.evolve(
            ticked, send=ticked.send + rest.send, happenings=ticked.happenings + rest.happenings
        )

    def next_wakeup_s(self) -> float | None:
        """Return when ``tick`` has something to do; None if nothing is planned."""
        planned = [follow.next_wakeup_s() for follow in self._follows.values()]
        if self._protocol is not None:
            planned.append(self._protocol.next_wakeup_s())
        return min((at_s for at_s in planned if at_s is not None), default=None)

    def renew(self, token: str, topics: Iterable[TopicName]) -> Output:
        """Present a token minted for ``topics`` on the open connection (the answer to TokenDue)."""
        self._is_token_awaited = False
        if not self.is_open:
            return Output()  # the connection ended while the token was minted; the next mints its own
        minted = frozenset(topics)
        if any(follow.is_at_node and follow.topic not in minted for follow in self._follows.values()):
            # Subscribed under the grant before, while this token was minted: it would take the topic away.
            self._is_token_awaited = True
            return Output(happenings=(TokenDue(),))
        self._presented = minted
        return Output(send=(self._open_protocol().renew(token),))

    def renew_failed(self, error: KhalaError, now_s: float) -> Output:
        """No token could be had for the open connection: try later, or end what it was for."""
        if not self.is_open:
            self._is_token_awaited = False
            return Output()
        if not error.retryable and error.topic is None:
            self._is_token_awaited = False
            return attrs.evolve(self.stop(error), close=CloseRequest(1000, error.code))
        # Still awaited: until then no message of the node asks for another one.
        self._is_token_awaited = True
        if not error.retryable and error.topic in self.topics:
            # The others go on, and need their token now.
            self._open_protocol().retry_renew(now_s)
            return self.end_topic(TopicName(error.topic), error)
        # Trouble, or a topic that was left meanwhile.
        delay_s = self._backoff.next_delay_s(self._rng, retry_after_ms=error.retry_after_ms)
        self._open_protocol().retry_renew(now_s + delay_s)
        return Output()

    def _open_protocol(self) -> ClientProtocol:
        assert self._protocol is not None, "no connection"
        return self._protocol

    # -- between connections ----------------------------------------------------------------

    def disconnected(self, close_code: int | None, now_s: float) -> Reconnect | Stop:
        """Decide after the end of a connection; ``close_code`` is None if no close frame came."""
        protocol, self._protocol = self._protocol, None
        error = protocol.last_error if protocol is not None else None
        was_ours, self._is_closed_by_us = self._is_closed_by_us, False
        return_at_s = protocol.return_at_s if protocol is not None else None
        if protocol is not None:
            protocol.close()
        self._detach_all()
        self._backoff.end(now_s)
        if self._backoff.failures == 0:
            self._was_fresh_authority_refused = False
        if return_at_s is not None:
            # However it ended, and whatever the node said last: the others expect us then. No failure of ours.
            return Reconnect(max(0.0, return_at_s - now_s), "draining")
        if was_ours:
            # The peer's close frame only echoes our code; why we closed is what counts.
            return self._decide(Advised("unavailable", NextStep.RESUME), None)
        advised = advise_close(close_code, error_code=error.code if error is not None else None)
        return self._decide(advised, error)

    def hung_up(self, now_s: float) -> None:
        """Note that the ring closed the connection because nothing is followed: no failure, no wait."""
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None
        self._is_closed_by_us = False
        self._detach_all()
        self._backoff.end(now_s)

    def _decide(self, advised: Advised, error: ErrorMessage | None) -> Reconnect | Stop:
        refusal = error_of(error) if error is not None else None
        retry_after_ms = error.retry_after_ms if error is not None else 0
        match advised.step:
            case NextStep.RESUME:
                is_first = self._backoff.failures == 0
                delay_s = self._backoff.next_delay_s(self._rng, retry_after_ms=retry_after_ms)
                if advised.is_immediate and is_first and retry_after_ms == 0:
                    delay_s = 0.0
                return Reconnect(delay_s, advised.code)
            case NextStep.MINT:
                if self._was_fresh_authority_refused:
                    return Stop(refusal or ReauthRequired(advised.code))
                self._was_fresh_authority_refused = True
                return Reconnect(
                    self._backoff.next_delay_s(self._rng, retry_after_ms=retry_after_ms), advised.code
                )
            case NextStep.UPGRADE:
                return Stop(refusal or UpgradeRequired(advised.code))
            case NextStep.REBOOTSTRAP | NextStep.GIVE_UP:
                return Stop(refusal or KhalaError(advised.code, retryable=False))

    def connect_failed(self, error: KhalaError) -> Reconnect | Stop:
        """Decide after a token could not be minted, or no socket could be opened."""
        if error.retryable:
            return Reconnect(
                self._backoff.next_delay_s(self._rng, retry_after_ms=error.retry_after_ms), error.code
            )
        return Stop(error)

    def end_topic(self, topic: TopicName, error: KhalaError) -> Output:
        """End one topic that control refuses to grant; the others go on."""
        follow = self._follows.get(topic)
        return self._output(follow.refuse(error) if follow is not None and _is_wanted(follow) else ())

    def stop(self, error: KhalaError) -> Output:
        """End every topic with ``error``."""
        wanted = [follow for follow in self._follows.values() if _is_wanted(follow)]
        ended = [happening for follow in wanted for happening in follow.end(error)]
        # Whoever follows something after this has heard of it: sign-in or upgrade may have happened.
        self._was_fresh_authority_refused = False
        self._drop_finished()
        return Output(happenings=tuple(ended))

    def _detach_all(self) -> None:
        for follow in self._follows.values():
            follow.detach()
        self._drop_finished()

    def _drop_finished(self) -> None:
        finished = [
            topic
            for topic, follow in self._follows.items()
            if follow.state is FollowState.ENDED
            or (follow.is_unwanted and follow.state is FollowState.DETACHED)
        ]
        for topic in finished:
            del self._follows[topic]

    # -- what is due now --------------------------------------------------------------------

    def _output(self, happenings: tuple[Happening, ...] = ()) -> Output:
        self._drop_finished()
        if not self.is_open:
            return Output(happenings=happenings)
        leaving = [follow.topic for follow in self._follows.values() if follow.take_unsubscribe()]
        askable = [follow for follow in self._follows.values() if follow.is_askable]
        # Race: a subscribe behind our renew is judged by the new grants, also before ``renewed`` has come.
        granted = self._granted if self._presented is None else self._granted & self._presented
        asked = [follow.ask() for follow in askable if follow.topic in granted]
        if len(asked) < len(askable) and not self._is_token_awaited and self._presented is None:
            self._is_token_awaited = True
            happenings += (TokenDue(),)
        send = [codec.encode_client_message(Unsubscribe(topics=names)) for names in self._portions(leaving)]
        send += [codec.encode_client_message(Subscribe(topics=starts)) for starts in self._portions(asked)]
        return Output(send=tuple(send), happenings=happenings)

    def _portions(self, items: Sequence[_Item]) -> Iterator[tuple[_Item, ...]]:
        welcome = self._open_protocol().welcome
        size = (welcome.limits.topics_per_subscribe_max if welcome is not None else 0) or _TOPICS_PER_MESSAGE
        for start in range(0, len(items), size):
            yield tuple(items[start : start + size])


def _is_wanted(follow: TopicFollow) -> bool:
    return not follow.is_unwanted and follow.state is not FollowState.ENDED
