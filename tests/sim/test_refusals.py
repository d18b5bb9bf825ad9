"""An application that is refused some of its topics keeps the connection that its others come by."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from chaos.sim.refusals import ASK_AGAIN_S, Refusals
from khala.core.limits import NodeLimits
from khala.core.rate_limit import SlidingCount


@pytest.mark.parametrize("topics", [1, 2, 3, 4])
def test_no_node_ends_it(topics: int) -> None:
    """Ten minutes of refusals, whenever each topic begins to be asked for."""
    limits = NodeLimits()
    for seed in range(20):
        rng = Random(seed)
        refusals = Refusals()
        denials = SlidingCount(limits.denied_subscribes_max, limits.denied_subscribes_window_s)
        due = [rng.uniform(0.0, 90.0) for _ in range(topics)]
        heapq.heapify(due)
        while due[0] < 600.0:
            now = heapq.heappop(due) + rng.uniform(0.001, 0.1)
            assert not denials.exceeds(now), (seed, now)
            heapq.heappush(due, now + refusals.pause_s(now))


def test_a_topic_that_is_made_a_little_later_is_found_soon() -> None:
    """The first refusals cost a second each."""
    refusals = Refusals()
    assert [refusals.pause_s(float(now)) for now in range(8)] == [ASK_AGAIN_S] * 8
    assert refusals.pause_s(8.0) > ASK_AGAIN_S
