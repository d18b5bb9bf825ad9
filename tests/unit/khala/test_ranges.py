"""The cache of joined ranges: bounded, least recently used goes first."""

from khala.core.ranges import RangeCache, RangeKey
from khala_contracts.topics import TopicName

TOPIC = TopicName("app:org:a")


HISTORY = object()


def _key(position: int, *, is_text: bool = False, history: object = HISTORY) -> RangeKey:
    return RangeKey(TOPIC, history, position, position + 1, is_text)


def test_counts_hits_and_misses() -> None:
    """A range that is held is found; another is not; both are counted."""
    cache = RangeCache(100)
    assert cache.get(_key(0)) is None
    cache.put(_key(0), b"bytes")
    assert cache.get(_key(0)) == b"bytes"
    assert (cache.hits, cache.misses, cache.size_bytes) == (1, 1, 5)


def test_encodings_and_histories_are_apart() -> None:
    """The same frames as text, or of another history, are another range."""
    cache = RangeCache(100)
    cache.put(_key(0), b"bytes")
    assert cache.get(_key(0, is_text=True)) is None
    assert cache.get(_key(0, history=object())) is None


def test_forgets_the_least_recently_used() -> None:
    """INV-7: size_bytes <= max_bytes; at the bound all stay, one byte more drops the oldest by use."""
    cache = RangeCache(10)
    cache.put(_key(0), b"12345")
    cache.put(_key(1), b"12345")
    assert cache.get(_key(0)) == b"12345"
    cache.put(_key(2), b"1")
    assert cache.get(_key(1)) is None
    assert cache.get(_key(0)) == b"12345"
    assert cache.size_bytes == 6


def test_one_range_above_the_bound_is_not_held() -> None:
    """A range of max_bytes is held; of max_bytes + 1 it is not, and nothing else is lost for it."""
    cache = RangeCache(4)
    cache.put(_key(0), b"1234")
    cache.put(_key(1), b"12345")
    assert cache.get(_key(0)) == b"1234"
    assert cache.get(_key(1)) is None
    assert cache.size_bytes == 4


def test_a_range_is_counted_once() -> None:
    """Putting a held range again changes nothing."""
    cache = RangeCache(100)
    cache.put(_key(0), b"1234")
    cache.put(_key(0), b"1234")
    assert cache.size_bytes == 4


def test_another_bound() -> None:
    """A reload of shared_ranges_max_bytes: what is above it is forgotten at once, the oldest first."""
    cache = RangeCache(100)
    for number in range(3):
        cache.put(_key(number), b"1234")
    cache.resize(8)
    assert cache.get(_key(0)) is None
    assert cache.size_bytes == 8
    cache.put(_key(3), b"12345678")
    assert cache.size_bytes == 8
