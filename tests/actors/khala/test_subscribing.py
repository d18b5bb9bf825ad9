"""Subscribe, unsubscribe and renew as a client sees them: one answer each, in order, no more than allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from khala.core.classification import HeadRights
from khala.core.limits import NodeLimits
from khala_contracts import reason_codes
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    FromStart,
    Renew,
    Renewed,
    ReplayComplete,
    StaleCursor,
    StaleReason,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    SubscriptionMode,
    TopicStart,
    Unsubscribe,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.sync_claims import GrantBasis
from khala_contracts.topics import parse_topic
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, ORG, OTHER_LINEAGE, OTHER_USER, WALL_S, claims_for, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.actors.khala.node_under_test import ClientUnderTest

TOPIC, OTHER_TOPIC, THIRD_TOPIC = run_topic(1), run_topic(2), run_topic(3)
OWN_APP = parse_topic(f"app:{ORG}:board")


def up_to(seq: int, *, after: int = 0) -> list[int]:
    """Seqs ``after + 1 .. seq``."""
    return list(range(after + 1, seq + 1))


def frame_seqs(client: ClientUnderTest) -> list[int]:
    """Seqs of the frames received since this was last asked."""
    return [frame.seq for message in client.take_all(FramesMessage) for frame in message.frames]


# -- one answer for each topic -----------------------------------------------------------------------


async def test_each_topic_gets_exactly_one_answer(autojump_clock: MockClock) -> None:
    """subscribed, stale_cursor or error for each of one message, in its order."""
    served, pruned, absent = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 10), THIRD_TOPIC
    pruned.floor_seq = 5
    async with open_node(served, pruned) as node:
        client = await node.connect(TOPIC, OTHER_TOPIC, absent)
        client.subscribe(TOPIC, OTHER_TOPIC, absent)
        client.say(Subscribe((TopicStart("no topic", FromStart(SubscribeFrom.NOW)),)))
        await node.settle()
        client.read()
        answers = [
            (type(message), message.topic)
            for message in client.received
            if isinstance(message, Subscribed | StaleCursor | ErrorMessage)
        ]
        assert answers == [
            (Subscribed, TOPIC.name),
            (StaleCursor, OTHER_TOPIC.name),
            (ErrorMessage, absent.name),
            (ErrorMessage, "no topic"),
        ]
        assert node.counters.subscribes == {"served": 1, "stale": 1, "forbidden": 1, "topic_invalid": 1}
        # One statement saw all three; the text that is no topic was never asked about.
        assert node.journal.reads["observe"] == 1


@pytest.mark.parametrize(
    ("seq", "reason"),
    [
        (3, StaleReason.RETENTION_EXPIRED),
        (4, None),
        (5, None),
        (10, None),
        (11, StaleReason.LINEAGE_MISMATCH),
        (2**63 - 1, StaleReason.LINEAGE_MISMATCH),
    ],
)
async def test_cursors_on_both_sides(autojump_clock: MockClock, seq: int, reason: StaleReason | None) -> None:
    """KH-06: retained from 5 on, head 10. What is served starts at cursor + 1; stale carries the facts."""
    log = log_of(TOPIC, 10)
    log.floor_seq = 5
    async with open_node(log) as node:
        client = await node.follow(TOPIC, start=CursorStart(seq, LINEAGE))
        if reason is not None:
            stale = client.take(StaleCursor)
            assert (stale.reason, stale.lineage, stale.head_seq, stale.floor_seq) == (reason, LINEAGE, 10, 5)
            assert stale.floor_chain == log.chains[4]
            assert frame_seqs(client) == []
            assert node.counters.stale_cursors == {reason.value: 1}
            assert client.close_code is None
            return
        subscribed = client.take(Subscribed)
        assert (subscribed.start_seq, subscribed.floor_seq) == (seq, 5)
        assert subscribed.chain_at_start == log.chains[seq]
        assert client.take(ReplayComplete).through_seq == 10
        assert frame_seqs(client) == up_to(10, after=seq)


@pytest.mark.parametrize(
    "cursor",
    [CursorStart(5, OTHER_LINEAGE), CursorStart(5, LINEAGE, bytes(32)), CursorStart(0, OTHER_LINEAGE)],
)
async def test_cursors_of_another_history(autojump_clock: MockClock, cursor: CursorStart) -> None:
    """Another lineage, or another chain at the seq, is lineage_mismatch."""
    async with open_node(log_of(TOPIC, 10)) as node:
        client = await node.follow(TOPIC, start=cursor)
        assert client.take(StaleCursor).reason is StaleReason.LINEAGE_MISMATCH


@pytest.mark.parametrize(("head", "is_served"), [(500, True), (501, False)])
async def test_the_budget_in_frames(autojump_clock: MockClock, head: int, is_served: bool) -> None:
    """Exactly the class's replay budget is served, one frame more is stale; ``now`` always is served."""
    topic = parse_topic(f"user:{claims_for().user_id}:notifications")
    assert topic.topic_class.replay_budget_events == 500
    async with open_node(log_of(topic, head)) as node:
        client = await node.follow(topic)
        if is_served:
            assert client.seqs(topic) == up_to(500)
        else:
            assert client.take(StaleCursor).reason is StaleReason.REPLAY_BUDGET_EXCEEDED
        client.subscribe(topic, start=SubscribeFrom.NOW)
        await node.settle()
        assert client.take_all(Subscribed)[-1].start_seq == head


