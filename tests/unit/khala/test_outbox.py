"""The outbox: order, bounds of the control lane, the remainder."""

import pytest

from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from khala.core.outbox import ControlLaneFullError, Outbox
from khala.core.websocket_frames import frame_message
from khala_contracts.codec import ReplayComplete, Subscribed, SubscriptionMode, encode_server_control_json
from khala_contracts.topics import Tier, format_app
from tests.topic_log import LINEAGE, ORG


def test_a_new_outbox_is_empty() -> None:
    """Nothing waits, nothing is taken."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    assert outbox.is_empty
    assert outbox.has_room
    assert outbox.waiting_bytes == 0
    assert outbox.take_remainder() is None
    assert outbox.take_control() is None


def test_the_lane_is_taken_whole_and_in_order() -> None:
    """Control messages leave in the order in which they came, as one piece."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    for message in (b"one", b"two", b"three"):
        outbox.push_control(message)
    assert (outbox.waiting_bytes, outbox.is_empty) == (11, False)
    assert outbox.take_control() == b"onetwothree"
    assert outbox.is_empty
    assert outbox.control_bytes == 0


def test_a_lone_message_is_not_copied() -> None:
    """One message leaves as the object that came."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    message = b"alone"
    outbox.push_control(message)
    assert outbox.take_control() is message


def test_full_by_messages() -> None:
    """INV-7: max_messages fit; one more is refused and not queued."""
    outbox = Outbox(3, 100, InFlight(NodeLimits()))
    for _ in range(3):
        outbox.push_control(b"m")
    with pytest.raises(ControlLaneFullError):
        outbox.push_control(b"m")
    assert outbox.take_control() == b"mmm"


def test_full_by_bytes() -> None:
    """INV-7: max_bytes fit; one byte more is refused and not queued."""
    outbox = Outbox(100, 10, InFlight(NodeLimits()))
    outbox.push_control(b"123456789")
    with pytest.raises(ControlLaneFullError):
        outbox.push_control(b"12")
    outbox.push_control(b"1")
    assert outbox.control_bytes == 10
    with pytest.raises(ControlLaneFullError):
        outbox.push_control(b"1")
    assert outbox.take_control() == b"1234567891"


def test_last_words_always_fit() -> None:
    """The error and the close of a connection are queued even into a full lane, behind the rest."""
    outbox = Outbox(1, 1, InFlight(NodeLimits()))
    outbox.push_control(b"1")
    outbox.push_last(b"bye")
    assert outbox.take_control() == b"1bye"
    assert outbox.control_bytes == 0


@pytest.mark.parametrize(("messages", "has_room"), [(0, True), (2, True), (3, False), (8, False)])
def test_room_by_messages(messages: int, has_room: bool) -> None:
    """A reader goes on while the lane is at most a quarter full by messages."""
    outbox = Outbox(8, 1_000, InFlight(NodeLimits()))
    for _ in range(messages):
        outbox.push_control(b"m")
    assert outbox.has_room is has_room


@pytest.mark.parametrize(("size", "has_room"), [(25, True), (26, False)])
def test_room_by_bytes(size: int, has_room: bool) -> None:
    """A reader goes on while the lane is at most a quarter full by bytes."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    outbox.push_control(bytes(size))
    assert outbox.has_room is has_room


def test_the_answers_to_one_subscribe_fit_into_a_lane_with_room() -> None:
    """64 topics with the longest names, answered in JSON, are never the client's fault."""
    limits = NodeLimits()
    topic = format_app(ORG, "n" * 63)
    largest = 2**63 - 1
    answers = (
        Subscribed(
            topic, LINEAGE, largest, largest, bytes(32), Tier.WARM, SubscriptionMode.REPLAYING, largest
        ),
        ReplayComplete(topic, largest, bytes(32)),
    )
    framed = [frame_message(encode_server_control_json(answer), is_text=True) for answer in answers]
    outbox = Outbox(limits.control_lane_max_messages, limits.control_lane_max_bytes, InFlight(NodeLimits()))
    outbox.push_control(bytes(limits.control_lane_max_bytes // 4))
    assert outbox.has_room
    for _ in range(limits.topics_per_subscribe_max):
        for message in framed:
            outbox.push_control(message)


def test_the_remainder_is_taken_once() -> None:
    """What the kernel did not take is given back exactly, then gone."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    outbox.keep_remainder(memoryview(b"chunk")[2:])
    assert (outbox.is_empty, outbox.waiting_bytes) == (False, 3)
    remainder = outbox.take_remainder()
    assert remainder is not None
    assert bytes(remainder) == b"unk"
    assert outbox.is_empty
    assert outbox.take_remainder() is None


def test_an_empty_remainder_is_none() -> None:
    """A chunk that was taken whole leaves nothing that others would wait behind."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    outbox.keep_remainder(memoryview(b"chunk")[5:])
    assert outbox.is_empty
    assert outbox.take_remainder() is None


def test_clear_forgets_everything() -> None:
    """After the socket is gone nothing waits and no memory is held."""
    outbox = Outbox(4, 100, InFlight(NodeLimits()))
    outbox.push_control(b"m")
    outbox.keep_remainder(memoryview(b"rest"))
    outbox.clear()
    assert outbox.is_empty
    assert (outbox.waiting_bytes, outbox.take_control(), outbox.take_remainder()) == (0, None, None)
