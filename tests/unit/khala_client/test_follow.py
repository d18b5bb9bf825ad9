from __future__ import annotations

import random

import attrs
import pytest

from khala_client.core.cursor import After, Cursor
from khala_client.core.follow import GAPS_PER_CONNECTION_MAX, FollowState, TopicFollow
from khala_client.core.happenings import (
    Delivered,
    GapSeen,
    Happening,
    HeadSeen,
    Lagged,
    Live,
    Released,
    Replaying,
    Retrying,
    TopicEnded,
)
from khala_client.core.protocol import RemoteProtocolError
from khala_client.errors import ChainMismatch, Forbidden, KhalaError, StaleCursor
from khala_contracts import codec, reason_codes
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    FromStart,
    Lagging,
    ReplayComplete,
    StaleReason,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    TopicHeartbeat,
    TopicStart,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.frames import ERASED_KIND
from khala_contracts.topics import Lineage, Seq
from tests.unit.khala_client.node_model import LINEAGE, LogModel, NodeModel, topic_number

TOPIC = topic_number(1)
OTHER_CHAIN = bytes(range(32))


def follow_of(after: After = "beginning") -> TopicFollow:
    """Return a new follow."""
    return TopicFollow(TOPIC, after, rng=random.Random(0))


def log_of(count: int) -> LogModel:
    """Return a log with ``count`` frames."""
    log = LogModel(TOPIC)
    log.append(count)
    return log


def answer_to(log: LogModel, asked: TopicStart) -> Subscribed | codec.StaleCursor:
    """Return what a node answers."""
    (data,) = NodeModel([log]).receive(codec.encode_client_message(Subscribe((asked,))))
    message = codec.decode_server_message_untrusted(data)
    assert isinstance(message, Subscribed | codec.StaleCursor)
    return message


def subscribed(follow: TopicFollow, log: LogModel) -> tuple[Happening, ...]:
    """Ask and let the node accept."""
    message = answer_to(log, follow.ask())
    assert isinstance(message, Subscribed)
    return follow.note_subscribed(message)


def feed(follow: TopicFollow, log: LogModel, *seqs: int) -> tuple[Happening, ...]:
    """Let frames arrive in one message."""
    return follow.note_frames(tuple(log.frames[seq - 1] for seq in seqs))


def heartbeat(
    follow: TopicFollow, message: TopicHeartbeat, *, now_s: float = 0.0, frames_seen: int = 0
) -> tuple[Happening, ...]:
    """Let a heartbeat of a node with the default interval arrive."""
    return follow.note_heartbeat(message, now_s=now_s, frames_seen=frames_seen, settle_s=7.5, turns=50)


def live_at(count: int) -> tuple[TopicFollow, LogModel]:
    """Return a follow that is live at the head."""
    follow, log = follow_of(), log_of(count)
    subscribed(follow, log)
    feed(follow, log, *range(1, count + 1))
    follow.note_replay_complete(ReplayComplete(TOPIC, count, log.chains[count]))
    assert follow.state is FollowState.LIVE
    return follow, log


def test_from_asked_to_live() -> None:
    """subscribed, the replay, replay_complete: one happening each, and the proof at the end."""
    follow, log = follow_of(), log_of(3)
    assert follow.cursor is None
    start = Cursor(TOPIC, Seq(0), Lineage(LINEAGE), log.chains[0])
    assert subscribed(follow, log) == (Replaying(start, 3),)
    (delivered,) = feed(follow, log, 1, 2, 3)
    assert isinstance(delivered, Delivered)
    assert delivered.cursor == Cursor(TOPIC, Seq(3), Lineage(LINEAGE), log.chains[3])
    assert [applied.chain for applied in delivered.applied] == log.chains[1:]
    assert follow.note_replay_complete(ReplayComplete(TOPIC, 3, log.chains[3])) == (
        Live(TOPIC, 3, log.chains[3]),
    )
    assert follow.state is FollowState.LIVE


def test_a_subscription_may_be_live_at_once() -> None:
    """At the head there is nothing to replay; a replay_complete beside it says nothing new."""
    follow, log = follow_of("now"), log_of(3)
    started, live = subscribed(follow, log)
    assert isinstance(started, Replaying)
    assert live == Live(TOPIC, 3, log.chains[3])
    assert follow.note_replay_complete(ReplayComplete(TOPIC, 3, log.chains[3])) == ()


