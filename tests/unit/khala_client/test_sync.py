from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import pytest

from khala_client.core.cursor import Cursor
from khala_client.core.follow import FollowState
from khala_client.core.happenings import (
    CloseRequest,
    Delivered,
    Happening,
    LeaveAsked,
    Output,
    TokenDue,
    TopicEnded,
    Welcomed,
)
from khala_client.core.protocol import Identity
from khala_client.core.sync import FOLLOWS_MAX, Reconnect, Stop, SyncMachine
from khala_client.errors import Forbidden, KhalaError, ReauthRequired, Unavailable, UpgradeRequired
from khala_contracts import codec, reason_codes
from khala_contracts.codec import (
    ErrorMessage,
    FramesMessage,
    GoAway,
    Renew,
    Subscribe,
    Unsubscribe,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.topics import Lineage, Seq
from tests.unit.khala_client.node_model import LINEAGE, LogModel, NodeModel, topic_number

if TYPE_CHECKING:
    from khala_contracts.reason_codes import ReasonCode

TOPIC, OTHER = topic_number(1), topic_number(2)
NOW_S = 1_000.0


class Session:
    """A machine and the node that it talks to over a perfect path."""

    def __init__(self, *logs: LogModel) -> None:
        self.machine = SyncMachine(Identity("dev_00000001", "0.1.0"), rng=random.Random(0))
        self.logs = logs
        self.node = NodeModel(logs)
        self.sent: list[codec.ClientMessage] = []
        self.happenings: list[Happening] = []
        self.close: CloseRequest | None = None

    def connect(self, *, now_s: float = NOW_S) -> None:
        """Open a connection for all topics that are followed."""
        self.node = NodeModel(self.logs)
        self.close = None
        self.perform(self.machine.connected("token", self.machine.topics, now_s))

    def perform(self, output: Output, *, now_s: float = NOW_S) -> None:
        """Do what the machine asks for, and what the node answers to it."""
        self.happenings += output.happenings
        self.close = self.close or output.close
        for data in output.send:
            self.sent.append(codec.decode_client_message_untrusted(data))
            for answer in self.node.receive(data):
                self.receive(answer, now_s=now_s)

    def receive(self, data: bytes, *, now_s: float = NOW_S) -> None:
        """Take one message of the node."""
        self.perform(self.machine.receive_untrusted(data, now_s), now_s=now_s)

    def tell(self, message: codec.ServerControl) -> None:
        """Take one control message."""
        self.receive(codec.encode_server_control(message))

    def taken(self, kind: type[Happening]) -> list[Happening]:
        """Return, and forget, the happenings of a kind."""
        found = [happening for happening in self.happenings if isinstance(happening, kind)]
        self.happenings = [happening for happening in self.happenings if not isinstance(happening, kind)]
        return found


def log_of(number: int, count: int = 0) -> LogModel:
    """Return a log with ``count`` frames."""
    log = LogModel(topic_number(number))
    log.append(count)
    return log


def test_follow_connect_deliver() -> None:
    """Hello, one subscribe for all topics, and the frames of each."""
    session = Session(log_of(1, 3), log_of(2, 0))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "now")
    assert session.machine.topics == (TOPIC, OTHER)
    assert not session.machine.is_open
    session.connect()
    assert session.machine.is_open
    assert session.machine.connection_id == "con_1"
    assert [type(message) for message in session.sent] == [codec.Hello, Subscribe]
    for data in session.node.pump(TOPIC):
        session.receive(data)
    (delivered,) = session.taken(Delivered)
    assert isinstance(delivered, Delivered)
    assert delivered.cursor == Cursor(TOPIC, Seq(3), Lineage(LINEAGE), session.logs[0].chains[3])


def test_sixty_five_topics_take_two_subscribes() -> None:
    """At most 64 per message."""
    logs = [log_of(number) for number in range(1, 66)]
    session = Session(*logs)
    for log in logs:
        session.machine.follow(log.topic, "beginning")
    session.connect()
    assert [len(message.topics) for message in session.sent if isinstance(message, Subscribe)] == [64, 1]


