"""Answers "may traffic come here?": named checks, run together, each with a time limit.

A process that is alive but cannot work (no database, wrong revision, draining) must say so, or a
load balancer keeps sending.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import attrs
import trio

from khala_service.errors import Unavailable
from khala_service.logs import get_logger

# Returns None if ready, else a stable lower-case word. Must be cheap: probes come every second.
ReadyCheck: TypeAlias = Callable[[], Awaitable[str | None]]

OK: Final = "ok"
# Longer: the prober gives up first and learns nothing. Shorter: one slow query takes us out.
CHECK_TIMEOUT_S: Final = 2.0
# Probes are not authenticated; answers are shared this long, so that they cannot load the database.
ANSWER_LIFETIME_S: Final = 0.2

_log = get_logger(__name__)


class Degraded(str):
    """A word for trouble that everybody may see and that takes nobody out of traffic."""

    __slots__ = ()


@attrs.frozen
class ReadyReport:
    """One answer: ready iff every check said "ok", or a word that is only degraded."""

    checks: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether every check agrees."""
        return all(answer == OK or isinstance(answer, Degraded) for answer in self.checks.values())


def make_drain_check(draining: trio.Event) -> ReadyCheck:
    """Return the check ``draining``: the first to fail when a service is told to end."""

    async def check_draining() -> str | None:
        return "draining" if draining.is_set() else None

    return check_draining


class Readiness:
    """Runs the checks of one service."""

    def __init__(self, checks: Mapping[str, ReadyCheck], *, timeout_s: float = CHECK_TIMEOUT_S) -> None:
        self._checks = checks
        self._timeout_s = timeout_s
        self._lock = trio.Lock()
        self._report = ReadyReport({})
        self._valid_until = float("-inf")

    async def report(self) -> ReadyReport:
        """Return the newest answer, at most ANSWER_LIFETIME_S old. Never raises but Cancelled."""
        async with self._lock:
            if trio.current_time() < self._valid_until:
                return self._report
            answers: dict[str, str] = dict.fromkeys(self._checks, "timeout")
            async with trio.open_nursery() as nursery:
                for name, check in self._checks.items():
                    nursery.start_soon(self._answer, name, check, answers)
            self._report = ReadyReport(answers)
            self._valid_until = trio.current_time() + ANSWER_LIFETIME_S
            return self._report

    async def _answer(self, name: str, check: ReadyCheck, answers: dict[str, str]) -> None:
        with trio.move_on_after(self._timeout_s):
            try:
                answers[name] = await check() or OK
            except Unavailable as error:
                answers[name] = error.reason
            except Exception:  # noqa: BLE001  # a broken check means not ready, never a dead process
                _log.exception("ready_check_failed", check=name)
                answers[name] = "failed"
