"""Asking a process of a running system to leave, and seeing how it does: OPS-12, from outside."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs
import httpx

from chaos.drills.waiting import wait_until

if TYPE_CHECKING:
    from chaos.drills.split_system import SplitSystem

__all__ = ["DRAIN_LIMIT_S", "READINESS_LIMIT_S", "Leaving", "Left", "ask_to_leave"]

# SPEC section 6, and OPS-12.
DRAIN_LIMIT_S: Final = 30.0
READINESS_LIMIT_S: Final = 1.0
_NOT_READY: Final = 503
_GIVE_UP_S: Final = 2 * DRAIN_LIMIT_S


@attrs.frozen
class Left:
    """How a process left.

    Attributes:
        not_ready_after_s: From SIGTERM to the first ``/readyz`` that was not 200.
        not_ready_status: What that was; 0: nobody answered any more.
        seconds: From SIGTERM to its end, as the supervisor saw it.
        status: Its exit status.
        back_after_s: From its end to the readiness of its successor.
    """

    name: str
    not_ready_after_s: float
    not_ready_status: int
    seconds: float
    status: int
    back_after_s: float

    @property
    def is_orderly(self) -> bool:
        """Whether it left as it should: readiness first, status 0, in time.

        A node with little to say is gone before anybody can see that it is not ready: nobody answers, and it has ended.
        """
        is_gone = self.not_ready_status == 0 and self.seconds <= READINESS_LIMIT_S
        return (
            (self.not_ready_status == _NOT_READY or is_gone)
            and self.not_ready_after_s <= READINESS_LIMIT_S
            and self.status == 0
            and self.seconds <= DRAIN_LIMIT_S
        )


@attrs.define
class Leaving:
    """A process that is leaving. Made by ``ask_to_leave``."""

    _system: SplitSystem
    _name: str
    pid: int
    _began: float = attrs.field(factory=time.monotonic, init=False)
    _not_ready: tuple[float, int] | None = attrs.field(default=None, init=False)

    def is_not_ready(self) -> bool:
        """Whether it has said, by now, that it is not ready; to be asked at once and often."""
        if self._not_ready is None:
            status = _readiness(self._system, self._name)
            if status != httpx.codes.OK:
                self._not_ready = time.monotonic() - self._began, status
        return self._not_ready is not None

    def wait_replaced(self) -> Left:
        """Return once its successor is ready.

        Raises:
            DrillFailed: It does not end at all, or nobody comes after it.
        """
        system, pid = self._system, self.pid

        def has_ended() -> bool:
            system.look()
            return pid in system.ends

        wait_until(self.is_not_ready, timeout_s=_GIVE_UP_S, what=f"{self._name} is not ready")
        wait_until(has_ended, timeout_s=_GIVE_UP_S, what=f"{self._name} ({pid}) ends")
        seconds = time.monotonic() - self._began
        assert self._not_ready is not None
        back_after_s = system.wait_ready(self._name, besides=pid)
        return Left(self._name, *self._not_ready, seconds, system.ends[pid].status, back_after_s)


def ask_to_leave(system: SplitSystem, name: str, *, is_asked: bool = True) -> Leaving:
    """Send SIGTERM to the running process of a name, unless the drill does no harm."""
    leaving = Leaving(system, name, system.pid(name))
    if is_asked:
        os.kill(leaving.pid, signal.SIGTERM)
    return leaving


def _readiness(system: SplitSystem, name: str) -> int:
    with suppress(httpx.TransportError):
        return system.admin_get(name, "/readyz").status_code
    return 0