def test_a_topic_added_later_is_granted_first() -> None:
    """A token minted for it, renewed, and only after ``renewed`` the subscribe."""
    session = Session(log_of(1), log_of(2), log_of(3))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.sent.clear()
    session.perform(session.machine.follow(OTHER, "beginning"))
    session.perform(session.machine.follow(topic_number(3), "beginning"))
    assert session.taken(TokenDue) == [TokenDue()]
    assert session.sent == []
    session.perform(session.machine.renew("second", session.machine.topics))
    assert [type(message) for message in session.sent] == [Renew, Subscribe]
    assert session.node.tokens == ["token", "second"]
    assert set(session.node.topics) == {TOPIC, OTHER, topic_number(3)}


def test_a_renew_for_fewer_topics_asks_for_another_token() -> None:
    """Followed while the token was minted: granted by the next one."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.perform(session.machine.follow(OTHER, "beginning"))
    assert session.taken(TokenDue)
    session.perform(session.machine.renew("second", (TOPIC,)))
    assert session.taken(TokenDue)


def test_a_subscribe_behind_a_renew_is_judged_by_the_new_grants() -> None:
    """Found by seed 440: asked by the old grant while ``renewed`` was under way, a topic was forbidden for good."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.connect()
    session.tell(codec.Unsubscribed(OTHER, codec.UnsubscribedReason.FORBIDDEN))
    renewed = session.machine.renew("second", (TOPIC,))
    assert len(renewed.send) == 1
    assert session.machine.follow(OTHER, "beginning").send == ()
    assert session.machine.tick(NOW_S).send == ()


def test_a_token_without_a_topic_that_is_followed_is_not_presented() -> None:
    """A topic that came while the token was minted is subscribed by the old grant; the new one would end it."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.connect()
    output = session.machine.renew("second", (TOPIC,))
    assert output.send == ()
    assert output.happenings == (TokenDue(),)
    assert len(session.machine.renew("third", (OTHER, TOPIC)).send) == 1


def test_resume_after_the_cursor_on_the_next_connection() -> None:
    """What was delivered is not sent again."""
    session = Session(log_of(1, 3))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    for data in session.node.pump(TOPIC, 2):
        session.receive(data)
    decision = session.machine.disconnected(None, NOW_S)
    assert isinstance(decision, Reconnect)
    assert decision.code == "unavailable"
    session.connect()
    assert session.node.starts[0].start == codec.CursorStart(2, LINEAGE, session.logs[0].chains[2])


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (reason_codes.UPGRADE_REQUIRED, UpgradeRequired),
        (reason_codes.FORBIDDEN, Forbidden),
        (reason_codes.PROTOCOL_ERROR, KhalaError),
        (reason_codes.LIMIT_EXCEEDED, KhalaError),
    ],
)
def test_endings_that_stop(reason: ReasonCode, expected: type[KhalaError]) -> None:
    """4500-4999: no reconnect; every topic ends with the server's error."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.connect()
    session.tell(ErrorMessage.of(reason, details={"min_build_id": "9.9.9"}))
    decision = session.machine.disconnected(reason.close_code, NOW_S)
    assert isinstance(decision, Stop)
    assert type(decision.error) is expected
    assert decision.error.code == reason.name
    if isinstance(decision.error, UpgradeRequired):
        assert decision.error.min_build_id == "9.9.9"
    session.perform(session.machine.stop(decision.error))
    assert [type(happening) for happening in session.taken(TopicEnded)] == [TopicEnded, TopicEnded]
    assert session.machine.topics == ()


def test_lost_authority_is_minted_once() -> None:
    """CL-06: after a revocation one attempt with a fresh token, then sign in again."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    assert isinstance(session.machine.disconnected(4501, NOW_S), Reconnect)
    session.connect()
    decision = session.machine.disconnected(4501, NOW_S + 1)
    assert isinstance(decision, Stop)
    assert isinstance(decision.error, ReauthRequired)


@pytest.mark.parametrize(("lasted_s", "kind"), [(59.0, Stop), (60.0, Reconnect)])
def test_a_stable_minute_forgives_a_refused_token(lasted_s: float, kind: type[object]) -> None:
    """The backoff's stable period is the same for both."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.machine.disconnected(4502, NOW_S)
    session.connect(now_s=NOW_S)
    assert isinstance(session.machine.disconnected(4502, NOW_S + lasted_s), kind)


