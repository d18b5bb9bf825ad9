"""KH-12: who enters, and when the others return: rates, places, turns and what is told in words."""

from __future__ import annotations

from collections import deque

from khala.core.admission import RETURN_MAX_S, RETURN_MIN_S, Admission, Admitted, TurnedAway
from khala.core.limits import NodeLimits

FREE = {"handshakes_open": 0, "telling": 0}


def test_a_storm_is_spread_over_the_time_it_needs() -> None:
    """2,000 clients at once that come back when they were told: nobody is refused twice, the last is in after 7 s."""
    door = Admission(NodeLimits(), now=0.0)
    waiting = deque([0.0] * 2_000)
    refused = 0
    last_in = 0.0
    while waiting:
        now = waiting.popleft()
        match door.decide(now, **FREE):
            case Admitted():
                last_in = now
            case TurnedAway(limit="admission_per_s", retry_after_ms=retry_after_ms):
                refused += 1
                waiting.append(now + retry_after_ms / 1000)
    assert refused == 2_000 - 250
    assert 7.0 <= last_in <= 7.0 + 2 * RETURN_MIN_S


def test_turns_are_as_far_apart_as_entries() -> None:
    """The times are spread evenly by 1 / rate, so that no two return together."""
    door = Admission(NodeLimits(admission_per_s=10.0, admission_burst=1), now=0.0)
    assert isinstance(door.decide(0.0, **FREE), Admitted)
    turns = [door.decide(0.0, **FREE) for _ in range(4)]
    assert [turn.retry_after_ms for turn in turns if isinstance(turn, TurnedAway)] == [100, 200, 300, 400]


def test_a_flood_that_never_returns() -> None:
    """Nobody is sent away for longer than RETURN_MAX_S, however many turns were given; then they begin again."""
    door = Admission(NodeLimits(admission_per_s=10.0, admission_burst=1), now=0.0)
    waits = [door.decide(0.0, **FREE) for _ in range(1_000)]
    told = [one.retry_after_ms for one in waits if isinstance(one, TurnedAway)]
    assert max(told) <= RETURN_MAX_S * 1_000
    assert len(set(told)) >= 299
    assert told.count(100) == 4


def test_places_of_handshakes() -> None:
    """handshakes_max - 1 open: one enters; handshakes_max: none, and no entry of the rate is used up."""
    door = Admission(NodeLimits(handshakes_max=3, admission_burst=1, admission_per_s=0.001), now=0.0)
    turned = door.decide(0.0, handshakes_open=3, telling=0)
    assert isinstance(turned, TurnedAway)
    assert turned.limit == "handshakes_max"
    assert isinstance(door.decide(0.0, handshakes_open=2, telling=0), Admitted)


def test_how_many_are_told_in_words() -> None:
    """admission_burst of them at once, fewer than handshakes_max at a time; the rest cheaply."""
    limits = NodeLimits(admission_burst=2, admission_per_s=1.0, handshakes_max=2)

    def is_told(door: Admission, telling: int) -> bool:
        turned = door.decide(0.0, handshakes_open=2, telling=telling)
        assert isinstance(turned, TurnedAway)
        return turned.is_told

    door = Admission(limits, now=0.0)
    assert [is_told(door, 0) for _ in range(3)] == [True, True, False]
    door = Admission(limits, now=0.0)
    assert [is_told(door, telling) for telling in (1, 2)] == [True, False]


def test_words_are_rationed_beyond_the_burst() -> None:
    """In the time of ten entries one refusal is told in words, not one for each of them."""
    door = Admission(NodeLimits(handshakes_max=1, admission_burst=1, admission_per_s=20.0), now=0.0)
    # A refusal every 1/8 s for 4 s, all of them because no place is free: no entry is used up.
    refused = [door.decide(eighth / 8, handshakes_open=1, telling=0) for eighth in range(33)]
    told = [
        eighth / 8
        for eighth, turned in enumerate(refused)
        if isinstance(turned, TurnedAway) and turned.is_told
    ]
    assert told == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
