"""The supervisor on virtual time, with children that have no processes."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed
from khala.cli.failures import CommandFailed, leaves_of
from khala.cli.supervision import RestartPolicy
from khala.cli.supervisor import Supervisor
from tests.actors.khala_cli.fake_child import FakeChild, Life, Notes


async def keep_for(child: FakeChild, seconds: float) -> tuple[Notes, Supervisor]:
    """Keep a child for a while, then stop it."""
    notes, stop = Notes(), trio.Event()
    supervisor = Supervisor(RestartPolicy(), notes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.keep, child, stop)
        await trio.sleep(seconds)
        stop.set()
    return notes, supervisor


async def test_a_dead_child_is_started_again(autojump_clock: trio.testing.MockClock) -> None:
    """Killed twice, ready again each time: what happened is said, with the time that it was away."""
    child = FakeChild("runtime", [Life(dies_after_s=10), Life(dies_after_s=5), Life()])
    notes, supervisor = await keep_for(child, 30)
    assert notes.seen == [
        (0, "started", 101),
        (1, "ready", 101, 1),
        (10, "ended", 101, -9, False, ""),
        (10, "restarting", 101, 0.1),
        (pytest.approx(10.1), "started", 102),
        (pytest.approx(11.1), "ready", 102, pytest.approx(1.1)),
        (pytest.approx(15.1), "ended", 102, -9, False, ""),
        (pytest.approx(15.1), "restarting", 102, 0.2),
        (pytest.approx(15.3), "started", 103),
        (pytest.approx(16.3), "ready", 103, pytest.approx(1.2)),
        (30.5, "ended", 103, 0, True, ""),
    ]
    life = supervisor.lives["runtime"]
    assert (life.phase, life.restarts, child.alive) == ("stopped", 2, set())


async def test_a_child_that_cannot_live_is_tried_at_growing_intervals(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No crash loop: it takes ever longer, up to 5 s, and never ends."""
    child = FakeChild("node-1", [Life(dies_after_s=0.0, status=1)])
    await keep_for(child, 60)
    gaps = [later - earlier for earlier, later in zip(child.starts_s, child.starts_s[1:], strict=False)]
    assert gaps[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    assert gaps[6:] == pytest.approx([5.0] * len(gaps[6:]))
    assert len(gaps) > 12


async def test_a_refused_configuration_ends_the_system(autojump_clock: trio.testing.MockClock) -> None:
    """With its own words and its own status; the other children are ended by whoever waits for all."""
    other = FakeChild("runtime", [Life()])
    child = FakeChild("control", [Life(dies_after_s=2, status=78)], words="control.port: expected an integer")
    supervisor = Supervisor(RestartPolicy(), Notes())
    with pytest.raises(BaseExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.keep, other, trio.Event())
            nursery.start_soon(supervisor.keep, child, trio.Event())
    [failure] = leaves_of(raised.value)
    assert isinstance(failure, CommandFailed)
    assert (str(failure), failure.exit_status) == (
        "the process control refuses its configuration: control.port: expected an integer", 78,
    )  # fmt: skip
    assert (other.alive, child.alive) == (set(), set())


async def test_whoever_starts_a_child_waits_until_it_is_ready(autojump_clock: trio.testing.MockClock) -> None:
    """Also if it died before it was ready the first time; one that shall stop is waited for no longer."""
    stop = trio.Event()
    supervisor = Supervisor(RestartPolicy(), Notes())
    async with trio.open_nursery() as nursery:
        child = FakeChild("node-1", [Life(ready_after_s=9, dies_after_s=2), Life(ready_after_s=3)])
        await nursery.start(supervisor.keep, child, stop)
        assert trio.current_time() == pytest.approx(2 + 0.1 + 3)
        never = FakeChild("node-2", [Life(ready_after_s=1_000)])
        nursery.start_soon(partial(nursery.start, supervisor.keep, never, stop))
        await trio.sleep(1)
        stop.set()
    assert (child.alive, never.alive) == (set(), set())


@pytest.mark.parametrize("failure", [EmbeddedPostgresFailed("no room", status=-6), OSError("no room")])
async def test_a_first_start_that_fails_is_everybodys_failure(
    failure: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing was served yet: the person who started the system reads why."""
    child = FakeChild("postgres", [Life(fails=failure)])
    with pytest.raises(BaseExceptionGroup) as raised:
        await keep_for(child, 10)
    assert leaves_of(raised.value) == [failure]
    assert len(child.starts_s) == 1


async def test_a_later_start_that_fails_is_a_death_like_any_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A database that was killed while it recovered: its status is the signal, and it is tried again."""
    killed = EmbeddedPostgresFailed("PostgreSQL ended at once", status=-9)
    full = OSError("no room")
    script = [Life(dies_after_s=5), Life(fails=killed), Life(fails=full), Life()]
    child = FakeChild("postgres", script)
    notes, supervisor = await keep_for(child, 30)
    ends = [note[3:] for note in notes.seen if note[1] == "ended"]
    assert ends == [(-9, False, ""), (-9, False, str(killed)), (1, False, "no room"), (0, True, "")]
    assert child.starts_s == pytest.approx([0, 5, 5.2, 5.6], abs=0.11)
    assert supervisor.lives["postgres"].phase == "stopped"


async def test_a_child_that_shall_stop_while_it_waits_is_not_started_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The end of the system does not wait for a delay."""
    child = FakeChild("node-1", [Life(ready_after_s=0.5, dies_after_s=1)])
    notes, _ = await keep_for(child, 1.05)
    assert (len(child.starts_s), trio.current_time()) == (1, 1.05)
    assert [note[1] for note in notes.seen] == ["started", "ready", "ended", "restarting"]


async def test_a_start_that_takes_long_does_not_hold_up_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A database that still recovers when everything shall stop is not waited for."""
    child = FakeChild("postgres", [Life(dies_after_s=1), Life(opens_after_s=60)])
    notes, supervisor = await keep_for(child, 5)
    assert trio.current_time() == 5
    assert child.alive == set()
    assert notes.seen[-1] == (5, "ended", 102, 0, True, "")
    assert supervisor.lives["postgres"].phase == "stopped"


async def test_cancelling_leaves_no_process(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever it does at the moment: starting, ready, or ending."""
    for moment_s in (0.5, 2.0, 3.2):
        child, stop = FakeChild("node-1", [Life()]), trio.Event()
        supervisor = Supervisor(RestartPolicy(), Notes())
        with trio.move_on_after(moment_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.keep, child, stop)
                await trio.sleep(3)
                stop.set()
        assert child.alive == set()
