"""The bytes in flight of a node: the limit itself, and whose turn it is."""

from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from tests.range_source import RecordingSink, WindowSource, replaying_subscription

MAX = 1_000


def test_the_limit_itself() -> None:
    """One byte below in_flight_max_bytes there is room, at it there is none."""
    in_flight = InFlight(NodeLimits(in_flight_max_bytes=MAX))
    in_flight.held_bytes = MAX - 1
    assert in_flight.has_room
    in_flight.held_bytes = MAX
    assert not in_flight.has_room


def test_room_goes_to_whoever_began_first() -> None:
    """Woken in the order of their subscribes, not of their waiting, each once, and as long as there is room."""
    in_flight = InFlight(NodeLimits(in_flight_max_bytes=MAX))
    in_flight.held_bytes = MAX
    sink = RecordingSink()
    source = WindowSource()
    subscriptions = [
        replaying_subscription(source, number=number, through_seq=5, sink=sink) for number in range(3)
    ]
    for began_at, subscription in zip((3.0, 1.0, 2.0), subscriptions, strict=True):
        subscription.began_at = began_at
        in_flight.wait(subscription)
        in_flight.wait(subscription)
    in_flight.wake_waiting()
    assert sink.woken == []
    in_flight.forget(subscriptions[2])
    in_flight.held_bytes = 0
    in_flight.wake_waiting()
    assert sink.woken == [subscriptions[1], subscriptions[0]]
    assert len(in_flight) == 0
