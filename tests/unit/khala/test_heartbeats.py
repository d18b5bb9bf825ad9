"""What a heartbeat says of a topic: headroom on both sides of each of its bounds, and one encoding for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from khala.core.heartbeats import Headroom, estimate_headroom
from khala_contracts.codec import decode_server_message_json_untrusted, join_heartbeat
from khala_contracts.server_messages import ServerHeartbeat, TopicHeartbeat
from tests.range_source import WindowSource
from tests.topic_log import TopicLog, run_topic

if TYPE_CHECKING:
    from khala_contracts.topics import TopicClass

DAY_S = 24 * 3_600
FRAMES, BYTES = 1_000, 1_000_000


def _class(*, frames: int = FRAMES, size: int = BYTES) -> TopicClass:
    row = run_topic().topic_class
    return attrs.evolve(row, replay_budget_events=frames, replay_budget_bytes=size, retention_s=7 * DAY_S)


def _log(count: int = 100, *, floor: int = 1) -> TopicLog:
    """A log whose frames have one size each, if there are fewer than 128."""
    log = TopicLog()
    log.append(count)
    log.floor_seq = floor
    return log


def _estimate(
    position: int,
    log: TopicLog,
    topic_class: TopicClass | None = None,
    *,
    bytes_behind: int | None = None,
    age_s: float | None = None,
) -> Headroom:
    return estimate_headroom(
        position,
        log.observe(),
        topic_class or _class(),
        head_seq=log.head_seq,
        bytes_behind=bytes_behind,
        age_s=age_s,
    )


@pytest.mark.parametrize("position", [0, 40, 99, 100])
def test_what_is_behind_is_used_up(position: int) -> None:
    """In frames: the budget less the distance to the head."""
    assert _estimate(position, _log()).frames == FRAMES - (100 - position)


@pytest.mark.parametrize(("spare", "frames"), [(-1, 0), (0, 1), (1, 1)])
def test_the_budget_in_bytes(spare: int, frames: int) -> None:
    """In bytes: as many average frames as still fit; one byte short is a frame fewer."""
    log = _log()
    size = len(log.entries[0])
    used = log.bytes_totals[100] - log.bytes_totals[40]
    topic_class = _class(size=used + size + spare)
    assert _estimate(40, log, topic_class, bytes_behind=used).frames == frames
    # Not known, but all frames have one size: the same.
    assert _estimate(40, log, topic_class).frames == frames


@pytest.mark.parametrize("position", [0, 50, 100])
def test_no_retained_frame_says_how_large_the_next_is(position: int) -> None:
    """Everything pruned, or nothing written yet: the budget in frames alone."""
    empty = TopicLog()
    assert _estimate(0, empty) == Headroom(FRAMES, 7 * DAY_S * 1000)
    pruned = _log(floor=101)
    assert _estimate(100, pruned).frames == FRAMES
    assert _estimate(position, pruned).frames == (FRAMES if position == 100 else 0)


@pytest.mark.parametrize(
    ("frames", "size", "headroom"),
    [(60, BYTES, 0), (59, BYTES, 0), (FRAMES, 0, 0)],
)
def test_stale_by_budget_already(frames: int, size: int, headroom: int) -> None:
    """Exactly at a budget no frame more may come; beyond it no time is left either."""
    estimate = _estimate(40, _log(), _class(frames=frames, size=size), age_s=0.0)
    assert estimate.frames == headroom
    assert (estimate.ms > 0) is (frames == 60)


@pytest.mark.parametrize(("position", "is_retained"), [(48, False), (49, True), (50, True)])
def test_at_the_floor(position: int, is_retained: bool) -> None:
    """Floor 50: whoever stands at 49 needs 50, which is there; at 48 there is no headroom at all."""
    estimate = _estimate(position, _log(floor=50), age_s=DAY_S)
    assert (estimate != Headroom(0, 0)) is is_retained
    if is_retained:
        assert estimate.ms == 6 * DAY_S * 1000


def test_time_at_the_head_is_the_whole_retention() -> None:
    """What is not written yet cannot expire before a frame that is committed now."""
    assert _estimate(100, _log(floor=50), age_s=DAY_S).ms == 7 * DAY_S * 1000


@pytest.mark.parametrize(("age_s", "ms"), [(0.0, 7 * DAY_S * 1000), (7 * DAY_S, 0), (8 * DAY_S, 0)])
def test_time_is_what_retention_leaves_the_next_frame(age_s: float, ms: int) -> None:
    """Its age is known if it came while the node followed the topic; never below 0."""
    assert _estimate(99, _log(), age_s=age_s).ms == ms


def test_an_unknown_age_is_in_proportion() -> None:
    """The frame at a floor that has moved is as old as retention allows, the newest is new."""
    log = _log(floor=51)
    assert _estimate(50, log).ms == 0
    assert _estimate(75, log).ms == 3.5 * DAY_S * 1000
    assert _estimate(100, log).ms == 7 * DAY_S * 1000
    # A floor that never moved says that nothing has expired yet.
    assert _estimate(0, _log()).ms == 7 * DAY_S * 1000


def test_a_head_that_is_newer_than_what_the_journal_said() -> None:
    """Records come before the next position check; the estimate counts them."""
    log = _log()
    seen = log.observe()
    estimate = estimate_headroom(
        100, seen, _class(), head_seq=150, bytes_behind=50 * len(log.entries[0]), age_s=1.0
    )
    assert estimate == Headroom(FRAMES - 50, (7 * DAY_S - 1) * 1000)


# -- entries ----------------------------------------------------------------------------------------


def _source(log: TopicLog) -> WindowSource:
    source = WindowSource(observation=log.observe(), head_chain=log.chains[log.head_seq])
    source.window.extend(log.entries, source.head_chain)
    return source


def _entry(source: WindowSource, position: int, *, is_text: bool = True, now: float = 1.0) -> bytes:
    return source.heartbeats.entry(source, position, run_topic(), is_text=is_text, now=now)


def _said(entry: bytes) -> TopicHeartbeat:
    message = decode_server_message_json_untrusted(join_heartbeat([entry], 1, is_text=True).decode())
    assert isinstance(message, ServerHeartbeat)
    (topic,) = message.topics
    return topic


@pytest.mark.parametrize("is_text", [False, True])
def test_followers_at_the_head_share_one_encoding(is_text: bool) -> None:
    """KH-37: the same bytes object for each of them, until head or floor move; one per subprotocol."""
    log = _log()
    source = _source(log)
    entry = _entry(source, 100, is_text=is_text)
    assert _entry(source, 100, is_text=is_text, now=99.0) is entry
    assert _entry(source, 100, is_text=not is_text) != entry
    assert _entry(source, 100, is_text=is_text) is entry
    log.floor_seq = 2
    source.observation = log.observe()
    assert _entry(source, 100, is_text=is_text) is not entry


def test_whoever_is_behind_has_an_entry_of_its_own() -> None:
    """Its headroom is its own; the head that it states is the topic's."""
    log = _log()
    source = _source(log)
    own, shared = _said(_entry(source, 90, now=5.0)), _said(_entry(source, 100, now=5.0))
    budget = run_topic().topic_class.replay_budget_events
    assert (own.head_seq, own.chain) == (shared.head_seq, shared.chain) == (100, log.chains[100])
    assert (own.headroom_frames, shared.headroom_frames) == (budget - 10, budget)
    # The source says that frames came at 0.0.
    assert shared.headroom_ms - own.headroom_ms == 5_000


def test_another_history_at_the_same_head_is_encoded_anew() -> None:
    """The chain is part of what is shared: a restore may end at the same seq."""
    source = _source(_log())
    _entry(source, 100)
    source.head_chain = bytes(32)
    assert _said(_entry(source, 100)).chain == bytes(32)
