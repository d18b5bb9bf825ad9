"""Unit tests of khala.cli.supervision."""

from __future__ import annotations

import signal

import pytest

from khala.cli.supervision import ChildLife, GiveUp, Restart, RestartPolicy, describe_end, what_was_lost

POLICY = RestartPolicy(first_s=0.1, max_s=5.0, stable_s=60.0)


def test_each_death_doubles_the_delay_up_to_its_limit() -> None:
    """0.1 s, doubling, 5 s at most: however often it dies, somebody tries again."""
    life, delays = ChildLife("node-1"), []
    for number in range(9):
        life = life.started(100 + number, now_s=float(number))
        life, verdict = life.ended(-9, number + 0.5, POLICY)
        assert isinstance(verdict, Restart)
        assert (life.phase, life.delay_s) == ("waiting", verdict.delay_s)
        delays.append(verdict.delay_s)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    assert (life.pid, life.restarts) == (108, 8)


@pytest.mark.parametrize(("lived_s", "delay_s"), [(59.9, 1.6), (60.0, 0.1)])
def test_a_stable_life_is_forgiven(lived_s: float, delay_s: float) -> None:
    """At the limit the next death counts as a first one, just below it does not."""
    life = ChildLife("runtime", phase="waiting", delay_s=0.8, restarts=4).started(7, now_s=1_000.0)
    _, verdict = life.became_ready().ended(1, 1_000.0 + lived_s, POLICY)
    assert verdict == Restart(delay_s)


def test_a_refused_configuration_is_not_tried_again() -> None:
    """Status 78 ends the system; every other status is a death."""
    life = ChildLife("control").started(7, now_s=0.0)
    ended, verdict = life.ended(78, 1.0, POLICY)
    assert (verdict, ended.phase, ended.is_alive) == (GiveUp(), "stopped", False)
    for status in (0, 1, 2, 77, 79, -15):
        assert isinstance(life.ended(status, 1.0, POLICY)[1], Restart)


def test_phases_follow_the_process() -> None:
    """Starting until it says that it is ready; only a start after a death counts as a restart."""
    life = ChildLife("node-1").started(7, now_s=0.0)
    assert (life.phase, life.is_alive, life.restarts) == ("starting", True, 0)
    # A server may be launched twice for one start: its port was taken by somebody.
    assert life.started(8, now_s=0.1).restarts == 0
    assert life.became_ready().phase == "running"
    waiting, _ = life.became_ready().ended(-9, 1.0, POLICY)
    assert (waiting.is_alive, waiting.started(9, now_s=2.0).restarts) == (False, 1)
    assert life.stopped().phase == "stopped"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-63, "was killed by signal 63"),
    ],
)
def test_an_end_is_described(status: int, said: str) -> None:
    """By exit status, or by the name of the signal if it has one."""
    assert describe_end(status) == said


def test_what_a_death_costs_is_said_for_every_kind_of_child() -> None:
    """Never an acknowledged event; each kind has a sentence of its own."""
    names = ("postgres", "nats", "control", "runtime", "node-12")
    said = [what_was_lost(name) for name in names]
    assert len(set(said)) == len(names)
    assert what_was_lost("node-1") == what_was_lost("node-2")
    assert "every acknowledged event is in the database" in what_was_lost("runtime")
    assert what_was_lost("other") == "it holds nothing"
