"""Which decisions of a node are reported, what the report says, and that none is lost silently; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala.actors import access_audit
from khala.core.access_audit import AuditAction, AuditGap
from khala.core.limits import NodeLimits
from khala.core.origin_policy import UpgradeRequest
from khala.core.revocation_view import RevocationKind
from khala_contracts import reason_codes
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FromStart,
    Hello,
    Renew,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    Unsubscribed,
    VersionRange,
)
from khala_contracts.sync_claims import GrantBasis
from khala_service.live_limits import take_over
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import hello_with, open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import DEVICE, ORG, USER, claims_for, run_topic

if TYPE_CHECKING:
    import pytest

    from khala.core.access_audit import AuditEvent
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC, OTHER_TOPIC, FOREIGN = run_topic(1), run_topic(2), run_topic(3)
LIMITS = NodeLimits()
ANY = VersionRange(1, 1)


async def reported(node: NodeUnderTest, limits: NodeLimits = LIMITS) -> list[AuditEvent]:
    """Let what was noted be sent; return all that the authority has."""
    await trio.sleep(limits.audit_flush_interval_s + 0.01)
    await node.settle()
    return node.control.events


def brief(event: AuditEvent) -> tuple[AuditAction, str, str]:
    """Return what happened and why."""
    return event.action, "" if event.reason is None else event.reason.name, event.cause


async def test_an_allow_and_a_deny(autojump_clock: object) -> None:
    """SEC-11: two events, no more, with the connection's id and whom the token named."""
    async with open_node(log_of(TOPIC, 3), is_audited=True) as node:
        claims = claims_for(TOPIC)
        client = await node.connect(TOPIC, claims=claims)
        client.subscribe(TOPIC, FOREIGN)
        await node.settle()
        events = await reported(node)
        by_topic = {event.topic: event for event in events}
        assert len(events) == 2
        assert brief(by_topic[TOPIC.name]) == (AuditAction.SUBSCRIBE, "", "")
        assert brief(by_topic[FOREIGN.name]) == (AuditAction.SUBSCRIBE, "forbidden", "not_granted")
        for event in events:
            assert event.connection_id == client.connection.connection_id
            assert event.request_id == event.connection_id
            assert event.subject is not None
            assert (event.subject.user_id, event.subject.device_id) == (claims.user_id, claims.device_id)
            assert event.subject.jti == "token-1"
            assert abs(event.noted_at_ms / 1000 - node.clock.now()) < 2
        assert node.counters.audit_events == {"sent": 2}


async def test_the_clients_own_request_id_is_kept(autojump_clock: object) -> None:
    """As the HTTP routes do it: what the upgrade request carried names every event of its connection."""
    request = UpgradeRequest("/sync/v1/ws", "", None, ("khala.v1",), request_id="01-trace.x")
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        client = node.open_client(peer_request=request)
        client.say(hello_with("forged"))
        (event,) = await reported(node)
        assert event.request_id == "01-trace.x"


async def test_each_denial_has_its_cause(autojump_clock: object) -> None:
    """What was no topic is reported without the client's text; a head row that differs, a full connection too."""
    limits = attrs.evolve(LIMITS, subscriptions_max=1)
    stolen = claims_for(TOPIC, OTHER_TOPIC, basis=GrantBasis.OWNER)
    logs = log_of(TOPIC, 1), log_of(OTHER_TOPIC, 1)
    async with open_node(*logs, is_audited=True, limits=limits) as node:
        client = await node.connect(TOPIC, claims=attrs.evolve(stolen, user_id="usr_" + "7" * 26))
        client.subscribe(TOPIC)
        client.say(Subscribe((TopicStart("secret text", FromStart(SubscribeFrom.NOW)),)))
        await node.settle()
        owner = await node.connect(TOPIC, claims=stolen)
        owner.subscribe(TOPIC)
        owner.subscribe(OTHER_TOPIC)
        await node.settle()
        events = await reported(node)
        assert [(brief(event)[1:], event.topic) for event in events] == [
            (("forbidden", "head_differs"), TOPIC.name),
            (("topic_invalid", "not_a_topic"), ""),
            (("", ""), TOPIC.name),
            (("limit_exceeded", ""), ""),
        ]
        assert (events[-1].action, events[-1].limit, events[-1].limit_value) == (
            AuditAction.LIMIT,
            "subscriptions_max",
            "1",
        )
        assert "secret text" not in str(events)