def test_the_servers_return_time_is_taken() -> None:
    """rate_limited with retry_after_ms: exactly then."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.tell(ErrorMessage.of(reason_codes.RATE_LIMITED, retry_after_ms=4_321))
    assert session.machine.disconnected(4003, NOW_S) == Reconnect(4.321, "rate_limited")


def test_an_expired_token_resumes_at_once_but_not_in_a_hot_loop() -> None:
    """4005: the first time without waiting, then with backoff."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    assert session.machine.disconnected(4005, NOW_S) == Reconnect(0.0, "token_expired")
    session.connect()
    again = session.machine.disconnected(4005, NOW_S)
    assert isinstance(again, Reconnect)
    assert again.delay_s > 0


@pytest.mark.parametrize("closes_first", [True, False])
def test_a_draining_node_hands_out_the_return_time(closes_first: bool) -> None:
    """We leave at the time given; a node that closes earlier is given the rest of it."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.tell(GoAway(2_000, 30_000))
    assert session.taken(LeaveAsked) == [LeaveAsked(2_000)]
    if closes_first:
        assert session.machine.disconnected(4000, NOW_S + 0.5) == Reconnect(1.5, "draining")
        return
    assert session.machine.next_wakeup_s() == NOW_S + 2
    assert session.machine.tick(NOW_S + 2).close is not None
    assert session.machine.disconnected(1000, NOW_S + 2) == Reconnect(0.0, "draining")


def test_whose_turn_comes_after_the_end_of_the_node_waits_for_it() -> None:
    """We leave with the node, and connect elsewhere when the others expect us, not when it left."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.tell(GoAway(50_000, 24_000))
    assert session.machine.tick(NOW_S + 24).close is not None
    assert session.machine.disconnected(1000, NOW_S + 24) == Reconnect(26.0, "draining")


def test_our_own_close_is_not_read_as_the_servers() -> None:
    """A violation closes with 1002; the echo of it does not mean that we must stay away."""
    session = Session(log_of(1, 2))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.receive(b"\xff\xff\xff")
    assert session.close is not None
    assert session.close.code == 1002
    decision = session.machine.disconnected(1002, NOW_S)
    assert isinstance(decision, Reconnect)
    assert decision.code == "unavailable"


def test_frames_that_nobody_asked_for_close() -> None:
    """They would otherwise be applied to nothing, or to a follow that starts later."""
    session = Session(log_of(1, 2))
    session.machine.follow(OTHER, "beginning")
    session.connect()
    session.receive(b"".join(codec.encode_entry(frame) for frame in session.logs[0].frames))
    assert session.close is not None


def test_an_unknown_control_message_is_passed_over() -> None:
    """A newer node may say more than this build knows."""
    assert codec.decode_server_message_untrusted(b"") == FramesMessage(())
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.receive(b"")
    assert session.close is None


def test_leaving_waits_for_the_ack_and_may_be_taken_back() -> None:
    """One unsubscribe; followed again before its ack, the topic is subscribed after it."""
    session = Session(log_of(1, 2))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    left = session.machine.leave(TOPIC)
    assert [codec.decode_client_message_untrusted(data) for data in left.send] == [Unsubscribe((TOPIC,))]
    assert not session.machine.topics
    again = session.machine.follow(TOPIC, "now")
    assert again.send == ()
    session.perform(left)
    assert isinstance(session.sent[-1], Subscribe)
    follow = session.machine.follow_of(TOPIC)
    assert follow is not None
    assert follow.state is FollowState.LIVE


def test_leaving_without_a_connection_is_immediate() -> None:
    """Nothing to unsubscribe from."""
    session = Session()
    session.machine.follow(TOPIC, "beginning")
    assert session.machine.leave(TOPIC) == Output()
    assert session.machine.follow_of(TOPIC) is None
    assert session.machine.leave(OTHER) == Output()