async def test_the_journal_is_down(autojump_clock: MockClock) -> None:
    """KH-34: trouble is ``unavailable`` with a time, per topic; running subscriptions go on."""
    log = log_of(TOPIC, 3)
    async with open_node(log, log_of(OTHER_TOPIC, 3)) as node:
        client = await node.connect(TOPIC, OTHER_TOPIC)
        client.subscribe(TOPIC)
        await node.settle()
        node.journal.is_down = True
        client.say(
            Subscribe(
                (
                    TopicStart(OTHER_TOPIC.name, CursorStart(1, LINEAGE)),
                    TopicStart(TOPIC.name, CursorStart(1, LINEAGE)),
                )
            )
        )
        client.subscribe(OTHER_TOPIC)
        await node.settle()
        errors = client.take_all(ErrorMessage)
        assert [(e.code, e.topic, e.retry_after_ms) for e in errors] == [
            ("unavailable", OTHER_TOPIC.name, 1000),
            ("unavailable", TOPIC.name, 1000),
            ("unavailable", OTHER_TOPIC.name, 1000),
        ]
        assert client.take_all(StaleCursor) == []
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(4)
        node.journal.is_down = False
        client.subscribe(OTHER_TOPIC)
        await node.settle()
        assert client.seqs(OTHER_TOPIC) == up_to(3)


