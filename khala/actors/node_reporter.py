"""One task that tells the runtime, every few seconds, how this node does.

For operators: the runtime adds up the reports of all nodes (its fan-out metrics). Nothing waits for it, nothing
depends on it: a report that cannot be given is counted, and the next one says everything again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from khala.core.fanout_figures import NodeStatus, choose_topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from khala.actors.fanout_looks import FanoutLooks
    from khala.core.counters import NodeCounters
    from khala.core.fanout_figures import FairnessSums, TopicFigures

__all__ = ["REPORT_EVERY_S", "FanoutReport", "NodeReporter", "NodeReports", "ReportRefusedError"]

# A third of the time after which the runtime misses one. Shorter: more of its time for the same picture.
REPORT_EVERY_S: Final = 5.0
# One attempt; it must be over before the next report is due.
ATTEMPT_TIMEOUT_S: Final = 3.0
# A node that leaves says so; whoever waits for its end waits no longer than this for it.
LAST_WORDS_S: Final = 0.5


@attrs.frozen(kw_only=True)
class FanoutReport:
    """One report; the totals are read from the counters when it is sent.

    Attributes:
        uptime_s: Since the reporter was made, which is when the node started.
    """

    status: NodeStatus
    uptime_s: float
    counters: NodeCounters
    fairness: FairnessSums
    topics: list[TopicFigures]


class ReportRefusedError(Exception):
    """The runtime did not take a report; ``outcome`` is a word for the counter: ``unavailable`` or ``refused``."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class NodeReports(Protocol):
    """Takes reports; see adapters/runtime_http.py."""

    async def send(self, report: FanoutReport) -> None:
        """Give a report.

        Raises:
            ReportRefusedError: It was not taken; nothing is lost but this picture.
        """


class NodeReporter:
    """Reports for one node; ``run`` is its task."""

    def __init__(
        self,
        reports: NodeReports,
        looks: FanoutLooks,
        *,
        counters: NodeCounters,
        draining: trio.Event,
        read_checks: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        """Report to ``reports`` what ``looks`` sees.

        ``read_checks`` returns the failing checks of readiness, with their word.
        """
        self._reports = reports
        self._looks = looks
        self._counters = counters
        self._draining = draining
        self._read_checks = read_checks
        self._started_at = trio.current_time()
        # One report at a time, and none after the last words: it would make a node of one that has left.
        self._turn = trio.Lock()
        self._has_left = False

    async def run(self) -> None:
        """Report until cancelled: at once, every REPORT_EVERY_S, and when draining begins."""
        was_draining = False
        while True:
            was_draining = was_draining or self._draining.is_set()
            await self.report()
            with trio.move_on_after(REPORT_EVERY_S):
                if was_draining:
                    await trio.sleep_forever()
                await self._draining.wait()

    async def say_last_words(self) -> None:
        """Say that this node leaves, for LAST_WORDS_S at most. Cancellation: safe; it will be missed instead."""
        with trio.move_on_after(LAST_WORDS_S):
            await self.report(is_leaving=True)

    async def report(self, *, is_leaving: bool = False) -> None:
        """Look, and report once; nothing after the report that this node leaves."""
        async with self._turn:
            if not self._has_left:
                self._has_left = is_leaving
                await self._report(is_leaving=is_leaving)

    async def _report(self, *, is_leaving: bool) -> None:
        look = await self._looks.look()
        status = NodeStatus(
            is_draining=self._draining.is_set(),
            is_leaving=is_leaving,
            not_ready={} if is_leaving else await self._read_checks(),
        )
        report = FanoutReport(
            status=status,
            uptime_s=trio.current_time() - self._started_at,
            counters=self._counters,
            fairness=look.fairness,
            topics=choose_topics(look.topics),
        )
        outcome = "unavailable"
        try:
            with trio.move_on_after(ATTEMPT_TIMEOUT_S):
                await self._reports.send(report)
                outcome = "sent"
        except ReportRefusedError as refused:
            outcome = refused.outcome
        self._counters.reports[outcome] += 1