@pytest.mark.parametrize(
    ("after", "asked"),
    [
        ("beginning", FromStart(SubscribeFrom.BEGINNING)),
        ("earliest", FromStart(SubscribeFrom.EARLIEST)),
        (Cursor(TOPIC, Seq(2), Lineage(LINEAGE), OTHER_CHAIN), CursorStart(2, LINEAGE, OTHER_CHAIN)),
    ],
)
def test_the_first_ask_says_where_to_start(after: After, asked: object) -> None:
    """A word or a cursor, as given."""
    assert follow_of(after).ask() == TopicStart(TOPIC, asked)  # type: ignore[arg-type]


def test_a_word_becomes_a_cursor_with_the_first_answer() -> None:
    """``now`` is a position from then on: a reconnect loses nothing that came in between."""
    follow, log = follow_of("now"), log_of(3)
    subscribed(follow, log)
    follow.detach()
    log.append(2)
    assert follow.ask() == TopicStart(TOPIC, CursorStart(3, LINEAGE, log.chains[3]))


def test_an_unanswered_word_is_asked_again() -> None:
    """The connection ended before the answer."""
    follow = follow_of("earliest")
    follow.ask()
    follow.detach()
    assert follow.ask().start == FromStart(SubscribeFrom.EARLIEST)


def test_a_bare_seq_takes_the_chain_of_the_answer() -> None:
    """Without a chain of its own the cursor cannot be compared; from then on it has one."""
    follow, log = follow_of(Cursor(TOPIC, Seq(2), Lineage(LINEAGE))), log_of(3)
    subscribed(follow, log)
    assert follow.cursor == Cursor(TOPIC, Seq(2), Lineage(LINEAGE), log.chains[2])


@pytest.mark.parametrize(
    "change",
    [{"chain_at_start": OTHER_CHAIN}, {"lineage": "lin_2"}],
)
def test_another_history_at_the_start_ends_it(change: dict[str, object]) -> None:
    """A node that accepts a cursor with another chain or lineage is not believed; we unsubscribe."""
    log = log_of(3)
    follow = follow_of(Cursor(TOPIC, Seq(2), Lineage(LINEAGE), log.chains[2]))
    message = answer_to(log, follow.ask())
    assert isinstance(message, Subscribed)
    (ended,) = follow.note_subscribed(attrs.evolve(message, **change))  # type: ignore[arg-type]
    assert isinstance(ended, TopicEnded)
    assert isinstance(ended.error, ChainMismatch)
    assert ended.error.reason == "lineage_mismatch"
    assert follow.state is FollowState.LEAVING
    assert follow.take_unsubscribe()
    assert feed(follow, log, 3) == ()


def test_seq_zero_has_a_chain_that_everybody_knows() -> None:
    """Also ``beginning`` is verified from its first link."""
    follow, log = follow_of(), log_of(1)
    message = answer_to(log, follow.ask())
    assert isinstance(message, Subscribed)
    (ended,) = follow.note_subscribed(attrs.evolve(message, chain_at_start=OTHER_CHAIN))
    assert isinstance(ended, TopicEnded)


def test_another_start_than_asked_is_a_violation() -> None:
    """Frames after another position would be a hole or a repeat."""
    log = log_of(3)
    follow = follow_of(Cursor(TOPIC, Seq(2), Lineage(LINEAGE), log.chains[2]))
    message = answer_to(log, follow.ask())
    assert isinstance(message, Subscribed)
    with pytest.raises(RemoteProtocolError):
        follow.note_subscribed(attrs.evolve(message, start_seq=1))


def test_a_gap_resumes_and_ignores_the_rest() -> None:
    """KH-24: what precedes the gap is delivered; then unsubscribe, wait for its ack, ask after the cursor."""
    follow, log = live_at(1)
    log.append(6)
    delivered, gap = feed(follow, log, 2, 4, 5)
    assert isinstance(delivered, Delivered)
    assert gap == GapSeen(TOPIC, expected_seq=3, seq=4)
    assert (follow.state, follow.take_unsubscribe(), follow.take_unsubscribe()) == (
        FollowState.LEAVING,
        True,
        False,
    )
    assert feed(follow, log, 3) == ()
    assert follow.rule is not None
    assert follow.rule.seq == 2
    assert not follow.is_askable
    assert follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.ASKED), 0.0) == ()
    assert follow.is_askable
    assert follow.ask().start == CursorStart(2, LINEAGE, log.chains[2])


