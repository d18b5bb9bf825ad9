"""What a node does about revocations: sockets and topics that end, hellos that are refused; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import attrs
import pytest
import trio

from khala.actors.evictions import FIRST_READ_WAIT_S, Evictions
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala.core.revocation_view import RevocationKind
from khala_contracts import reason_codes
from khala_contracts.codec import ErrorMessage, Renew, Subscribed, Unsubscribed, UnsubscribedReason
from khala_contracts.sync_claims import GrantBasis, PrincipalKind
from tests.actors.khala.fake_control import FakeClock, FakeControl, FixedRng
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import hello_with, open_node
from tests.topic_log import ORG, USER, claims_for, run_topic

if TYPE_CHECKING:
    from khala_contracts.sync_claims import SyncClaims
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
LIMITS = NodeLimits()
POLL_S = LIMITS.revocation_poll_interval_s


def claims_of_session(number: int) -> SyncClaims:
    """Return claims like the default ones, of another session."""
    return attrs.evolve(claims_for(TOPIC), session_id=f"ses_{number:026d}")


async def follow_as(node: NodeUnderTest, claims: SyncClaims) -> ClientUnderTest:
    """Connect with these claims and follow the topic."""
    client = await node.connect(TOPIC, claims=claims)
    client.subscribe(TOPIC)
    await node.settle()
    client.take(Subscribed)
    return client


async def wait_poll(node: NodeUnderTest) -> None:
    """Let the next poll happen."""
    await trio.sleep(POLL_S + 0.1)
    await node.settle()


async def test_an_ended_session_ends_its_sockets_only(autojump_clock: object) -> None:
    """reauth_required and 4501 for every socket of the session; others miss nothing."""
    log = log_of(TOPIC, 3)
    async with open_node(log, is_revocable=True) as node:
        ended = [await follow_as(node, claims_of_session(1)) for _ in range(2)]
        stays = await follow_as(node, claims_of_session(2))
        node.control.revoke(RevocationKind.SESSION, at_s=node.clock.now(), session_id=f"ses_{1:026d}")
        await wait_poll(node)
        for client in ended:
            assert client.take(ErrorMessage).code == reason_codes.REAUTH_REQUIRED.name
            assert client.close_code == 4501
        await node.commit(log, 2)
        assert stays.seqs(TOPIC) == [1, 2, 3, 4, 5]
        assert all(client.seqs(TOPIC) == [1, 2, 3] for client in ended)
        assert node.counters.evictions["connection"] == 2


async def test_a_push_ends_the_socket_at_once(autojump_clock: object) -> None:
    """The driver's hint: no time passes until the close, and the delay is counted; nothing follows the close."""
    log = log_of(TOPIC, 3)
    async with open_node(log, is_revocable=True) as node:
        client, stays = (
            await follow_as(node, claims_of_session(1)),
            await follow_as(node, claims_of_session(2)),
        )
        await trio.sleep(1.0)
        before = trio.current_time()
        node.control.revoke(RevocationKind.SESSION, at_s=node.clock.now() - 0.2, session_id=f"ses_{1:026d}")
        await node.driver.hint_revocations()
        await node.settle()
        assert trio.current_time() == before
        assert client.close_code == 4501
        assert node.counters.revocation_hints == 1
        assert node.counters.eviction_delays.sum_s == pytest.approx(0.2, abs=0.001)
        await node.commit(log, 2)
        assert client.seqs(TOPIC) == [1, 2, 3]
        assert stays.seqs(TOPIC) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", [PrincipalKind.SERVICE, PrincipalKind.DERIVED])
async def test_an_ended_key_ends_all_that_stands_on_it(autojump_clock: object, kind: PrincipalKind) -> None:
    """The key itself, and every user that it minted for."""
    key_id = f"key_{7:026d}"
    claims = attrs.evolve(claims_of_session(3), principal_kind=kind, principal_id=key_id)
    async with open_node(log_of(TOPIC, 1), is_revocable=True) as node:
        client = await follow_as(node, claims)
        node.control.revoke(RevocationKind.KEY, at_s=node.clock.now(), key_id=key_id)
        await wait_poll(node)
        assert client.close_code == 4501


async def test_a_lost_membership_ends_that_orgs_topics(autojump_clock: object) -> None:
    """unsubscribed{forbidden} for the org's topics; the connection and its other topics go on without a gap."""
    logs = log_of(TOPIC, 1), log_of(OTHER_TOPIC, 1)
    own = claims_for(TOPIC)
    of_org = claims_for(OTHER_TOPIC, basis=GrantBasis.ORG_MEMBER)
    claims = attrs.evolve(own, grants=(*own.grants, *of_org.grants))
    async with open_node(*logs, is_revocable=True) as node:
        client = await node.connect(TOPIC, OTHER_TOPIC, claims=claims)
        client.subscribe(TOPIC, OTHER_TOPIC)
        await node.settle()
        client.take_all(Subscribed)
        node.control.revoke(RevocationKind.MEMBERSHIP, at_s=node.clock.now() + 1, org_id=ORG, user_id=USER)
        await wait_poll(node)
        ended = client.take(Unsubscribed)
        assert (ended.topic, ended.reason) == (OTHER_TOPIC.name, UnsubscribedReason.FORBIDDEN)
        await node.commit(logs[0])
        assert client.seqs(TOPIC) == [1, 2]
        # Its token still names the topic: asking again is denied.
        client.subscribe(OTHER_TOPIC)
        await node.settle()
        assert client.take(ErrorMessage).code == reason_codes.FORBIDDEN.name
        assert node.counters.evictions == {"topic": 1}


