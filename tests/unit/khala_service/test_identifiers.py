"""UUIDv7 in RFC 9562's layout, strictly ascending whatever the clock does."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts import ids
from khala_service.identifiers import SystemClock, SystemIds, SystemRng, UuidV7Source


def _source(times_ms: list[int], random_byte: int = 0xFF) -> UuidV7Source:
    ticks = iter(times_ms)
    return UuidV7Source(
        time_ns=lambda: next(ticks) * 1_000_000 + 999_999,
        random_bytes=lambda count: bytes([random_byte]) * count,
    )


def test_layout() -> None:
    """48 bits of milliseconds, version 7, counter, variant 10, 62 random bits."""
    value = _source([0x0123_4567_89AB]).next_bytes()
    assert value.hex() == "0123456789ab" + "77ff" + "bfffffffffffffff"


@given(st.lists(st.integers(min_value=0, max_value=2**40), min_size=2, max_size=50), st.integers(0, 255))
def test_strictly_ascending_whatever_the_clock_does(times_ms: list[int], random_byte: int) -> None:
    """The invariant, also with a clock that jumps back and equal random bytes."""
    source = _source(times_ms, random_byte)
    values = [source.next_bytes() for _ in times_ms]
    assert all(earlier < later for earlier, later in itertools.pairwise(values))


def test_counter_overflow_runs_ahead_of_the_clock() -> None:
    """2,049 values of one millisecond: the last has borrowed the next millisecond."""
    source = _source([1000] * 2050)
    values = [source.next_bytes() for _ in range(2050)]
    assert len(set(values)) == 2050
    assert values == sorted(values)
    milliseconds = [int.from_bytes(value[:6], "big") for value in values]
    assert milliseconds[2048] == 1000
    assert milliseconds[2049] == 1001


def test_ids() -> None:
    """Ids have the registered form and ascend as text."""
    system_ids = SystemIds()
    made = [system_ids.new("run") for _ in range(100)]
    assert all(ids.is_id("run", text) for text in made)
    assert made == sorted(set(made))
    with pytest.raises(ValueError, match="unknown id prefix"):
        system_ids.new("nope")


def test_clock_and_rng() -> None:
    """The clock is Unix time; randomness is in range and does not repeat."""
    assert SystemClock().now() > 1_700_000_000
    rng = SystemRng()
    assert all(0 <= rng.random() < 1 for _ in range(100))
    assert len(rng.token_bytes(32)) == 32
    assert rng.token_bytes(32) != rng.token_bytes(32)
