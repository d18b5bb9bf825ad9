"""CL-02: 1,000 clients cut at once, as far as their cores decide it; whole clients: tests/actors/khala_client/test_reconnects.py."""

from __future__ import annotations

import heapq
from random import Random
from typing import TYPE_CHECKING

import pytest

from khala.core.admission import Admission, Admitted
from khala.core.limits import NodeLimits
from khala_client.core.protocol import Identity
from khala_client.core.sync import Reconnect, SyncMachine
from khala_client.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 1_000


def come_back(judge: Callable[[float], int | None]) -> tuple[list[float], int]:
    """Cut everybody at 0; return when each was let in, and how many attempts that took.

    Args:
        judge: Called at each attempt: None lets the client in, 0 is no answer, else it is told to wait so many ms.
    """
    machines = [SyncMachine(Identity("dev_00000001", "0.1.0"), rng=Random(number)) for number in range(COUNT)]
    due: list[tuple[float, int]] = []

    def decide(number: int, now_s: float, decision: object) -> None:
        assert isinstance(decision, Reconnect)
        heapq.heappush(due, (now_s + decision.delay_s, number))

    for number, machine in enumerate(machines):
        decide(number, 0.0, machine.disconnected(None, 0.0))
    back, attempts = [], 0
    while due:
        now_s, number = heapq.heappop(due)
        attempts += 1
        told_ms = judge(now_s)
        if told_ms is None:
            back.append(now_s)
        else:
            decide(number, now_s, machines[number].connect_failed(Unavailable("no", retry_after_ms=told_ms)))
    return back, attempts


def largest_bin(times: list[float]) -> float:
    """Return the largest share of one second, in bins from 0."""
    bins = [0] * (int(max(times)) + 1)
    for at in times:
        bins[int(at)] += 1
    return max(bins) / len(times)


@pytest.mark.parametrize("away_s", [15.0, 30.0, 60.0])
def test_a_node_that_was_away_is_not_stormed(away_s: float) -> None:
    """No second holds more than 15 % of those who come back, and all do within the ceiling of their waits."""
    back, attempts = come_back(lambda now_s: None if now_s >= away_s else 0)
    assert len(back) == COUNT
    assert largest_bin([at - away_s for at in back]) <= 0.15
    assert max(back) <= away_s + 30
    # Few in vain: a wait doubles each time.
    assert attempts <= 12 * COUNT


@pytest.mark.parametrize("per_s", [50.0, 100.0, 140.0])
def test_turns_of_a_node_are_kept(per_s: float) -> None:
    """A door that admits this many: each who is told a time comes at it, so that the rate is used up and never passed."""
    door = Admission(NodeLimits(admission_per_s=per_s, admission_burst=5), now=0.0)

    def judge(now_s: float) -> int | None:
        verdict = door.decide(now_s, handshakes_open=0, telling=0)
        return None if isinstance(verdict, Admitted) else verdict.retry_after_ms

    back, attempts = come_back(judge)
    assert len(back) == COUNT
    assert largest_bin(back) <= 0.15
    assert COUNT / per_s - 1 <= max(back) <= COUNT / per_s + 2
    assert attempts <= 2.2 * COUNT
