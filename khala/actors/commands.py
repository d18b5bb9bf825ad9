"""What a client asks for, run to its answer: hello, subscribe, unsubscribe, renew.

A connection runs its commands one after the other, so "exactly one answer for each subscribe"
and "unsubscribe during a subscribe" need no generation counters. Between the journal's answer and
the queued ``subscribed`` nothing awaits: the barrier order is decided in one step (INV-4).

Order at hello (SPEC section 5): admission, versions, signature and claims, device, redeem, welcome. A hello
that is refused before redeem leaves its token usable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala.core.access_policy import find_grant, is_allowed
from khala.core.answers import subscribed_of
from khala.core.classification import (
    Serve,
    Stale,
    classify,
    replay_bytes,
)
from khala.core.delivery_trace import SubscriptionNote
from khala.core.protocol import (
    PROTOCOL_VERSION,
    SCHEMA_VERSION,
    ClientBuilds,
    Phase,
    RemoteProtocolError,
    check_versions,
)
from khala.core.replay_budgets import with_budget
from khala.core.subscription import Subscription
from khala.ports import ControlUnavailableError, JournalUnavailableError, ObservedTopic, TokenRefusedError
from khala_contracts import codec, reason_codes
from khala_contracts.chain import chain_start
from khala_contracts.codec import (
    ConnectionLimits,
    CursorStart,
    Hello,
    Renew,
    Renewed,
    StaleCursor,
    StaleReason,
    Subscribe,
    Unsubscribe,
    Unsubscribed,
    UnsubscribedReason,
    Welcome,
)
from khala_contracts.topics import TopicInvalid, TopicName, parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala.actors.access_audit import AccessAudit
    from khala.actors.connection import Connection
    from khala.actors.evictions import Evictions
    from khala.actors.observations import GroupedObservations
    from khala.actors.registry import TopicRegistry
    from khala.actors.start_gate import StartGate
    from khala.actors.topic import ReadStart, TopicActor
    from khala.core.classification import SubscriptionStart
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.protocol import Command
    from khala.ports import Clock, ControlClient, TokenVerifier
    from khala_contracts.codec import TopicStart
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims, TopicGrant
    from khala_contracts.topics import ParsedTopic


# When a client may ask again that was refused because the node does not know what has been revoked.
STALE_RETRY_AFTER_MS: Final = 2_000


@attrs.frozen
class _Asked:
    """One topic of a subscribe that passed everything that needs no journal."""

    parsed: ParsedTopic
    grant: TopicGrant
    start: SubscriptionStart


@attrs.define(eq=False)
class _Look:
    """What the journal says of one asked topic; ``seen`` is None until it has said it."""

    asked: _Asked
    topic: TopicActor
    begun: ReadStart
    seen: ObservedTopic | None = None


@attrs.define(eq=False)
class ClientCommands:
    """Runs the commands of every connection of a node; holds no state of its own."""

    node_id: str
    limits: NodeLimits
    counters: NodeCounters
    clock: Clock
    tokens: TokenVerifier
    control: ControlClient
    observations: GroupedObservations
    topics: TopicRegistry
    # None: hellos are served from the start.
    gate: StartGate | None = None
    # None: nothing is ever revoked.
    evictions: Evictions | None = None
    # None: nothing is reported.
    audit: AccessAudit | None = None
    builds: ClientBuilds = attrs.field(factory=ClientBuilds)

    async def run(self, connection: Connection, command: Command) -> None:
        """Run one command to its answer; see CommandRunner."""
        match command:
            case Hello():
                await self._hello(connection, command)
            case Subscribe():
                await self._subscribe(connection, command)
            case Unsubscribe():
                self._unsubscribe(connection, command)
            case Renew():
                await self._renew(connection, command)

    # -- hello and renew -------------------------------------------------------------------------

    async def _hello(self, connection: Connection, hello: Hello) -> None:
        try:
            if self.gate is not None and not self.gate.is_open:
                retry_after_ms = round(self.gate.retry_after_s() * 1000)
                raise RemoteProtocolError(reason_codes.UNAVAILABLE, retry_after_ms=retry_after_ms)
            check_versions(hello, self.builds)
            claims = await self._admit(connection, hello.token, device_id=hello.device_id)
        except RemoteProtocolError as exc:
            self.counters.hellos_refused[exc.reason.name] += 1
            raise
        if connection.phase is Phase.CLOSING:
            # It ended while its token was verified: nobody is left to be welcomed.
            return
        connection.welcome(claims)
        connection.app_version = self.counters.welcome(hello.client_build_id)
        limits = self.limits
        connection.push_control(
            Welcome(
                connection_id=connection.connection_id,
                node_id=self.node_id,
                protocol=PROTOCOL_VERSION,
                schema=SCHEMA_VERSION,
                heartbeat_interval_ms=round(limits.heartbeat_interval_s * 1000),
                limits=ConnectionLimits(
                    inbound_message_max_bytes=limits.inbound_message_max_bytes,
                    client_messages_per_s=round(limits.client_messages_per_s),
                    client_messages_burst=limits.client_messages_burst,
                    subscriptions_max=limits.subscriptions_max,
                    topics_per_subscribe_max=limits.topics_per_subscribe_max,
                    dead_after_ms=round(limits.dead_after_s * 1000),
                ),
                token_expires_at_ms=claims.expires_at_s * 1000,
                server_time_ms=round(self.clock.now() * 1000),
            )
        )

    async def _admit(self, connection: Connection, token: str | None, *, device_id: str) -> SyncClaims:
        """Verify and spend a token for this connection: its first, or one that renews what it has.

        Raises:
            RemoteProtocolError: With the reason for which the connection must end.
        """
        claims: SyncClaims | None = None
        try:
            if token is None:
                raise TokenRefusedError(reason_codes.TOKEN_INVALID, "no_token")
            claims = await self.tokens.verify(token)
            await self._spend(connection, claims, device_id=device_id)
        except TokenRefusedError as exc:
            if self.audit is not None:
                is_renewal = connection.claims is not None
                self.audit.token_refused(
                    connection, exc.reason, exc.cause, is_renewal=is_renewal, claims=claims
                )
            raise RemoteProtocolError(exc.reason) from exc
        except ControlUnavailableError as exc:
            raise RemoteProtocolError(
                reason_codes.UNAVAILABLE, retry_after_ms=round(exc.retry_after_s * 1000)
            ) from exc
        return claims

    async def _spend(self, connection: Connection, claims: SyncClaims, *, device_id: str) -> None:
        """Redeem a genuine token; one that is refused before that stays usable.

        Raises:
            TokenRefusedError: It is another device's or session's, was used before, or has ended.
            RemoteProtocolError: Nobody can say at the moment whether it has ended.
        """
        if claims.device_id != device_id:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "another_device")
        old = connection.claims
        if old is None and self.evictions is not None and not self.evictions.feed.may_welcome:
            raise RemoteProtocolError(reason_codes.UNAVAILABLE, retry_after_ms=STALE_RETRY_AFTER_MS)
        refusal = await self.control.redeem(claims, connection.connection_id)
        if refusal is not None:
            raise TokenRefusedError(refusal, "redeem")
        # Race: control redeems, then ends the session, and its row arrives before its answer to us.
        if self.evictions is not None and self.evictions.view.is_ended(claims):
            raise TokenRefusedError(reason_codes.REAUTH_REQUIRED, "ended_meanwhile")
        if old is not None and (claims.session_id, claims.user_id) != (old.session_id, old.user_id):
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "another_session")

    async def _renew(self, connection: Connection, renew: Renew) -> None:
        """Extend the connection's authority; topics that the new token lacks end forbidden."""
        old = connection.claims
        assert old is not None
        claims = await self._admit(connection, renew.token, device_id=old.device_id)
        connection.claims = claims
        # Perhaps it ends sooner than the token before it.
        connection.look_at = 0.0
        for topic, subscription in tuple(connection.subscriptions.items()):
            grant = find_grant(claims, topic)
            if grant is None or (self.evictions is not None and self.evictions.is_lost(claims, grant)):
                if self.audit is not None:
                    self.audit.topic_evicted(connection, subscription, "renewed_without")
                connection.remove_subscription(topic, "forbidden")
                connection.push_control(Unsubscribed(topic, UnsubscribedReason.FORBIDDEN))
            else:
                subscription.claims, subscription.grant = claims, grant
        connection.push_control(Renewed(claims.expires_at_s * 1000))

    # -- subscribe -------------------------------------------------------------------------------

    async def _subscribe(self, connection: Connection, message: Subscribe) -> None:
        asked = [one for start in message.topics if (one := self._screen(connection, start)) is not None]
        if not asked:
            return
        self._note_resume(connection, asked)
        opened: list[TopicActor] = []
        try:
            for one in asked:
                # Not a comprehension: what was opened before a failure must be released.
                opened.append(await self.topics.open(one.parsed))  # noqa: PERF401
            looks = [
                self._known_look(connection, one, topic) or _Look(one, topic, begun=topic.begin_read())
                for one, topic in zip(asked, opened, strict=True)
            ]
            retry_after_s = await self._read(look for look in looks if look.seen is None)
            for look in looks:
                if look.seen is not None:
                    self._answer(connection, look.asked, look.topic, look.seen, since=look.begun)
                else:
                    retry_after_ms = round(retry_after_s * 1000)
                    self._refuse(
                        connection,
                        look.asked.parsed.name,
                        reason_codes.UNAVAILABLE,
                        retry_after_ms=retry_after_ms,
                    )
        finally:
            for topic in opened:
                self.topics.release(topic)

    def _known_look(self, connection: Connection, asked: _Asked, topic: TopicActor) -> _Look | None:
        """Return what the last position check says to whoever resumes at a head that has not moved since.

        It read that head for the whole node: a thousand clients that come back to topics on which nothing happened
        cost the database nothing. A denial is never told from it: a right may have been won since.
        """
        claims, known = connection.claims, topic.last_read_of(asked.start)
        if claims is None or known is None:
            return None
        seen, begun = known
        if not is_allowed(claims, asked.grant, asked.parsed, seen.rights, exists=seen.exists):
            return None
        self.counters.resumes_unread += 1
        return _Look(asked, topic, begun=begun, seen=ObservedTopic(seen, None))

    async def _read(self, looks: Iterable[_Look]) -> float:
        """Let the journal answer these; if it does not, return when to ask again, in seconds."""
        unread = list(looks)
        if not unread:
            return 0.0
        try:
            observed = await self.observations.observe([_observe_at(look.asked) for look in unread])
        except JournalUnavailableError as exc:
            return exc.retry_after_s
        for look, seen in zip(unread, observed, strict=True):
            look.seen = seen
        return 0.0

    def _note_resume(self, connection: Connection, asked: list[_Asked]) -> None:
        """Count a connection as a reconnect if its first subscribe continues from a cursor."""
        if connection.has_resumed is None:
            starts = [one.start for one in asked]
            connection.has_resumed = any(isinstance(s, CursorStart) and s.seq > 0 for s in starts)
            if connection.has_resumed:
                self.counters.by_version[connection.app_version].reconnects += 1

    def _screen(self, connection: Connection, start: TopicStart) -> _Asked | None:
        """Judge what needs no journal; answer at once if that is already a refusal."""
        try:
            parsed = parse_topic(start.topic)
        except TopicInvalid:
            self._deny(connection, start.topic, reason_codes.TOPIC_INVALID, "not_a_topic")
            return None
        is_new = parsed.name not in connection.subscriptions
        # Before the grant: a token names no more topics than the default limit, so that in the other order
        # nobody would ever see this refusal. It says nothing about the topic.
        if is_new and len(connection.subscriptions) >= self.limits.subscriptions_max:
            self._refuse_one_more(connection, parsed.name)
            return None
        claims = connection.claims
        assert claims is not None
        grant = find_grant(claims, parsed.name)
        if grant is None:
            self._deny(connection, parsed.name, reason_codes.FORBIDDEN, "not_granted")
            return None
        return _Asked(with_budget(parsed, self.limits), grant, _to_start(start))

    def _answer(
        self,
        connection: Connection,
        asked: _Asked,
        topic: TopicActor,
        seen: ObservedTopic,
        *,
        since: ReadStart,
    ) -> None:
        """Give the one answer to one topic; nothing awaits from here to its end."""
        claims = connection.claims
        assert claims is not None
        observation = seen.observation
        name = asked.parsed.name
        is_lost = self.evictions is not None and self.evictions.is_lost(claims, asked.grant)
        if is_lost or not is_allowed(
            claims, asked.grant, asked.parsed, observation.rights, exists=observation.exists
        ):
            cause = "right_lost" if is_lost else "head_differs"
            ended = connection.remove_subscription(name, "forbidden")
            if ended is not None and self.audit is not None:
                self.audit.topic_evicted(connection, ended, cause)
            self._deny(connection, name, reason_codes.FORBIDDEN, cause)
            return
        if not topic.learn(observation, since):
            # The journal was restored meanwhile; the answer is about what was before.
            self._refuse(connection, name, reason_codes.UNAVAILABLE, retry_after_ms=1000)
            return
        running = connection.subscriptions.get(name)
        if running is not None and running.start == asked.start:
            connection.push_control(subscribed_of(running, observation))
            return
        is_over_limit = running is None and (len(connection.subscriptions) >= self.limits.subscriptions_max)
        if is_over_limit:
            self._refuse_one_more(connection, name)
            return
        try:
            decision = classify(
                asked.start,
                observation,
                seen.cursor_row,
                chain_start=chain_start(name),
                topic_class=asked.parsed.topic_class,
            )
        except LookupError:
            self._refuse(connection, name, reason_codes.UNAVAILABLE, retry_after_ms=1000)
            return
        connection.remove_subscription(name, "replaced")
        if self.audit is not None:
            self.audit.subscribed(connection, name)
        match decision:
            case Serve(budget_used=used):
                self.counters.subscribes["served"] += 1
                self.counters.replay_budget_used[asked.parsed.topic_class.tier.value].observe(used)
                self._start(connection, asked, topic, seen, decision)
            case Stale(reason, used):
                self.counters.subscribes["stale"] += 1
                if reason is StaleReason.REPLAY_BUDGET_EXCEEDED:
                    self.counters.replay_budget_used[asked.parsed.topic_class.tier.value].observe(used)
                self.counters.by_class[asked.parsed.topic_class.name].stale_cursors[reason.value] += 1
                note = self._note_refusal(connection, name, f"stale_cursor.{reason.value}")
                note.start_seq = asked.start.seq if isinstance(asked.start, CursorStart) else 0
                note.observe(observation)
                connection.push_control(StaleCursor.of(name, reason, observation))

    def _start(
        self,
        connection: Connection,
        asked: _Asked,
        topic: TopicActor,
        seen: ObservedTopic,
        decision: Serve,
    ) -> None:
        claims = connection.claims
        assert claims is not None
        observation = seen.observation
        subscription = Subscription(
            asked.parsed,
            claims,
            asked.grant,
            source=topic,
            sink=connection.outbound,
            start=asked.start,
            start_seq=decision.start_seq,
            start_chain=decision.chain_at_start,
            position=decision.start_seq,
            through_seq=observation.head_seq,
            through_chain=observation.head_chain,
            note=self._note(
                connection,
                asked.parsed.name,
                start_seq=decision.start_seq,
                through_seq=observation.head_seq,
            ),
            replay_bytes=replay_bytes(decision.start_seq, observation, seen.cursor_row),
            began_at=trio.current_time(),
        )
        connection.queue_control(subscribed_of(subscription, observation))
        if connection.phase is Phase.CLOSING:
            # It ended while the journal was asked, or by this very answer: no frame may follow.
            return
        self.counters.by_class[asked.parsed.topic_class.name].joins += 1
        topic.join(subscription)
        connection.add_subscription(subscription)

    def _unsubscribe(self, connection: Connection, message: Unsubscribe) -> None:
        for topic in message.topics:
            # Names that were never subscribed get the same answer: the client wants it gone.
            try:
                name = parse_topic(topic).name
            except TopicInvalid:
                self._refuse(connection, topic, reason_codes.TOPIC_INVALID)
                continue
            connection.remove_subscription(name, "asked")
            connection.push_control(Unsubscribed(name, UnsubscribedReason.ASKED))

    # -- refusals --------------------------------------------------------------------------------

    def _deny(self, connection: Connection, topic: str, reason: ReasonCode, cause: str) -> None:
        """Refuse a topic in a way that counts against the client; the cause is for the audit log."""
        self._refuse(connection, topic, reason, cause=cause)
        connection.deny_subscribe()

    def _refuse_one_more(self, connection: Connection, topic: TopicName) -> None:
        """Refuse a topic above the number of subscriptions."""
        connection.note_limit("subscriptions_max")
        details = self.limits.name_limit("subscriptions_max")
        self._refuse(connection, topic, reason_codes.LIMIT_EXCEEDED, details=details)

    def _refuse(
        self,
        connection: Connection,
        topic: str,
        reason: ReasonCode,
        *,
        cause: str = "",
        retry_after_ms: int = 0,
        details: dict[str, str] | None = None,
    ) -> None:
        """Refuse a topic; with a cause it was a decision about access, which is audited."""
        self.counters.subscribes[reason.name] += 1
        # What is outside the grammar is the client's own text, and enters neither notes nor the audit log.
        name = None if reason is reason_codes.TOPIC_INVALID else TopicName(topic)
        if name is not None:
            self._note_refusal(connection, name, reason.name)
        if cause and self.audit is not None:
            self.audit.denied(connection, name, reason, cause)
        connection.push_control(
            codec.ErrorMessage.of(
                reason,
                # A name outside the grammar is the client's own text: cut, never interpreted.
                topic=topic[:200],
                retry_after_ms=retry_after_ms,
                details=details or {},
            )
        )

    def _note(
        self, connection: Connection, topic: TopicName, *, start_seq: int = 0, through_seq: int = 0
    ) -> SubscriptionNote:
        """Remember a subscribe, so that it can be explained later."""
        claims = connection.claims
        assert claims is not None
        note = SubscriptionNote(
            topic,
            connection.connection_id,
            claims.user_id,
            claims.device_id,
            trio.current_time(),
            start_seq=start_seq,
            through_seq=through_seq,
        )
        return self.topics.trace.note_subscription(note)

    def _note_refusal(self, connection: Connection, topic: TopicName, because: str) -> SubscriptionNote:
        note = self._note(connection, topic)
        note.is_refused = True
        note.end(because, note.started_at)
        return note


def _observe_at(asked: _Asked) -> tuple[TopicName, int]:
    seq = asked.start.seq if isinstance(asked.start, CursorStart) else 0
    return asked.parsed.name, seq


def _to_start(start: TopicStart) -> SubscriptionStart:
    wanted = start.start
    return wanted if isinstance(wanted, CursorStart) else wanted.start
