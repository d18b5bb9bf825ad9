from __future__ import annotations

import attrs
import pytest

from khala_client.core.batching import BatchLimits, OutgoingQueue

LIMITS = BatchLimits(batch_items_max=3, batch_bytes_max=100, queue_items_max=5, queue_bytes_max=200)


@attrs.frozen
class Item:
    """Something with a size."""

    size_bytes: int
    name: int = 0


def queue_of(*sizes: int) -> OutgoingQueue[Item]:
    """Return a queue with items of these sizes."""
    queue: OutgoingQueue[Item] = OutgoingQueue(LIMITS)
    for name, size in enumerate(sizes):
        queue.push(Item(size, name))
    return queue


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ((), []),
        ((1, 1, 1), [3]),
        ((1, 1, 1, 1), [3, 1]),
        ((50, 50), [2]),
        ((50, 51), [1, 1]),
        ((150,), [1]),
        ((1, 150, 1), [1, 1, 1]),
    ],
)
def test_batches_are_cut_at_their_limits(sizes: tuple[int, ...], batches: list[int]) -> None:
    """N and N + 1 of both limits; at least one item; order kept."""
    queue = queue_of(*sizes)
    taken = []
    while batch := queue.take_batch():
        taken.append(batch)
    assert [len(batch) for batch in taken] == batches
    assert [item.name for batch in taken for item in batch] == list(range(len(sizes)))
    assert len(queue) == 0


def test_a_full_queue_has_no_room() -> None:
    """By count and by bytes; an empty one always has, however large the item."""
    assert not queue_of(1, 1, 1, 1, 1).has_room(Item(1))
    assert queue_of(1, 1, 1, 1).has_room(Item(1))
    assert queue_of(100).has_room(Item(100))
    assert not queue_of(100).has_room(Item(101))
    assert queue_of().has_room(Item(10_000))
    with pytest.raises(AssertionError):
        queue_of(100).push(Item(101))


def test_taking_makes_room() -> None:
    """Bytes are given back."""
    queue = queue_of(90, 90)
    assert not queue.has_room(Item(90))
    queue.take_batch()
    assert queue.has_room(Item(90))
