"""Group commit: many requests, one transaction. Owns the inbox and the two writers.

Started by app.py once the runtime has its authority; stops after the HTTP server. Callers hand in
submissions and wait; two writers (writer.py) take what is there and commit it. A submission goes to the
writer of its first topic, so one topic's arrival order is its commit order. No timer: the previous commit
is the timer.

Invariants:
1. At most ``inbox_requests_max`` requests and ``inbox_bytes_max`` bytes are between `submit` and
   their outcome (INV-7); one more is refused at once, with nothing started for it.
2. A submission that was taken is answered, whatever happens: committed, refused, or unavailable with
   ``outcome=unknown`` if nobody can know.
3. A caller that leaves only stops waiting: its submission is committed all the same.

Decisions: core/decisions.py. What is locked and remembered: core/batch_commit.py.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final
from zlib import crc32

import attrs
import trio

from khala_service.errors import Unavailable
from khala_service.logs import get_logger
from khala_service.supervision import supervise
from runtime.actors.writer import SUPERSEDED, Writer, refuse_all
from runtime.core.batch import take_batch
from runtime.core.outcomes import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.actors.relay import Relay
    from runtime.core.commands import Submission
    from runtime.core.limits import RuntimeLimits
    from runtime.core.outcomes import Outcome
    from runtime.core.rate_limit import RateLimiter
    from runtime.ports import AppendMetrics, Authority, JournalStore

__all__ = ["WRITERS", "Appender"]

# One writer would leave the database idle while Python decides; more than two fight for the same
# heads and the same two cores.
WRITERS: Final = 2
# A full inbox drains within a second at any sustainable rate.
INBOX_RETRY_AFTER_S: Final = 1.0
# The connection is dropped after this, whatever the server says.
CLOSE_TIMEOUT_S: Final = 5.0

_log = get_logger(__name__)


@attrs.define(eq=False)
class _Waiting:
    """A submission between `submit` and its outcome."""

    submission: Submission
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcomes: tuple[Outcome, ...] = ()
    error: Unavailable | None = None


class _Inbox:
    """What waits for one writer."""

    def __init__(self) -> None:
        self.entries: deque[_Waiting] = deque()
        self._has_work = trio.Event()

    def put(self, waiting: _Waiting) -> None:
        self.entries.append(waiting)
        self._has_work.set()

    async def wait_work(self) -> None:
        while not self.entries:
            self._has_work = trio.Event()
            await self._has_work.wait()


class Appender:
    """The one way in for everything that is written."""

    def __init__(
        self,
        store: JournalStore,
        relay: Relay,
        *,
        limits: RuntimeLimits,
        limiter: RateLimiter,
        metrics: AppendMetrics,
    ) -> None:
        self._store = store
        self._relay = relay
        # None: not serving. Nothing may be accepted without a generation to commit under.
        self._authority: Authority | None = None
        self._limits = limits
        self._limiter = limiter
        self._metrics = metrics
        self._inboxes = [_Inbox() for _ in range(WRITERS)]
        self._inbox_requests = 0
        self._inbox_bytes = 0
        self._is_superseded = False
        self._running = 0

    @property
    def authority(self) -> Authority | None:
        """What is committed under; None while not serving."""
        return self._authority

    @property
    def is_superseded(self) -> bool:
        """Whether another runtime has taken over; final."""
        return self._is_superseded

    @property
    def is_running(self) -> bool:
        """Whether every writer is serving."""
        return self._running == WRITERS

    @property
    def inbox_requests(self) -> int:
        """Requests between `submit` and their outcome."""
        return self._inbox_requests

    @property
    def inbox_bytes(self) -> int:
        """Payload bytes between `submit` and their outcome."""
        return self._inbox_bytes

    def supersede(self) -> None:
        """Stop accepting: another runtime has taken over."""
        if not self._is_superseded:
            _log.error("superseded", generation=self._authority.generation if self._authority else 0)
        self._is_superseded = True

    async def submit(self, submission: Submission) -> tuple[Outcome, ...]:
        """Return the outcome of each request, once it is durable or known not to be.

        Raises:
            Unavailable: not serving (yet, or any more), the inbox is full (retry after
                ``retry_after_s``), the database does not answer in ``commit_deadline_s``;
                ``outcome_unknown`` if it may be committed.
        Cancellation: only stops the waiting; the submission is decided and committed all the same.
        """
        if self._is_superseded:
            return refuse_all(submission, SUPERSEDED)
        if self._authority is None:
            raise Unavailable("not_serving")
        count = len(submission.requests)
        limits = self._limits
        for limit, used in (
            (("inbox_requests_max", limits.inbox_requests_max), self._inbox_requests + count),
            (("inbox_bytes_max", limits.inbox_bytes_max), self._inbox_bytes + submission.size_bytes),
        ):
            if used > limit[1]:
                raise Unavailable("inbox_full", INBOX_RETRY_AFTER_S, limit=limit)
        waiting = _Waiting(submission)
        self._inbox_requests += count
        self._inbox_bytes += submission.size_bytes
        topic = submission.requests[0].first_topic
        self._inboxes[crc32(topic.encode()) % WRITERS].put(waiting)
        await waiting.answered.wait()
        error = waiting.error
        if error is not None:
            # Its own instance for each caller: a batch shares the original.
            raise Unavailable(
                error.reason, error.retry_after_s, outcome_unknown=error.outcome_unknown
            ) from error
        return waiting.outcomes

    async def serve(
        self, authority: Authority, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept, and commit under this authority, until cancelled.

        Cancellation: a batch in flight is rolled back or its COMMIT awaited; what still waits is
        answered with Unavailable.
        """
        self._authority = authority
        try:
            async with trio.open_nursery() as nursery:
                for inbox in self._inboxes:
                    serve_inbox = partial(self._serve_inbox, inbox, authority)
                    await nursery.start(
                        partial(supervise, "writer", serve_inbox, restarted=self._metrics.task_restarted)
                    )
                task_status.started()
        finally:
            self._authority = None
            for inbox in self._inboxes:
                while inbox.entries:
                    self._settle(inbox.entries.popleft(), error=Unavailable("draining"))

    async def _serve_inbox(
        self, inbox: _Inbox, authority: Authority, *, task_status: trio.TaskStatus[None]
    ) -> None:
        writer = Writer(
            self._store,
            self._relay,
            authority=authority,
            limits=self._limits,
            limiter=self._limiter,
            metrics=self._metrics,
            supersede=self.supersede,
        )
        self._running += 1
        batch: list[_Waiting] = []

        def answer(index: int, outcomes: Sequence[Outcome] = (), error: Unavailable | None = None) -> None:
            self._settle(batch[index], outcomes, error)

        reason = "draining"
        task_status.started()
        try:
            while True:
                await inbox.wait_work()
                batch = take_batch(inbox.entries, self._limits)
                await writer.commit([waiting.submission for waiting in batch], answer)
        except Exception:
            reason = "writer_failed"
            raise
        finally:
            self._running -= 1
            # Cancelled between two attempts, or crashed after COMMIT: nobody knows what was done.
            for waiting in batch:
                self._settle(waiting, error=Unavailable(reason, outcome_unknown=True))
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await writer.aclose()

    def _settle(
        self, waiting: _Waiting, outcomes: Sequence[Outcome] = (), error: Unavailable | None = None
    ) -> None:
        """Answer a submission, once, and give its place in the inbox back."""
        if waiting.answered.is_set():
            return
        self._inbox_requests -= len(waiting.submission.requests)
        self._inbox_bytes -= waiting.submission.size_bytes
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                self._metrics.refused(outcome.reason.name)
        waiting.outcomes = tuple(outcomes)
        waiting.error = error
        waiting.answered.set()
