"""RT-15: when a node reports, what it says while it drains and leaves, and that nothing depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala.actors.fanout_looks import FanoutLooks
from khala.actors.node_reporter import REPORT_EVERY_S, NodeReporter, ReportRefusedError
from khala.core.counters import NodeCounters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from khala.actors.node_reporter import FanoutReport


@attrs.define
class FakeReports:
    """Takes reports, or fails in one of the ways in which a runtime fails."""

    taken: list[tuple[float, FanoutReport]] = attrs.field(factory=list)
    outcome: str = ""
    answers_after_s: float = 0.0

    async def send(self, report: FanoutReport) -> None:
        """See NodeReports."""
        await trio.sleep(self.answers_after_s)
        if self.outcome:
            raise ReportRefusedError(self.outcome)
        self.taken.append((trio.current_time(), report))

    def statuses(self) -> list[tuple[float, bool, bool]]:
        """Return time, draining and leaving of each report."""
        return [(at, report.status.is_draining, report.status.is_leaving) for at, report in self.taken]


@attrs.define
class Reporting:
    """A reporter and what it works with."""

    reports: FakeReports = attrs.field(factory=FakeReports)
    counters: NodeCounters = attrs.field(factory=NodeCounters)
    draining: trio.Event = attrs.field(factory=trio.Event)
    failing: dict[str, str] = attrs.field(factory=dict)

    def reporter(self) -> NodeReporter:
        """Return the reporter."""

        async def read_checks() -> Mapping[str, str]:
            return dict(self.failing)

        return NodeReporter(
            self.reports,
            FanoutLooks(),
            counters=self.counters,
            draining=self.draining,
            read_checks=read_checks,
        )


async def test_at_once_and_then_regularly(autojump_clock: MockClock) -> None:
    """The first report does not wait; then one every REPORT_EVERY_S."""
    world = Reporting()
    with trio.move_on_at(2 * REPORT_EVERY_S + 1):
        await world.reporter().run()
    assert [at for at, _, _ in world.reports.statuses()] == [0.0, REPORT_EVERY_S, 2 * REPORT_EVERY_S]
    assert world.counters.reports == {"sent": 3}


async def test_what_is_not_ready_is_told(autojump_clock: MockClock) -> None:
    """The failing checks, with their word, as they are at each report."""
    world = Reporting(failing={"fanout": "unavailable"})
    reporter = world.reporter()
    await reporter.report()
    world.failing.clear()
    await reporter.report()
    assert [report.status.not_ready for _, report in world.reports.taken] == [{"fanout": "unavailable"}, {}]


async def test_draining_is_told_at_once(autojump_clock: MockClock) -> None:
    """Not at the next interval: whoever watches a rollout sees it when it begins; and regularly from then on."""
    world = Reporting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reporter().run)
        await trio.sleep(1)
        world.draining.set()
        await trio.sleep(REPORT_EVERY_S + 1)
        nursery.cancel_scope.cancel()
    assert world.reports.statuses() == [
        (0.0, False, False), (1.0, True, False), (1.0 + REPORT_EVERY_S, True, False),
    ]  # fmt: skip


async def test_nothing_follows_the_last_words(autojump_clock: MockClock) -> None:
    """A report that overtook them would make a node of one that has left."""
    world = Reporting()
    reporter = world.reporter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        await trio.sleep(1)
        await reporter.say_last_words()
        await trio.sleep(3 * REPORT_EVERY_S)
        nursery.cancel_scope.cancel()
    assert [leaving for _, _, leaving in world.reports.statuses()] == [False, True]


async def test_last_words_wait_for_nobody(autojump_clock: MockClock) -> None:
    """A runtime that does not answer delays a node's end by half a second."""
    world = Reporting(reports=FakeReports(answers_after_s=60.0))
    await world.reporter().say_last_words()
    assert trio.current_time() == 0.5


async def test_a_runtime_that_is_away(autojump_clock: MockClock) -> None:
    """Counted by what became of each report; the next one is sent at its time, and says everything again."""
    world = Reporting(reports=FakeReports(outcome="unavailable"))
    with trio.move_on_at(REPORT_EVERY_S + 1):
        await world.reporter().run()
    world.reports.outcome = "refused"
    await world.reporter().report()
    world.reports.outcome, world.reports.answers_after_s = "", 60.0
    await world.reporter().report()
    assert world.counters.reports == {"unavailable": 3, "refused": 1}
    assert world.reports.taken == []