async def test_a_journal_that_contradicts_itself(autojump_clock: MockClock) -> None:
    """INV-5: a retained row is missing: unavailable, never a stale cursor."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.connect(TOPIC)
        node.journal.lost_rows.add((TOPIC.name, 5))
        client.subscribe(TOPIC, start=CursorStart(5, LINEAGE, log.chains[5]))
        await node.settle()
        assert client.take(ErrorMessage).code == "unavailable"
        assert client.take_all(StaleCursor) == []


# -- rights -----------------------------------------------------------------------------------------------


async def test_denials_look_the_same(autojump_clock: MockClock) -> None:
    """INV-16: no grant, a foreign run, a run that does not exist: the same answer, byte for byte but the name."""
    foreign = log_of(OTHER_TOPIC, 3)
    foreign.rights = HeadRights(OTHER_USER, None)
    async with open_node(log_of(TOPIC, 3), foreign) as node:
        client = await node.connect(OTHER_TOPIC, THIRD_TOPIC)
        client.subscribe(TOPIC, OTHER_TOPIC, THIRD_TOPIC)
        await node.settle()
        denials = client.take_all(ErrorMessage)
        assert [denial.topic for denial in denials] == [TOPIC.name, OTHER_TOPIC.name, THIRD_TOPIC.name]
        assert all(attrs.evolve(denial, topic=TOPIC.name) == denials[0] for denial in denials)
        assert denials[0].code == "forbidden"
        assert node.counters.subscriptions_open == 0


async def test_a_topic_that_does_not_exist_yet(autojump_clock: MockClock) -> None:
    """KH-43: a permitted topic without a frame: head 0, and seq 1 arrives when it is written."""
    async with open_node() as node:
        client = await node.connect(claims=claims_for(OWN_APP, basis=GrantBasis.ORG_MEMBER))
        client.subscribe(OWN_APP)
        await node.settle()
        subscribed = client.take(Subscribed)
        assert (subscribed.head_seq, subscribed.mode) == (0, SubscriptionMode.LIVE)
        log = log_of(OWN_APP, 0)
        node.journal.logs[OWN_APP.name] = log
        await node.commit(log)
        assert client.seqs(OWN_APP) == [1]


@pytest.mark.parametrize(("count", "is_closed"), [(19, False), (20, True), (25, True)])
async def test_denied_subscribes(autojump_clock: MockClock, count: int, is_closed: bool) -> None:
    """20 denied subscribes in 60 s end the connection with rate_limited; 19 do not."""
    async with open_node() as node:
        client = await node.connect()
        client.subscribe(*(run_topic(number) for number in range(count)))
        await node.settle()
        errors = client.take_all(ErrorMessage)
        assert [error.code for error in errors[:19]] == ["forbidden"] * 19
        assert client.close_code == (4003 if is_closed else None)
        assert (errors[-1].code == "rate_limited") is is_closed
        assert errors[-1].retry_after_ms == (60_000 if is_closed else 0)


async def test_denied_subscribes_of_a_minute_ago_count_no_more(autojump_clock: MockClock) -> None:
    """19 denials, a minute, 19 denials: no offence."""
    async with open_node() as node:
        client = await node.connect()
        for _ in range(2):
            client.subscribe(*(run_topic(number) for number in range(19)))
            await trio.sleep(30)
            client.peer.ping()
            await trio.sleep(30.1)
        assert client.close_code is None


# -- limits ------------------------------------------------------------------------------------------------


async def test_subscriptions_at_the_limit(autojump_clock: MockClock) -> None:
    """subscriptions_max are served, one more is limit_exceeded; giving one up makes room."""
    topics = [run_topic(number) for number in range(5)]
    async with open_node(*(log_of(t, 1) for t in topics), limits=NodeLimits(subscriptions_max=4)) as node:
        client = await node.connect(*topics)
        client.subscribe(*topics)
        await node.settle()
        assert len(client.take_all(Subscribed)) == 4
        error = client.take(ErrorMessage)
        assert (error.code, error.topic) == ("limit_exceeded", topics[4].name)
        client.subscribe(topics[4])  # refused before the journal is asked
        client.subscribe(topics[0])  # one that it has already is no further one
        await node.settle()
        assert client.take(ErrorMessage).topic == topics[4].name
        client.take(Subscribed)
        client.unsubscribe(topics[1])
        client.subscribe(topics[4])
        await node.settle()
        assert client.take(Subscribed).topic == topics[4].name
        assert node.counters.subscriptions_open == 4
        assert client.close_code is None


@pytest.mark.parametrize(("count", "code"), [(64, None), (65, "limit_exceeded")])
async def test_topics_in_one_message(autojump_clock: MockClock, count: int, code: str | None) -> None:
    """64 topics in one subscribe; 65 end the connection."""
    topics = [run_topic(number) for number in range(count)]
    async with open_node(*(log_of(topic, 1) for topic in topics)) as node:
        client = await node.connect(*topics)
        client.subscribe(*topics)
        await node.settle()
        if code is None:
            assert len(client.take_all(Subscribed)) == 64
            assert client.close_code is None
        else:
            assert client.take(ErrorMessage).code == code
            assert client.close_code == reason_codes.LIMIT_EXCEEDED.close_code == 4505


# -- again -------------------------------------------------------------------------------------------------


async def test_a_duplicate_changes_nothing(autojump_clock: MockClock) -> None:
    """KH-42: the same subscribe on a live topic repeats ``subscribed`` and sends no frame twice."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        client.take(Subscribed)
        await node.commit(log, 2)
        client.subscribe(TOPIC)
        client.subscribe(TOPIC)
        await node.settle()
        for repeated in client.take_all(Subscribed):
            assert (repeated.start_seq, repeated.head_seq, repeated.mode) == (0, 7, SubscriptionMode.LIVE)
        await node.commit(log)
        assert frame_seqs(client) == up_to(8)
        assert len(client.take_all(ReplayComplete)) == 1
        assert node.counters.subscriptions_open == 1


