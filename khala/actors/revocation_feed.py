"""Keeps the node's view of revocations current: polls control's log, at once when a hint says that it has grown.

One task. A hint carries nothing and is believed by nobody: it only moves the next poll forward, and however many
arrive there are at most ``1 / HINTED_POLL_INTERVAL_S`` polls a second (INV-27). Without any, rows come by the poll.
New rows are handed on in the step in which the view takes them: who is told of a row finds it in
the view.

A node that has not read the log to its head welcomes nobody; one whose view has not been confirmed for
``revocation_stale_after_s`` welcomes nobody new, and after ``revocation_close_after_s`` its sockets end, spread
over ``revocation_close_spread_s``, because it can no longer say that they may stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from khala.core.revocation_view import RETAINED_MS
from khala.ports import ControlUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from khala.core.limits import NodeLimits
    from khala.core.revocation_view import Revocation, RevocationPage, RevocationView
    from khala.ports import Clock, Rng

__all__ = ["RevocationFeed", "RevocationSource"]

RETRY_FIRST_S: Final = 0.25
# Between the beginnings of two polls. Longer: the second of two revocations waits for it. Shorter: whoever can
# hint makes every node ask control more often.
HINTED_POLL_INTERVAL_S: Final = 0.05


class RevocationSource(Protocol):
    """Control's log of revocations."""

    async def read_revocations(self, after_seq: int) -> RevocationPage:
        """Return the rows after a position.

        Raises:
            ControlUnavailableError: No answer; the same call may be repeated.
        """


class RevocationFeed:
    """The one reader of the log; ``run`` must be running."""

    def __init__(
        self,
        source: RevocationSource,
        view: RevocationView,
        *,
        limits: NodeLimits,
        clock: Clock,
        rng: Rng,
        on_revoked: Callable[[Sequence[Revocation]], None],
    ) -> None:
        """Read from ``source`` into ``view``; ``on_revoked`` is told of new rows and must not wait."""
        self._source = source
        self._view = view
        self._limits = limits
        self._clock = clock
        self._rng = rng
        self._on_revoked = on_revoked
        # Monotonic time of the start of the last poll that reached the head; what control committed before
        # it is in the view.
        self._confirmed_at = -float("inf")
        self._first_read = trio.Event()
        self._hinted = trio.Event()

    @property
    def staleness_s(self) -> float:
        """For how long the view has not been confirmed; infinite before it was for the first time."""
        return trio.current_time() - self._confirmed_at

    @property
    def may_welcome(self) -> bool:
        """Whether the view is fresh enough for new connections."""
        return self.staleness_s <= self._limits.revocation_stale_after_s

    async def wait_first_read(self) -> None:
        """Return once the log has been read to its head for the first time. Cancellation: safe."""
        await self._first_read.wait()

    def hint(self) -> None:
        """Poll soon: the log may have grown. Changes nothing while control is away: its retries go on."""
        self._hinted.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        retry_s = RETRY_FIRST_S
        while True:
            started_at = trio.current_time()
            # Before the read: a row that is committed while control answers may be above the head it names, and
            # its hint arrives meanwhile.
            self._hinted = trio.Event()
            try:
                await self._read_to_head()
            except ControlUnavailableError as error:
                wait_s = error.retry_after_s + retry_s * self._rng.random()
                retry_s = min(2 * retry_s, self._limits.revocation_poll_interval_s)
                await trio.sleep(wait_s)
                continue
            self._confirmed_at = started_at
            self._first_read.set()
            retry_s = RETRY_FIRST_S
            self._view.forget_before(round(self._clock.now() * 1000) - RETAINED_MS)
            with trio.move_on_after(self._limits.revocation_poll_interval_s):
                await self._hinted.wait()
            await trio.sleep_until(started_at + HINTED_POLL_INTERVAL_S)

    async def _read_to_head(self) -> None:
        while True:
            page = await self._source.read_revocations(self._view.applied_seq)
            try:
                is_at_head = self._view.apply(page)
            except ValueError as error:
                raise ControlUnavailableError(RETRY_FIRST_S) from error
            if page.revocations:
                self._on_revoked(page.revocations)
            if is_at_head:
                return
