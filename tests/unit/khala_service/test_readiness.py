"""Readiness checks: together, bounded, shared. Virtual time."""

import pytest
import trio
from trio.testing import MockClock

from khala_service.errors import Unavailable
from khala_service.readiness import (
    ANSWER_LIFETIME_S,
    CHECK_TIMEOUT_S,
    Degraded,
    Readiness,
    make_drain_check,
)


async def _fine() -> str | None:
    return None


async def _draining() -> str | None:
    return "draining"


async def _away() -> str | None:
    raise Unavailable("database_unreachable")


async def _broken() -> str | None:
    raise RuntimeError("bug")


async def _stuck() -> str | None:
    await trio.sleep(3600)
    return None


async def test_words(autojump_clock: MockClock) -> None:
    """Ready iff every check agrees; each gives its word, a bug gives "failed"."""
    assert (await Readiness({}).report()).is_ready
    assert (await Readiness({"a": _fine}).report()).is_ready
    report = await Readiness({"a": _fine, "b": _draining, "c": _away, "d": _broken}).report()
    assert not report.is_ready
    assert report.checks == {
        "a": "ok",
        "b": "draining",
        "c": "database_unreachable",
        "d": "failed",
    }


async def test_a_stuck_check_costs_its_time_limit_once(autojump_clock: MockClock) -> None:
    """Checks run together: two that hang take as long as one."""
    started = trio.current_time()
    report = await Readiness({"a": _stuck, "b": _stuck, "c": _fine}).report()
    assert report.checks == {"a": "timeout", "b": "timeout", "c": "ok"}
    assert trio.current_time() - started == pytest.approx(CHECK_TIMEOUT_S)


async def test_answers_are_shared(autojump_clock: MockClock) -> None:
    """Probes of one moment run the checks once; a later one runs them again."""
    runs = 0

    async def counted() -> str | None:
        nonlocal runs
        runs += 1
        await trio.sleep(0.01)
        return None

    readiness = Readiness({"a": counted})
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(readiness.report)
    assert runs == 1
    await trio.sleep(ANSWER_LIFETIME_S)
    await readiness.report()
    assert runs == 2


async def _degraded() -> str | None:
    return Degraded("disconnected")


async def test_degraded_is_said_and_takes_nobody_out(autojump_clock: MockClock) -> None:
    """The word is shown; the service stays ready unless another check disagrees."""
    report = await Readiness({"a": _degraded, "b": _fine}).report()
    assert report.is_ready
    assert report.checks == {"a": "disconnected", "b": "ok"}
    assert not (await Readiness({"a": _degraded, "b": _draining}).report()).is_ready


async def test_draining_is_said_from_the_moment_of_the_request() -> None:
    """It waits for nothing: no dependency, no request in flight."""
    draining = trio.Event()
    check = make_drain_check(draining)
    assert await check() is None
    draining.set()
    assert await check() == "draining"