async def test_a_duplicate_within_one_message(autojump_clock: MockClock) -> None:
    """The same topic twice in one message: two answers, one stream."""
    async with open_node(log_of(TOPIC, 5)) as node:
        client = await node.connect(TOPIC)
        client.subscribe(TOPIC, TOPIC)
        await node.settle()
        assert len(client.take_all(Subscribed)) == 2
        assert frame_seqs(client) == up_to(5)


async def test_a_duplicate_during_the_replay(autojump_clock: MockClock) -> None:
    """While replaying it repeats ``subscribed`` as replaying; the replay goes on where it was."""
    log = log_of(TOPIC, 300, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=10_000))
        client.subscribe(TOPIC)
        await node.settle()
        modes = []
        seqs: list[int] = []
        for _ in range(60):
            modes += [message.mode for message in client.take_all(Subscribed)]
            seqs += frame_seqs(client)
            await node.settle()
        assert modes == [SubscriptionMode.REPLAYING] * 2
        assert seqs == up_to(300)
        client.take(ReplayComplete)


async def test_another_cursor_starts_again(autojump_clock: MockClock) -> None:
    """KH-42: with another cursor the subscription starts anew, lower or higher; never two streams."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        assert frame_seqs(client) == up_to(10)
        for seq in (4, 8):
            client.subscribe(TOPIC, start=CursorStart(seq, LINEAGE))
            await node.settle()
            assert client.take_all(Subscribed)[-1].start_seq == seq
            assert frame_seqs(client) == up_to(10, after=seq)
        await node.commit(log)
        assert frame_seqs(client) == [11]
        assert len(node.registry._topics[TOPIC.name].subscriptions) == 1


async def test_another_cursor_that_is_stale_ends_the_running_one(autojump_clock: MockClock) -> None:
    """Exactly one answer: stale_cursor, and no frame of the old subscription after it."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        client.subscribe(TOPIC, start=CursorStart(11, LINEAGE))
        await node.settle()
        client.take(StaleCursor)
        await node.commit(log)
        assert frame_seqs(client) == up_to(10)


async def test_a_right_lost_meanwhile_ends_the_running_one(autojump_clock: MockClock) -> None:
    """A repeated subscribe is judged anew: forbidden ends what was running."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.rights = HeadRights(OTHER_USER, None)
        client.subscribe(TOPIC)
        await node.settle()
        assert client.take(ErrorMessage).code == "forbidden"
        assert node.counters.subscriptions_open == 0
        await node.commit(log)
        assert frame_seqs(client) == up_to(5)


# -- unsubscribe ---------------------------------------------------------------------------------------------


async def test_unsubscribe_stops_the_frames(autojump_clock: MockClock) -> None:
    """KH-30: no frame of a topic after its ack; other topics go on."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        client.unsubscribe(TOPIC)
        await node.settle()
        ack = client.take(Unsubscribed)
        assert (ack.topic, ack.reason) == (TOPIC.name, UnsubscribedReason.ASKED)
        frame_seqs(client)
        await node.commit(log)
        await node.commit(other)
        assert client.seqs(OTHER_TOPIC) == up_to(4)
        assert frame_seqs(client) == [4]
        assert node.registry._topics[TOPIC.name].subscriptions == {}


