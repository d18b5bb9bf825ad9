"""Tasks that crash are started again: with pauses, counted, and never with their neighbours."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala_service.logs import configure_logging
from khala_service.supervision import RESTART_FIRST_S, RESTART_MAX_S, supervise


def _none() -> list[str]:
    return []


@attrs.define
class Fragile:
    """A task that crashes after so many seconds, so many times; then it serves, or ends."""

    crashes: int
    lasts_s: float = 0.0
    ends: bool = False
    starts: list[float] = attrs.field(factory=list)
    crashes_before_start: bool = False

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.starts.append(trio.current_time())
        if self.crashes and self.crashes_before_start:
            self.crashes -= 1
            raise OSError("not yet")
        task_status.started()
        await trio.sleep(self.lasts_s)
        if self.crashes:
            self.crashes -= 1
            raise RuntimeError("a bug")
        if not self.ends:
            await trio.sleep_forever()


async def test_pauses_double_up_to_a_limit(autojump_clock: MockClock) -> None:
    """INV-21: no task crashes in a loop: 0.1, 0.2, ... 10 s lie between the starts."""
    fragile, restarts = Fragile(crashes=12), _none()
    with trio.move_on_after(1_000):
        await supervise("fragile", fragile.serve, restarted=restarts.append)
    pauses = [later - earlier for earlier, later in zip(fragile.starts, fragile.starts[1:], strict=False)]
    expected = [min(RESTART_FIRST_S * 2**index, RESTART_MAX_S) for index in range(12)]
    assert pauses == pytest.approx(expected)
    assert restarts == ["fragile"] * 12


async def test_a_task_that_had_worked_starts_at_once(autojump_clock: MockClock) -> None:
    """After RESTART_MAX_S of work the pause is the first again."""
    fragile, restarts = Fragile(crashes=5, lasts_s=RESTART_MAX_S), _none()
    with trio.move_on_after(1_000):
        await supervise("fragile", fragile.serve, restarted=restarts.append)
    pauses = [later - earlier for earlier, later in zip(fragile.starts, fragile.starts[1:], strict=False)]
    assert pauses == pytest.approx([RESTART_MAX_S + RESTART_FIRST_S] * 5)


async def test_neighbours_do_not_notice(autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]) -> None:
    """ARC-13: a crash ends nothing else, and the log has its kind and its stack."""
    configure_logging("test")
    fragile, steady, restarts = Fragile(crashes=3), Fragile(crashes=0), _none()
    async with trio.open_nursery() as nursery:
        for kind, task in (("fragile", fragile), ("steady", steady)):

            async def start(
                *, task_status: trio.TaskStatus[None], kind: str = kind, task: Fragile = task
            ) -> None:
                await supervise(kind, task.serve, restarted=restarts.append, task_status=task_status)

            await nursery.start(start)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert (len(fragile.starts), len(steady.starts)) == (4, 1)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["event"], line["level"], line["kind"]) for line in lines] == [
        ("task_crashed", "error", "fragile")
    ] * 3
    assert all("RuntimeError: a bug" in line["exception"] for line in lines)


async def test_started_once_it_has_started(autojump_clock: MockClock) -> None:
    """Whoever starts a task waits through its first crashes."""
    fragile, restarts = Fragile(crashes=2, crashes_before_start=True), _none()
    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[None]) -> None:
            await supervise("fragile", fragile.serve, restarted=restarts.append, task_status=task_status)

        await nursery.start(start)
        assert trio.current_time() == pytest.approx(fragile.starts[0] + RESTART_FIRST_S * 3)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_task_that_has_ended_stays_ended(autojump_clock: MockClock) -> None:
    """Returning is no crash."""
    fragile, restarts = Fragile(crashes=0, ends=True), _none()
    await supervise("fragile", fragile.serve, restarted=restarts.append)
    assert (len(fragile.starts), restarts) == (1, [])