def test_a_path_that_keeps_losing_frames_is_given_up() -> None:
    """Three resumes on one connection; the fourth gap asks for another connection."""
    follow, log = live_at(1)
    log.append(40)
    for _ in range(GAPS_PER_CONNECTION_MAX):
        assert isinstance(feed(follow, log, 9)[-1], GapSeen)
        follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.ASKED), 0.0)
        subscribed(follow, log)
    with pytest.raises(RemoteProtocolError, match="lost frames 4 times"):
        feed(follow, log, 9)
    follow.detach()
    subscribed(follow, log)
    assert isinstance(feed(follow, log, 9)[-1], GapSeen)


def test_what_was_applied_before_a_violation_is_delivered() -> None:
    """The position has moved: not delivering it would lose it for ever."""
    follow, log = live_at(1)
    log.append(40)
    for _ in range(GAPS_PER_CONNECTION_MAX):
        feed(follow, log, 30)
        follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.ASKED), 0.0)
        subscribed(follow, log)
    with pytest.raises(RemoteProtocolError) as violation:
        feed(follow, log, 2, 3, 9)
    (delivered,) = violation.value.happenings
    assert isinstance(delivered, Delivered)
    assert delivered.cursor == follow.cursor
    assert [applied.frame.seq for applied in delivered.applied] == [2, 3]


def test_a_tombstone_that_names_nothing_is_a_violation() -> None:
    """The chain cannot follow from it; what came before it in the same message is delivered."""
    follow, log = live_at(1)
    log.append(2)
    broken = attrs.evolve(log.frames[2], kind=ERASED_KIND, payload=b"")
    with pytest.raises(RemoteProtocolError, match="malformed_message") as violation:
        follow.note_frames((log.frames[1], broken))
    (delivered,) = violation.value.happenings
    assert isinstance(delivered, Delivered)
    assert delivered.cursor.seq == 2


def test_replay_complete_beyond_our_seq_is_a_gap() -> None:
    """The end of the replay got lost."""
    follow, log = follow_of(), log_of(3)
    subscribed(follow, log)
    feed(follow, log, 1, 2)
    assert follow.note_replay_complete(ReplayComplete(TOPIC, 3, log.chains[3])) == (GapSeen(TOPIC, 3, 4),)
    assert follow.state is FollowState.LEAVING


def test_replay_complete_compares_the_chain_where_it_ended() -> None:
    """Also if live frames came in the same breath: the chain at ``through`` was remembered."""
    follow, log = follow_of(), log_of(3)
    subscribed(follow, log)
    log.append(2)
    feed(follow, log, 1, 2, 3, 4, 5)
    (ended,) = follow.note_replay_complete(ReplayComplete(TOPIC, 3, OTHER_CHAIN))
    assert isinstance(ended, TopicEnded)
    assert isinstance(ended.error, ChainMismatch)
    assert ended.error.seq == 3


def test_replay_complete_behind_us_is_believed_if_it_matches() -> None:
    """Live frames before the barrier move our position beyond it."""
    follow, log = follow_of(), log_of(3)
    subscribed(follow, log)
    log.append(2)
    feed(follow, log, 1, 2, 3, 4, 5)
    assert follow.note_replay_complete(ReplayComplete(TOPIC, 3, log.chains[3])) == (
        Live(TOPIC, 5, log.chains[5]),
    )


def test_a_forged_frame_is_found_where_the_authority_states_its_chain() -> None:
    """INV-F2: at replay_complete and at a heartbeat of our own seq."""
    follow, log = live_at(2)
    log.append(1)
    follow.note_frames((attrs.evolve(log.frames[2], payload=b"\x0a\x06forged"),))
    (ended,) = heartbeat(follow, TopicHeartbeat(TOPIC, 3, log.chains[3], 0, 0))
    assert isinstance(ended, TopicEnded)
    assert isinstance(ended.error, ChainMismatch)
    assert follow.is_unwanted


def test_a_heartbeat_never_moves_the_cursor() -> None:
    """INV-F3: ahead, equal or behind."""
    follow, log = live_at(2)
    log.append(1)
    for head_seq in (1, 2, 3):
        message = TopicHeartbeat(TOPIC, head_seq, log.chains[head_seq], 10, 20)
        assert heartbeat(follow, message) == (HeadSeen(TOPIC, head_seq, 10, 20),)
        assert follow.cursor == Cursor(TOPIC, Seq(2), Lineage(LINEAGE), log.chains[2])


def test_a_lost_tail_is_found_by_the_second_heartbeat() -> None:
    """The control lane overtakes frames, so once says nothing; a frame in between clears it."""
    follow, log = live_at(2)
    log.append(3)
    ahead = TopicHeartbeat(TOPIC, 5, log.chains[5], 0, 0)
    heartbeat(follow, ahead, now_s=0.0)
    feed(follow, log, 3)
    assert heartbeat(follow, ahead, now_s=15.0) == (HeadSeen(TOPIC, 5, 0, 0),)
    assert heartbeat(follow, ahead, now_s=30.0) == (HeadSeen(TOPIC, 5, 0, 0), GapSeen(TOPIC, 4, 6))
    assert follow.state is FollowState.LEAVING