async def test_unsubscribe_during_a_page_read(autojump_clock: MockClock) -> None:
    """Race: unsubscribe while a replay read is in flight: its page reaches nobody."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        node.journal.hold("read_page")
        client = await node.follow(TOPIC)
        client.unsubscribe(TOPIC)
        await node.settle()
        client.take(Unsubscribed)
        node.journal.open_gate("read_page")
        await trio.sleep(0.01)
        assert frame_seqs(client) == []
        assert node.pages.held_bytes == 0


async def test_unsubscribe_in_the_middle_of_a_chunk(autojump_clock: MockClock) -> None:
    """A begun chunk ends before the ack; nothing of the topic follows the ack."""
    log = log_of(TOPIC, 300, payload=bytes(1_000))
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=10_000)
        client = await node.follow(TOPIC, transport=transport)
        client.unsubscribe(TOPIC)
        for _ in range(50):
            await node.settle()
            client.read()
        client.take(Unsubscribed)
        assert 0 < len(frame_seqs(client)) < 300


async def test_unsubscribe_of_what_was_never_subscribed(autojump_clock: MockClock) -> None:
    """The client wants it gone, and it is; what is no topic is refused, without an end."""
    async with open_node() as node:
        client = await node.connect()
        client.say(Unsubscribe((TOPIC.name, "no topic")))
        await node.settle()
        assert client.take(Unsubscribed).topic == TOPIC.name
        assert client.take(ErrorMessage).code == "topic_invalid"
        assert client.close_code is None


async def test_subscribe_and_unsubscribe_at_once(autojump_clock: MockClock) -> None:
    """KH-42: commands run in their order: subscribed, then unsubscribed, then nothing."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.connect(TOPIC)
        node.journal.delay_s = 0.1
        client.subscribe(TOPIC)
        client.unsubscribe(TOPIC)
        await trio.sleep(1)
        client.read()
        control = [type(m) for m in client.received if not isinstance(m, FramesMessage)]
        assert control == [Subscribed, Unsubscribed]
        await node.commit(log)
        assert TOPIC.name not in client.transcript.topics


# -- renew ------------------------------------------------------------------------------------------------


async def test_renew_extends_authority(autojump_clock: MockClock) -> None:
    """A fresh token of the same session and device: renewed, and the old expiry no longer counts."""
    async with open_node(log_of(TOPIC, 1)) as node:
        client = await node.follow(TOPIC)
        for number in range(1, 13):
            await trio.sleep(40)
            client.say(Renew(node.grant(TOPIC)))
            await node.settle()
            assert client.take(Renewed).token_expires_at_ms == (WALL_S + 40 * number + 300) * 1000
        assert client.close_code is None
        assert client.seqs(TOPIC) == [1]


async def test_renew_replaces_the_grants(autojump_clock: MockClock) -> None:
    """Topics that the new token does not name end as forbidden; new ones may be subscribed."""
    logs = [log_of(topic, 2) for topic in (TOPIC, OTHER_TOPIC, THIRD_TOPIC)]
    async with open_node(*logs) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        client.say(Renew(node.grant(OTHER_TOPIC, THIRD_TOPIC)))
        await node.settle()
        ended = client.take(Unsubscribed)
        assert (ended.topic, ended.reason) == (TOPIC.name, UnsubscribedReason.FORBIDDEN)
        client.take(Renewed)
        client.subscribe(THIRD_TOPIC, TOPIC)
        await node.settle()
        assert client.take(ErrorMessage).topic == TOPIC.name
        for log in logs:
            await node.commit(log)
        assert client.seqs(OTHER_TOPIC) == client.seqs(THIRD_TOPIC) == up_to(3)


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": f"ses_{9:026d}"},
        {"user_id": OTHER_USER},
        {"device_id": "dev_00000009"},
    ],
)
async def test_renew_with_somebody_elses_token(autojump_clock: MockClock, change: dict[str, Any]) -> None:
    """Another session, user or device is token_invalid and ends the connection."""
    async with open_node() as node:
        client = await node.connect()
        client.say(Renew(node.grant(claims=attrs.evolve(claims_for(), **change))))
        await node.settle()
        assert (client.take(ErrorMessage).code, client.close_code) == ("token_invalid", 4502)


async def test_renew_with_a_spent_token(autojump_clock: MockClock) -> None:
    """A token that opened another connection does not renew this one."""
    async with open_node() as node:
        token = node.grant()
        node.control.spent[token] = "con_elsewhere"
        client = await node.connect()
        client.say(Renew(token))
        await node.settle()
        assert (client.take(ErrorMessage).code, client.close_code) == ("token_replayed", 4502)
