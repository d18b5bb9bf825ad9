"""The one place that retries: counts, log lines and waits of a connection that comes and goes."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio

from fanout_drivers.backoff import LONG_MIN_S, PATIENCE_S, SHORT_CAP_S
from fanout_drivers.base import DriverCounters
from fanout_drivers.reconnecting import keep_connected
from khala_service.errors import DatabaseError, Unavailable
from khala_service.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


async def test_ten_minutes_without_a_broker(
    autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    """FD-04: capped exponential with jitter, then at most one attempt in 30 s; the log says the same."""
    del autojump_clock
    configure_logging("test")
    attempts: list[float] = []

    async def refused(connected: Callable[[], None]) -> None:
        if not attempts:
            connected()
        attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise Unavailable("broker_unreachable")

    counters = DriverCounters()
    with trio.move_on_after(600):
        await keep_connected(refused, driver="test", counters=counters, rng=random.Random(1).random)
    waits = [b - a for a, b in pairwise(attempts)]
    # Equal lines in a short (real) time are left out of a log, and counted there.
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in said[:3]] == ["broker_connected", "broker_lost", "broker_away"]
    lines = said[1:]
    for line, wait in zip(lines, waits, strict=False):
        assert line["reason"] == "broker_unreachable"
        assert line["retry_in_s"] == pytest.approx(wait, abs=0.001)
    late = [wait for at, wait in zip(attempts, waits, strict=False) if at >= PATIENCE_S]
    assert min(late) >= LONG_MIN_S
    assert max(wait for at, wait in zip(attempts, waits, strict=False) if at < PATIENCE_S) <= SHORT_CAP_S
    assert len(attempts) - 1 == counters.connect_failures < 120
    assert counters.connects == 1


@pytest.mark.parametrize("away_s", [100, 580, 600, 3_600])
async def test_a_broker_that_comes_late_is_found_soon(autojump_clock: MockClock, away_s: float) -> None:
    """KH-41: what was never connected tries often enough to be ready within 10 s of the broker's start."""
    del autojump_clock
    connected_at: list[float] = []

    async def session(connected: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < away_s:
            raise Unavailable("broker_unreachable")
        connected()
        connected_at.append(trio.current_time())
        await trio.sleep_forever()

    with trio.move_on_after(away_s + 10):
        await keep_connected(session, driver="test", counters=DriverCounters(), rng=lambda: 0.999)
    assert connected_at
    assert connected_at[0] < away_s + SHORT_CAP_S


async def test_a_connection_that_is_lost(
    autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    """Connections and failed attempts are counted apart, and each change is logged once."""
    del autojump_clock
    configure_logging("test")
    lives = iter([None, 5.0, None, 100.0])
    counters = DriverCounters()

    async def session(connected: Callable[[], None]) -> None:
        life_s = next(lives, None)
        if life_s is None:
            raise DatabaseError("3D000")
        connected()
        await trio.sleep(life_s)
        raise Unavailable("broker_connection_lost")

    with trio.move_on_after(120):
        await keep_connected(session, driver="test", counters=counters, rng=lambda: 1.0)
    events = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert events[:7] == [
        "broker_away",
        "broker_connected",
        "broker_lost",
        "broker_away",
        "broker_connected",
        "broker_lost",
        "broker_away",
    ]
    assert counters.connects == 2
    assert counters.connect_failures >= 3


async def test_a_mistake_is_not_retried() -> None:
    """Only trouble of the broker is: our own bug ends the process."""

    async def broken(connected: Callable[[], None]) -> None:
        del connected
        await trio.lowlevel.checkpoint()
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        await keep_connected(broken, driver="test", counters=DriverCounters(), rng=lambda: 0.0)