def test_what_was_applied_is_delivered_also_if_the_rest_is_a_violation() -> None:
    """Output has both: the frames and the close."""
    log = log_of(1, 9)
    session = Session(log)
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    for _ in range(3):
        session.receive(codec.encode_entry(log.frames[8]))
    session.receive(codec.encode_entry(log.frames[0]) + codec.encode_entry(log.frames[1]))
    assert session.close is None
    session.taken(Delivered)
    # The fourth gap of this connection, behind two frames that are next.
    for data in (log.frames[2], log.frames[3]):
        session.receive(codec.encode_entry(data))
    session.receive(codec.encode_entry(log.frames[8]))
    assert session.close is not None
    assert session.close.code == 1002
    assert len(session.taken(Delivered)) == 2


def test_a_client_follows_256_topics() -> None:
    """And not one more; a token would not hold it."""
    machine = SyncMachine(Identity("dev_00000001", "0.1.0"), rng=random.Random(0))
    for number in range(FOLLOWS_MAX):
        machine.follow(topic_number(number), "now")
    with pytest.raises(ValueError, match="256 topics"):
        machine.follow(topic_number(999), "now")


def test_what_comes_late_about_a_left_topic_is_about_nothing() -> None:
    """The node's own decision and our unsubscribe crossed: two acks, and the second has no owner."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.perform(session.machine.leave(TOPIC))
    session.tell(Unsubscribed(TOPIC, UnsubscribedReason.ASKED))
    assert session.close is None


def test_pause_and_resume() -> None:
    """A paused topic is unsubscribed and subscribed again after its cursor."""
    session = Session(log_of(1, 4))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    for data in session.node.pump(TOPIC, 2):
        session.receive(data)
    session.perform(session.machine.pause(TOPIC))
    assert session.node.topics == ()
    assert session.machine.topics == (TOPIC,)
    session.perform(session.machine.resume(TOPIC))
    assert session.node.starts[-1].start == codec.CursorStart(2, LINEAGE, session.logs[0].chains[2])
    assert session.machine.pause(OTHER) == session.machine.resume(OTHER) == Output()


def test_one_follower_per_topic() -> None:
    """A second one would need frames of its own."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    with pytest.raises(ValueError, match="followed already"):
        session.machine.follow(TOPIC, "now")


def test_a_refused_topic_leaves_the_others() -> None:
    """error{topic} ends that subscription only."""
    session = Session(log_of(1, 1))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.connect()
    (ended,) = session.taken(TopicEnded)
    assert isinstance(ended, TopicEnded)
    assert ended.topic == OTHER
    assert isinstance(ended.error, Forbidden)
    assert session.machine.topics == (TOPIC,)
    assert session.close is None


def test_a_topic_that_is_unavailable_is_asked_again_by_tick() -> None:
    """After the server's own time."""
    session = Session(log_of(1, 1))
    session.machine.follow(TOPIC, "beginning")
    refusal = ErrorMessage.of(reason_codes.UNAVAILABLE, topic=TOPIC, retry_after_ms=250)
    session.node.refusals[TOPIC] = refusal
    session.perform(session.machine.connected("token", session.machine.topics, NOW_S))
    assert not session.node.topics
    assert session.machine.next_wakeup_s() == NOW_S + 0.25
    session.perform(session.machine.tick(NOW_S + 0.25))
    assert session.node.topics == (TOPIC,)


def test_a_mint_that_fails() -> None:
    """Retryable: with backoff. For good: stop. Nothing to connect with in either case."""
    machine = Session().machine
    assert machine.connect_failed(Unavailable(retry_after_ms=1_000)) == Reconnect(1.0, "unavailable")
    stopped = machine.connect_failed(ReauthRequired("reauth_required", retryable=False))
    assert isinstance(stopped, Stop)


