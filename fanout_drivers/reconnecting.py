"""One connection to a broker, kept open: the one place that retries.

A driver says what a session is, from login to loss; this loop runs sessions one after the other, with
the waiting times of ``backoff.py``, and counts and logs each change. A log line names the driver, a
reason and the next attempt, never a server's address, user or password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from fanout_drivers.backoff import PATIENCE_S, Backoff
from khala_service.errors import DatabaseError, Unavailable
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fanout_drivers.base import DriverCounters

__all__ = ["Session", "keep_connected"]

_log = get_logger(__name__)


class Session(Protocol):
    """One attempt and, if it succeeds, the life of its connection."""

    def __call__(self, connected: Callable[[], None], /) -> Awaitable[None]:
        """Connect, call ``connected`` once, serve.

        Raises:
            Unavailable, DatabaseError: No connection, or it was lost. It never returns otherwise.
        """


async def keep_connected(
    session: Session,
    *,
    driver: str,
    counters: DriverCounters,
    rng: Callable[[], float],
    patience_s: float = PATIENCE_S,
) -> None:
    """Run sessions until cancelled.

    Args:
        session: One connection.
        driver: Name for the log.
        counters: Counts connections and failed attempts, and says why there is none.
        rng: Returns a number in [0, 1); the jitter.
        patience_s: After so long without a connection, once there was one, attempts become rare;
            ``math.inf``: they never do.
    """
    backoff = Backoff(rng, trio.current_time(), patience_s)
    while True:
        was_connected = False

        def connected() -> None:
            nonlocal was_connected
            was_connected = True
            backoff.connected(trio.current_time())
            counters.connects += 1
            counters.trouble = ""
            _log.info("broker_connected", driver=driver)

        reason = "ended"
        try:
            await session(connected)
        except Unavailable as error:
            reason = error.reason
        except DatabaseError as error:
            reason = f"sqlstate {error.sqlstate}"
        if not was_connected:
            counters.connect_failures += 1
        counters.trouble = reason
        now = trio.current_time()
        backoff.lost(now)
        delay_s = backoff.next_delay_s(now)
        _log.warning(
            "broker_lost" if was_connected else "broker_away",
            driver=driver,
            reason=reason,
            retry_in_s=round(delay_s, 3),
        )
        await trio.sleep(delay_s)