async def test_one_row_for_each_burst_of_a_limit(autojump_clock: object) -> None:
    """KH-45: the row names limit and value; the next ones of the same limit and user are counted until it is over."""
    limits = attrs.evolve(LIMITS, subscriptions_max=2, audit_summary_interval_s=10.0)
    async with open_node(log_of(TOPIC, 1), log_of(OTHER_TOPIC, 1), is_audited=True, limits=limits) as node:
        clients = [await node.connect(TOPIC, OTHER_TOPIC) for _ in range(2)]
        for client in clients:
            client.subscribe(TOPIC, OTHER_TOPIC)
            await node.settle()
            client.subscribe(FOREIGN)
            client.subscribe(FOREIGN)
            await node.settle()
        take_over(node.limits, attrs.evolve(limits, subscriptions_max=1))
        await trio.sleep(10.1)
        clients[0].subscribe(FOREIGN)
        events = [event for event in await reported(node) if event.action is AuditAction.LIMIT]
        assert [
            (event.limit, event.limit_value, event.subject and event.subject.user_id) for event in events
        ] == [
            ("subscriptions_max", "2", USER),
            ("subscriptions_max", "1", USER),
        ]
        assert node.counters.audit_events["rationed"] == 3
        assert node.counters.limit_violations == {"subscriptions_max": 5}