def test_a_renewal_that_fails() -> None:
    """Retryable: TokenDue again. One topic refused: it ends. For good: everything ends, and we close."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.connect()
    session.perform(session.machine.renew_failed(Unavailable(retry_after_ms=5_000), NOW_S))
    assert session.machine.tick(NOW_S + 4.9).happenings == ()
    assert session.machine.tick(NOW_S + 5).happenings == (TokenDue(),)
    session.perform(session.machine.renew_failed(Forbidden("forbidden", retryable=False, topic=OTHER), NOW_S))
    (ended,) = session.taken(TopicEnded)
    assert isinstance(ended, TopicEnded)
    assert ended.topic == OTHER
    session.perform(session.machine.renew_failed(ReauthRequired("reauth_required", retryable=False), NOW_S))
    assert session.close is not None
    assert session.machine.topics == ()


def test_a_failed_renewal_is_not_asked_for_by_every_message() -> None:
    """A topic waits for its grant: the backoff decides when to mint again, not what arrives meanwhile."""
    session = Session(log_of(1, 3), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.perform(session.machine.follow(OTHER, "beginning"))
    assert session.taken(TokenDue)
    session.perform(session.machine.renew_failed(Unavailable(retry_after_ms=5_000), NOW_S))
    for data in session.node.pump(TOPIC, 1):
        session.receive(data)
    assert session.taken(Delivered)
    assert session.taken(TokenDue) == []
    assert session.machine.tick(NOW_S + 5).happenings == (TokenDue(),)


def test_a_live_topic_that_a_renewal_refuses_is_left_in_order() -> None:
    """Its frames in flight are no violation, and the others get their token at once."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.connect()
    forbidden = Forbidden("forbidden", retryable=False, topic=OTHER)
    output = session.machine.renew_failed(forbidden, NOW_S)
    session.logs[1].append(1)
    for data in session.node.pump(OTHER):
        session.receive(data)
    session.perform(output)
    assert session.close is None
    assert session.taken(TopicEnded) == [TopicEnded(OTHER, forbidden)]
    assert session.node.topics == session.machine.topics == (TOPIC,)
    assert session.machine.tick(NOW_S).happenings == (TokenDue(),)


def test_a_refused_topic_that_was_left_meanwhile_ends_nothing() -> None:
    """Control's answer is about a topic that nobody follows any more; the others go on."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.perform(session.machine.follow(OTHER, "beginning"))
    session.perform(session.machine.leave(OTHER))
    session.perform(session.machine.renew_failed(Forbidden("forbidden", retryable=False, topic=OTHER), NOW_S))
    assert session.close is None
    assert session.taken(TopicEnded) == []
    assert session.machine.topics == (TOPIC,)
    # The next token is minted after a wait: control may go on about that topic.
    assert session.machine.tick(NOW_S).happenings == ()
    assert session.machine.tick(NOW_S + 0.25).happenings == (TokenDue(),)


def test_a_token_that_comes_too_late_is_not_sent() -> None:
    """The connection ended while it was minted."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.machine.disconnected(None, NOW_S)
    assert session.machine.renew("late", (TOPIC,)) == Output()
    assert session.machine.renew_failed(Unavailable(), NOW_S) == Output()


def test_a_topic_that_control_does_not_grant_ends_alone() -> None:
    """The others are minted without it."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.machine.follow(OTHER, "beginning")
    session.perform(session.machine.end_topic(OTHER, Forbidden("forbidden", topic=OTHER)))
    assert session.machine.topics == (TOPIC,)
    assert session.machine.end_topic(OTHER, Forbidden("forbidden")) == Output()


def test_hanging_up_is_no_failure() -> None:
    """Nothing is followed any more: the next connection waits for nothing."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.machine.leave(TOPIC)
    session.machine.hung_up(NOW_S)
    assert not session.machine.is_open
    assert session.machine.connection_id == ""
    assert session.machine.tick(NOW_S) == Output()
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    assert session.taken(Welcomed)


def test_deadlines_of_the_connection_close_it() -> None:
    """Nothing received for 45 s; resumed with backoff."""
    session = Session(log_of(1))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.machine.alive(NOW_S + 1)
    assert session.machine.tick(NOW_S + 46).close == CloseRequest(1000, "nothing received in time")
    assert isinstance(session.machine.disconnected(1000, NOW_S + 46), Reconnect)


def test_a_renewal_that_is_due_waits_for_its_token() -> None:
    """Topics that are added meanwhile do not ask for a second one."""
    session = Session(log_of(1), log_of(2))
    session.machine.follow(TOPIC, "beginning")
    session.connect()
    session.machine.alive(NOW_S + 199)
    assert session.machine.tick(NOW_S + 200).happenings == (TokenDue(),)
    assert session.machine.follow(OTHER, "beginning").happenings == ()


def test_outputs_are_values() -> None:
    """An empty output asks for nothing."""
    assert attrs.asdict(Output()) == {"send": (), "happenings": (), "close": None, "ping": False}