def test_heartbeats_that_a_slow_path_brings_together_are_no_lost_tail() -> None:
    """Found by seeds 289 and 297: a reader that had stopped found two of them in front of its frames."""
    follow, log = live_at(2)
    log.append(3)
    ahead = TopicHeartbeat(TOPIC, 5, log.chains[5], 0, 0)
    for now_s in (0.0, 0.1, 7.4):
        assert heartbeat(follow, ahead, now_s=now_s) == (HeadSeen(TOPIC, 5, 0, 0),)
    feed(follow, log, 3)


def test_frames_of_others_are_no_lost_tail_until_it_would_have_been_our_turn() -> None:
    """A path that carries other topics is not idle; after ``turns`` of their messages ours was lost."""
    follow, log = live_at(2)
    log.append(3)
    ahead = TopicHeartbeat(TOPIC, 5, log.chains[5], 0, 0)
    for number in range(5):
        seen = heartbeat(follow, ahead, now_s=15.0 * number, frames_seen=10 * number)
        assert seen == (HeadSeen(TOPIC, 5, 0, 0),)
    assert heartbeat(follow, ahead, now_s=75.0, frames_seen=50)[1:] == (GapSeen(TOPIC, 3, 6),)
    quiet, log = live_at(2)
    log.append(3)
    for now_s, frames_seen in ((0.0, 0), (15.0, 10)):
        heartbeat(quiet, ahead, now_s=now_s, frames_seen=frames_seen)
    assert heartbeat(quiet, ahead, now_s=30.0, frames_seen=10)[1:] == (GapSeen(TOPIC, 3, 6),)


def test_a_release_keeps_the_cursor() -> None:
    """slow_consumer is no fault of the cursor: it is asked again, after a wait."""
    follow, log = live_at(2)
    (released,) = follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.SLOW_CONSUMER), 10.0)
    assert isinstance(released, Released)
    assert 0 < released.delay_s <= 0.25
    assert not follow.is_askable
    assert follow.next_wakeup_s() == 10.0 + released.delay_s
    follow.tick(10.0 + released.delay_s)
    assert follow.is_askable
    assert follow.ask().start == CursorStart(2, LINEAGE, log.chains[2])
    # The ack of an unsubscribe that crossed the release is about the subscription before.
    assert follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.ASKED), 11.0) == ()
    assert follow.state is FollowState.ASKED


def test_releases_back_off() -> None:
    """Each one within a minute doubles the longest wait; a minute without one forgives them."""
    log = log_of(1)
    follow = TopicFollow(TOPIC, "beginning", rng=Highest())
    waits: list[float] = []
    for at_s in (0.0, 30.0, 60.0, 125.0):
        subscribed(follow, log)
        (released,) = follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.SLOW_CONSUMER), at_s)
        assert isinstance(released, Released)
        waits.append(released.delay_s)
        follow.tick(at_s + released.delay_s)
    assert waits == [0.25, 0.5, 1.0, 0.25]


class Highest:
    """No jitter: the longest wait."""

    def random(self) -> float:
        """Return the highest draw."""
        return 1.0


def test_rights_lost_end_it() -> None:
    """unsubscribed{forbidden} is not asked again."""
    follow, _ = live_at(1)
    (ended,) = follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.FORBIDDEN), 0.0)
    assert isinstance(ended, TopicEnded)
    assert isinstance(ended.error, Forbidden)
    assert follow.state is FollowState.ENDED


def test_stale_ends_it_with_the_observation() -> None:
    """The reply carries what was observed, and so does the exception; once."""
    log = log_of(9)
    log.floor_seq = 5
    follow = follow_of()
    message = answer_to(log, follow.ask())
    assert isinstance(message, codec.StaleCursor)
    (ended,) = follow.note_stale(message)
    assert isinstance(ended, TopicEnded)
    error = ended.error
    assert isinstance(error, StaleCursor)
    assert (error.code, error.topic, error.head_seq, error.floor_seq, error.floor_chain) == (
        "stale_cursor.retention_expired",
        TOPIC,
        9,
        5,
        log.chains[4],
    )
    assert follow.note_stale(message) == ()