async def test_bursts_that_are_remembered_are_bounded(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no place among them is counted; a burst that is over gives its place back."""
    monkeypatch.setattr(access_audit, "BURSTS_MAX", 1)
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        assert node.audit is not None
        for limit in ("admission_per_s", "handshakes_max"):
            node.audit.limit_exceeded(None, limit, reason_codes.RATE_LIMITED, "250.0")
        await trio.sleep(node.limits.audit_summary_interval_s)
        node.audit.limit_exceeded(None, "handshakes_max", reason_codes.RATE_LIMITED, "64")
        events = await reported(node)
        assert [event.limit for event in events] == ["admission_per_s", "handshakes_max"]
        assert events[0].connection_id == events[0].request_id
        assert node.counters.audit_events["rationed"] == 1


async def test_what_is_no_decision_about_access(autojump_clock: object) -> None:
    """A repeated subscribe, an unsubscribe of nonsense, a journal that is away, an end by the client: nothing."""
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        client = await node.connect(TOPIC)
        client.subscribe(TOPIC)
        await node.settle()
        client.subscribe(TOPIC)
        client.say(Unsubscribe(("nonsense", TOPIC.name)))
        await node.settle()
        node.journal.is_down = True
        client.subscribe(TOPIC)
        await node.settle()
        assert client.take_all(ErrorMessage)[-1].code == "unavailable"
        node.journal.is_down = False
        assert [brief(event) for event in await reported(node)] == [(AuditAction.SUBSCRIBE, "", "")]


async def test_a_stale_cursor_was_allowed(autojump_clock: object) -> None:
    """The right was there, only the history is not: one allow."""
    async with open_node(log_of(TOPIC, 3), is_audited=True) as node:
        client = await node.connect(TOPIC)
        client.subscribe(TOPIC, start=CursorStart(99, "lin_" + "9" * 26, bytes(32)))
        await node.settle()
        assert [brief(event) for event in await reported(node)] == [(AuditAction.SUBSCRIBE, "", "")]


async def test_every_refused_token(autojump_clock: object) -> None:
    """At hello and at renew: forged, another device's, used before, ended, another session's; not an outage."""
    other_session = attrs.evolve(claims_for(TOPIC), session_id=f"ses_{5:026d}")
    ended = attrs.evolve(claims_for(TOPIC), session_id=f"ses_{6:026d}")
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        node.control.revoked.add(ended.session_id)

        async def hello(token: str | None, device_id: str = DEVICE) -> None:
            ticket = None if token else "ticket"
            node.open_client().say(Hello(token, ticket, device_id, "test", ANY, ANY))
            await node.settle()

        await hello("forged")
        await hello(None)
        await hello(node.grant(TOPIC), device_id="dev_0000000000000099")
        used = node.grant(TOPIC)
        await hello(used)
        await hello(used)
        await hello(node.grant(TOPIC, claims=ended))
        client = await node.connect(TOPIC)
        client.say(Renew(node.grant(TOPIC, claims=other_session)))
        await node.settle()
        node.control.is_down = True
        await hello(node.grant(TOPIC))
        node.control.is_down = False
        events = await reported(node)
        assert [brief(event) for event in events] == [
            (AuditAction.HELLO, "token_invalid", "unknown_to_the_test"),
            (AuditAction.HELLO, "token_invalid", "no_token"),
            (AuditAction.HELLO, "token_invalid", "another_device"),
            (AuditAction.HELLO, "token_replayed", "redeem"),
            (AuditAction.HELLO, "reauth_required", "redeem"),
            (AuditAction.RENEW, "token_invalid", "another_session"),
        ]
        # A forged token names nobody; a genuine one does, whoever presents it.
        assert [event.subject is not None for event in events] == [False, False, True, True, True, True]


async def test_a_refused_origin(autojump_clock: object) -> None:
    """SEC-07: origin_denied; another path, a parameter or a missing subprotocol is no denial of access."""
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        for request in (
            UpgradeRequest("/sync/v1/ws", "", "https://evil.example", ("khala.v1",)),
            UpgradeRequest("/other", "", None, ("khala.v1",)),
            UpgradeRequest("/sync/v1/ws", "x=1", None, ("khala.v1",)),
            UpgradeRequest("/sync/v1/ws", "", "https://app.example", ()),
        ):
            node.open_client(peer_request=request)
            await node.settle()
        assert [brief(event) for event in await reported(node)] == [
            (AuditAction.UPGRADE, "origin_forbidden", "origin_denied")
        ]


async def test_an_evicted_connection_and_what_it_had(autojump_clock: object) -> None:
    """The last seq of each topic is what the client has; nothing above it was put on the socket."""
    logs = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 5)
    async with open_node(*logs, is_revocable=True, is_audited=True) as node:
        claims = claims_for(TOPIC, OTHER_TOPIC)
        client = await node.connect(TOPIC, claims=claims)
        client.subscribe(TOPIC, OTHER_TOPIC)
        await node.settle()
        await node.commit(logs[0], 4)
        have = {topic.name: client.seqs(topic)[-1] for topic in (TOPIC, OTHER_TOPIC)}
        node.control.revoke(RevocationKind.SESSION, at_s=node.clock.now(), session_id=claims.session_id)
        await trio.sleep(LIMITS.revocation_poll_interval_s + 0.1)
        await node.commit(logs[0], 2)
        assert client.close_code == 4501
        event = (await reported(node))[-1]
        assert brief(event) == (AuditAction.EVICT_CONNECTION, "reauth_required", "revoked")
        assert dict(event.positions) == have == {TOPIC.name: 7, OTHER_TOPIC.name: 5}
        assert event.topic_count == 2


async def test_a_stalled_client_is_told_of_no_more_than_was_sent(autojump_clock: object) -> None:
    """Its kernel takes a part of a chunk: the report covers the whole chunk, and nothing behind it."""
    log = log_of(TOPIC, 0)
    async with open_node(log, is_revocable=True, is_audited=True) as node:
        claims = claims_for(TOPIC)
        client = await node.connect(TOPIC, claims=claims, transport=SimulatedTransport(buffer_bytes=4_096))
        client.subscribe(TOPIC)
        await node.settle()
        client.read()
        for _ in range(6):
            await node.commit(log, payload=b"x" * 40_000)
        node.control.revoke(RevocationKind.SESSION, at_s=node.clock.now(), session_id=claims.session_id)
        await trio.sleep(LIMITS.revocation_poll_interval_s + 0.1)
        # What was begun is still sent to the end; the client takes it now.
        for _ in range(100):
            client.read()
            await node.settle()
        assert client.close_code == 4501
        event = (await reported(node))[-1]
        assert dict(event.positions) == {TOPIC.name: client.seqs(TOPIC)[-1]}
        assert 1 <= client.seqs(TOPIC)[-1] < 6


async def test_a_topic_whose_right_ends(autojump_clock: object) -> None:
    """By a lost membership, by a renewal without it: each with its last seq; what the client left is no eviction."""
    logs = log_of(TOPIC, 1), log_of(OTHER_TOPIC, 2)
    own = claims_for(TOPIC)
    of_org = claims_for(OTHER_TOPIC, basis=GrantBasis.ORG_MEMBER)
    claims = attrs.evolve(own, grants=(*own.grants, *of_org.grants))
    async with open_node(*logs, is_revocable=True, is_audited=True) as node:
        client = await node.connect(TOPIC, claims=claims)
        client.subscribe(TOPIC, OTHER_TOPIC)
        await node.settle()
        node.control.revoke(RevocationKind.MEMBERSHIP, at_s=node.clock.now() + 1, org_id=ORG, user_id=USER)
        await trio.sleep(LIMITS.revocation_poll_interval_s + 0.1)
        client.say(Renew(node.grant(TOPIC, claims=attrs.evolve(own, grants=()))))
        await node.settle()
        assert len(client.take_all(Unsubscribed)) == 2
        events = (await reported(node))[2:]
        assert [(*brief(event), event.positions) for event in events] == [
            (AuditAction.EVICT_TOPIC, "forbidden", "right_lost", ((OTHER_TOPIC.name, 2),)),
            (AuditAction.EVICT_TOPIC, "forbidden", "renewed_without", ((TOPIC.name, 1),)),
        ]


async def _flood(node: NodeUnderTest, count: int) -> None:
    """Let hellos with forged tokens come, a hundred a moment."""
    for _ in range(count // 100):
        clients: list[ClientUnderTest] = []
        for _ in range(100):
            client = node.open_client()
            client.say(hello_with("forged"))
            clients.append(client)
        await trio.sleep(0.1)
        for client in clients:
            client.transport.abort()


async def test_a_flood_is_rows_and_counts(autojump_clock: object) -> None:
    """SEC-11: rows are bounded, and rows and counts make exactly what happened; also with lost answers."""
    limits = attrs.evolve(LIMITS, audit_denied_burst=100, audit_denied_per_s=5.0, close_timeout_s=0.05)
    async with open_node(log_of(TOPIC, 1), is_audited=True, limits=limits) as node:
        node.control.audit_answers_lost = 2
        await _flood(node, 1_000)
        await trio.sleep(limits.audit_summary_interval_s + 30)
        assert len(node.control.events) <= 100 + 5 * 5
        assert len(node.control.events) + node.control.counted == 1_000
        assert sum(len(batch.unwritten) for batch in node.control.audited.values()) <= 3
        fates = node.counters.audit_events
        assert fates["sent"] + fates["rationed"] == 1_000


async def test_while_control_is_away(autojump_clock: object) -> None:
    """What fits waits, the rest is counted; one batch at a time is tried, less and less often; then all is told."""
    limits = attrs.evolve(LIMITS, audit_waiting_max=50, close_timeout_s=0.05)
    async with open_node(log_of(TOPIC, 1), is_audited=True, limits=limits) as node:
        assert node.audit is not None
        node.control.is_down = True
        await _flood(node, 300)
        await trio.sleep(600)
        assert (node.audit.waiting, node.control.events) == (50, [])
        assert 590 < node.audit.oldest_age_s < 620
        assert node.control.audit_calls < 40
        node.control.is_down = False
        await trio.sleep(60)
        assert len(node.control.events) == 50
        assert node.control.counted == 250
        gaps = {count.gap for batch in node.control.audited.values() for count in batch.unwritten}
        assert gaps == {AuditGap.NO_ROOM}
        assert (node.audit.waiting, node.audit.oldest_age_s) == (0, 0.0)


async def test_a_batch_that_control_will_never_take(autojump_clock: object) -> None:
    """Its events become counts, and those behind it are not held up."""
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        node.control.audit_refusals = 1
        node.open_client().say(hello_with("forged"))
        await trio.sleep(1)
        node.open_client().say(hello_with("forged again"))
        await trio.sleep(20)
        assert len(node.control.events) == 1
        (count,) = [count for batch in node.control.audited.values() for count in batch.unwritten]
        assert (count.gap, count.count, count.reason) == (AuditGap.REFUSED, 1, "token_invalid")
        assert node.counters.audit_events == {"refused": 1, "sent": 1}


async def test_last_words(autojump_clock: object) -> None:
    """A node that leaves sends what waits, counts included; not for longer than a second."""
    limits = attrs.evolve(LIMITS, audit_denied_burst=1, audit_denied_per_s=0.001)
    async with open_node(log_of(TOPIC, 1), is_audited=True, limits=limits) as node:
        assert node.audit is not None
        for _ in range(3):
            node.open_client().say(hello_with("forged"))
        await node.settle()
        began = trio.current_time()
        await node.audit.say_last_words()
        assert trio.current_time() == began
        assert (len(node.control.events), node.control.counted) == (1, 2)
    # While a batch is under way: the same batch once more, and nobody else sends beside it.
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        assert node.audit is not None
        node.control.delay_s = 0.4
        node.open_client().say(hello_with("forged"))
        await trio.sleep(LIMITS.audit_flush_interval_s + 0.2)
        assert node.control.audit_calls == 1
        await node.audit.say_last_words()
        assert (node.control.audit_calls, len(node.control.events)) == (2, 1)
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        assert node.audit is not None
        node.control.is_down = True
        node.open_client().say(hello_with("forged"))
        await trio.sleep(5)
        began = trio.current_time()
        await node.audit.say_last_words()
        assert trio.current_time() - began <= 1.0
        assert node.audit.waiting == 1


async def test_the_log_says_what_reasons_are(autojump_clock: object) -> None:
    """Every reason that is reported is a code of the registry."""
    async with open_node(log_of(TOPIC, 1), is_audited=True) as node:
        client = await node.connect(TOPIC)
        client.subscribe(TOPIC, FOREIGN)
        node.open_client().say(hello_with("forged"))
        events = await reported(node)
        codes = {event.reason.name for event in events if event.reason is not None}
        assert codes == {"forbidden", "token_invalid"} <= reason_codes.REGISTRY.keys()