async def test_who_was_redeemed_before_and_welcomed_after_is_refused(autojump_clock: object) -> None:
    """The row is applied while control's yes is on its way: the hello ends all the same."""
    limits = attrs.evolve(LIMITS, revocation_poll_interval_s=1.0)
    async with open_node(log_of(TOPIC, 1), is_revocable=True, limits=limits) as node:
        assert node.evictions is not None
        node.control.delay_s = 3.0
        claims = claims_of_session(4)
        client = node.open_client()
        client.say(hello_with(node.grant(TOPIC, claims=claims)))
        await node.settle()
        node.control.revoke(RevocationKind.SESSION, at_s=node.clock.now(), session_id=claims.session_id)
        await trio.sleep(2)
        assert node.evictions.view.is_ended(claims)
        assert client.close_code is None
        await trio.sleep(2)
        assert client.take(ErrorMessage).code == reason_codes.REAUTH_REQUIRED.name
        assert node.counters.welcomes == 0


async def test_nobody_is_welcomed_while_the_view_is_stale(autojump_clock: object) -> None:
    """Cut off from control for 60 s: hellos get unavailable with a time, sockets stay; back, they are served."""
    # Clients of these tests send no heartbeats.
    limits = attrs.evolve(LIMITS, dead_after_s=10_000.0)
    async with open_node(log_of(TOPIC, 1), is_revocable=True, limits=limits) as node:
        stays = await follow_as(node, claims_of_session(1))
        node.control.is_down = True
        await trio.sleep(LIMITS.revocation_stale_after_s + POLL_S + 1)
        client = node.open_client()
        client.say(hello_with(node.grant(TOPIC)))
        await node.settle()
        refused = client.take(ErrorMessage)
        assert refused.code == reason_codes.UNAVAILABLE.name
        assert refused.retry_after_ms > 0
        assert node.control.spent.keys() == {"token-1"}
        assert stays.close_code is None
        node.control.is_down = False
        await trio.sleep(10)
        await node.connect(TOPIC)


async def test_a_check_waits_for_the_first_read(autojump_clock: object) -> None:
    """A node whose control answers starts ready at once; one whose control is away says so after a second."""
    async with open_node(log_of(TOPIC, 1), is_revocable=True) as node:
        assert node.evictions is not None
        assert not node.evictions.feed.may_welcome
        assert await node.evictions.check() is None
        assert trio.current_time() == 0
    control = FakeControl(is_down=True)
    evictions = Evictions(control, limits=LIMITS, counters=NodeCounters(), clock=FakeClock(), rng=FixedRng())
    began = trio.current_time()
    assert await evictions.check() == "behind"
    assert trio.current_time() == began + FIRST_READ_WAIT_S


async def test_the_exact_times_of_a_node_that_is_cut_off(autojump_clock: object) -> None:
    """SEC-05 by its figures: hellos until 60 s, sockets until 300 s, the last of them by 360 s."""
    limits = attrs.evolve(LIMITS, dead_after_s=10_000.0)
    async with open_node(log_of(TOPIC, 1), is_revocable=True, limits=limits) as node:
        assert node.evictions is not None
        feed = node.evictions.feed
        clients = []
        for number in range(1, 41):
            claims = attrs.evolve(claims_of_session(number), expires_at_s=round(node.clock.now()) + 10_000)
            client = node.open_client()
            token = node.grant(TOPIC, claims=claims)
            node.tokens.claims[token] = attrs.evolve(claims, jti=token)
            client.say(hello_with(token))
            clients.append(client)
        await node.settle()
        node.control.is_down = True

        async def wait_stale(seconds: float) -> None:
            await trio.sleep(seconds - feed.staleness_s)
            await node.settle()

        await wait_stale(limits.revocation_stale_after_s)
        assert feed.may_welcome
        await wait_stale(limits.revocation_stale_after_s + 0.001)
        assert not feed.may_welcome
        await wait_stale(limits.revocation_close_after_s - 0.001)
        assert all(client.is_served for client in clients)
        ends = []
        for client in clients:
            place = crc32(client.connection.connection_id.encode()) / (1 << 32)
            ends.append((limits.revocation_close_after_s + place * limits.revocation_close_spread_s, client))
        assert {int(ends_at_s) // 20 for ends_at_s, _ in ends} == {15, 16, 17}, "spread over the minute"
        while feed.staleness_s < 362:
            await trio.sleep(1)
            await node.settle()
            for ends_at_s, client in ends:
                if feed.staleness_s < ends_at_s:
                    assert client.is_served
                elif feed.staleness_s > ends_at_s + limits.sweep_interval_s:
                    assert client.close_code == 4004
        assert {client.take(ErrorMessage).code for client in clients} == {reason_codes.UNAVAILABLE.name}
        assert node.counters.closes["unavailable"] == len(clients)


async def test_a_renewal_of_an_ended_session_is_refused(autojump_clock: object) -> None:
    """Also by a node that has the row while control's redeem said yes."""
    async with open_node(log_of(TOPIC, 1), is_revocable=True) as node:
        client = await follow_as(node, claims_of_session(1))
        other = claims_of_session(5)
        node.control.revoke(RevocationKind.SESSION, at_s=node.clock.now(), session_id=other.session_id)
        await wait_poll(node)
        client.say(Renew(node.grant(TOPIC, claims=other)))
        await node.settle()
        assert client.take(ErrorMessage).code == reason_codes.REAUTH_REQUIRED.name