@pytest.mark.parametrize("reason", list(StaleReason))
def test_every_stale_reason_is_a_code(reason: StaleReason) -> None:
    """The four reasons of SPEC section 1.5."""
    assert StaleCursor(TOPIC, reason.value).code in reason_codes.REGISTRY


def test_a_topic_that_is_unavailable_is_asked_again_when_told() -> None:
    """Trouble leaves the cursor valid; the wait is the server's."""
    follow = follow_of()
    follow.ask()
    error = ErrorMessage.of(reason_codes.UNAVAILABLE, topic=TOPIC, retry_after_ms=1_500)
    assert follow.note_error(error, 10.0) == (Retrying(TOPIC, "unavailable", 1.5),)
    assert not follow.is_askable
    assert follow.next_wakeup_s() == 11.5
    follow.tick(11.4)
    assert not follow.is_askable
    follow.tick(11.5)
    assert follow.is_askable


@pytest.mark.parametrize("code", ["forbidden", "limit_exceeded", "topic_invalid", "a_code_of_tomorrow"])
def test_a_refusal_ends_the_topic_only(code: str) -> None:
    """What is wrong or not allowed is not repeated; unknown codes neither."""
    follow = follow_of()
    follow.ask()
    (ended,) = follow.note_error(ErrorMessage(code, "no", topic=TOPIC, retryable=False), 0.0)
    assert isinstance(ended, TopicEnded)
    assert isinstance(ended.error, KhalaError)
    assert not ended.error.retryable
    assert isinstance(ended.error, Forbidden) == (code == "forbidden")
    assert follow.note_error(ErrorMessage(code, "no", topic=TOPIC), 0.0) == ()


def test_lagging_is_news_only() -> None:
    """Being far behind is no fault."""
    follow, _ = live_at(2)
    assert follow.note_lagging(Lagging(TOPIC, 3, 90)) == (Lagged(TOPIC, 3, 90),)
    follow.leave()
    assert follow.note_lagging(Lagging(TOPIC, 3, 90)) == ()


def test_a_paused_topic_is_not_asked() -> None:
    """Pausing leaves, and frames on the way are dropped: they come again after the cursor."""
    follow, log = live_at(2)
    log.append(2)
    follow.is_paused = True
    follow.leave()
    assert feed(follow, log, 3, 4) == ()
    follow.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.ASKED), 0.0)
    assert not follow.is_askable
    follow.is_paused = False
    assert follow.is_askable


@pytest.mark.parametrize(
    "message",
    [
        FramesMessage((log_of(1).frames[0],)),
        ReplayComplete(TOPIC, 1, bytes(32)),
    ],
)
def test_what_was_not_subscribed_may_not_come(message: FramesMessage | ReplayComplete) -> None:
    """A violation of the node; the connection ends, the state stays."""
    follow = follow_of()
    with pytest.raises(RemoteProtocolError):
        follow.note_frames(message.frames) if isinstance(
            message, FramesMessage
        ) else follow.note_replay_complete(message)
    assert follow.state is FollowState.DETACHED


def test_a_second_subscribed_is_a_violation_but_a_late_one_is_not() -> None:
    """In LEAVING it answers what we have left meanwhile."""
    follow, log = follow_of(), log_of(1)
    message = answer_to(log, follow.ask())
    assert isinstance(message, Subscribed)
    follow.leave()
    assert follow.note_subscribed(message) == ()
    live, log = live_at(1)
    with pytest.raises(RemoteProtocolError):
        live.note_subscribed(message)


def test_a_successor_waits_for_the_ack_of_its_predecessor() -> None:
    """Followed again while leaving: one unsubscribe, one ack, then the new subscribe."""
    before, _ = live_at(1)
    before.leave()
    after = follow_of()
    after.succeed(before)
    assert not after.is_askable
    assert after.take_unsubscribe()
    after.note_unsubscribed(Unsubscribed(TOPIC, UnsubscribedReason.ASKED), 0.0)
    assert after.is_askable


def test_a_cursor_of_another_topic_does_not_fit() -> None:
    """Cursors are of one topic."""
    with pytest.raises(ValueError, match="does not fit"):
        follow_of(Cursor(topic_number(2), Seq(0), Lineage("")))


def test_a_chain_mismatch_is_final_across_connections() -> None:
    """The end of the connection does not bring an ended topic back."""
    follow, log = live_at(1)
    follow.end(KhalaError("internal", retryable=False))
    follow.detach()
    assert follow.state is FollowState.ENDED
    assert feed(follow, log, 1) == ()
    assert heartbeat(follow, TopicHeartbeat(TOPIC, 1, OTHER_CHAIN, 0, 0)) == ()
