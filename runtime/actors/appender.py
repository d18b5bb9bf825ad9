"""Group commit: many requests, one transaction. Owns the inbox and the two writers.

Started by app.py before the HTTP server; stops after it. Callers hand in submissions and wait; two
writers take what is there and commit it. A submission goes to the writer of its first topic, so one
topic's arrival order is its commit order. No timer: the previous commit is the timer.

Invariants:
1. At most ``inbox_requests_max`` requests and ``inbox_bytes_max`` bytes are between `submit` and
   their outcome (INV-7); one more is refused at once, with nothing started for it.
2. A submission that was taken is answered, whatever happens: committed, refused, or unavailable with
   ``outcome=unknown`` if nobody can know.
3. A caller that leaves only stops waiting: its submission is committed all the same.
4. The appender is the one retry owner of a commit. Running a batch again is safe because every
   request has a key: what an earlier attempt committed is found under it.

Decisions: core/decisions.py. What is locked: core/batch_commit.py.
"""

from __future__ import annotations

from collections import deque
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final
from zlib import crc32

import attrs
import trio

from khala_contracts import reason_codes
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.logs import get_logger
from runtime.core.batch import take_batch
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import Submission
from runtime.core.outcomes import Refused, Skipped
from runtime.ports import Superseded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.topics import TopicName
    from runtime.actors.relay import Relay
    from runtime.core.limits import RuntimeLimits
    from runtime.core.outcomes import Outcome
    from runtime.core.rate_limit import RateLimiter
    from runtime.ports import AppendMetrics, Authority, JournalStore, JournalWriter

__all__ = ["WRITERS", "Appender"]

# One writer would leave the database idle while Python decides; more than two fight for the same
# heads and the same two cores (runbooks/adr: measured).
WRITERS: Final = 2
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
# Transactions that PostgreSQL rolled back because of another one; the second try nearly always passes.
SERIALIZATION_TRIES: Final = 5
# A full inbox drains within a second at any sustainable rate.
INBOX_RETRY_AFTER_S: Final = 1.0

_SUPERSEDED: Final = Refused(reason_codes.SUPERSEDED, {}, retry_after_ms=1_000)
# Reasons of Unavailable after which the connection is fine and the transaction rolled back.
_WAITED_TOO_LONG: Final = frozenset({"database_lock_timeout", "database_statement_timeout"})
# SQLSTATE class of values that PostgreSQL cannot hold, for example a NUL character in a text.
_DATA_EXCEPTION: Final = "22"

_log = get_logger(__name__)


@attrs.define(eq=False)
class _Waiting:
    """A submission between `submit` and its outcome."""

    submission: Submission
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcomes: tuple[Outcome, ...] = ()
    error: Unavailable | None = None


@attrs.frozen
class _Failure:
    """A transaction that answered nothing.

    Attributes:
        refusal: What a caller gets if its request was the only one.
        error: What a caller gets if its request was the only one; exactly one of the two.
        is_final: False: the batch is to be run again one request at a time.
    """

    refusal: Refused | None = None
    error: Unavailable | None = None
    is_final: bool = True

    def outcomes_for(self, submission: Submission) -> tuple[Outcome, ...]:
        return () if self.refusal is None else _all_refused(submission, self.refusal)


class _Writer:
    """One connection and its part of the inbox."""

    def __init__(self) -> None:
        self.inbox: deque[_Waiting] = deque()
        self.has_work = trio.Event()
        self.connection: JournalWriter | None = None
        self.stack = AsyncExitStack()

    async def wait_work(self) -> None:
        while not self.inbox:
            self.has_work = trio.Event()
            await self.has_work.wait()


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
        self._writers = [_Writer() for _ in range(WRITERS)]
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
            return _all_refused(submission, _SUPERSEDED)
        if self._authority is None:
            raise Unavailable("not_serving")
        count = len(submission.requests)
        if (
            self._inbox_requests + count > self._limits.inbox_requests_max
            or self._inbox_bytes + submission.size_bytes > self._limits.inbox_bytes_max
        ):
            raise Unavailable("inbox_full", INBOX_RETRY_AFTER_S)
        waiting = _Waiting(submission)
        writer = self._writers[crc32(submission.requests[0].first_topic.encode()) % WRITERS]
        self._inbox_requests += count
        self._inbox_bytes += submission.size_bytes
        writer.inbox.append(waiting)
        writer.has_work.set()
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
                for writer in self._writers:
                    nursery.start_soon(self._serve_writer, writer, authority)
                task_status.started()
        finally:
            self._authority = None
            for writer in self._writers:
                while writer.inbox:
                    self._settle(writer.inbox.popleft(), error=Unavailable("draining"))

    async def _serve_writer(self, writer: _Writer, authority: Authority) -> None:
        self._running += 1
        batch: list[_Waiting] = []
        try:
            async with writer.stack:
                while True:
                    await writer.wait_work()
                    batch = take_batch(writer.inbox, self._limits)
                    await self._commit(writer, authority, batch)
        finally:
            self._running -= 1
            # Cancelled between two attempts nobody knows what the first one did.
            for waiting in batch:
                self._settle(waiting, error=Unavailable("draining", outcome_unknown=True))

    async def _commit(self, writer: _Writer, authority: Authority, batch: list[_Waiting]) -> None:
        """Answer every entry of the batch: together, or one request at a time if that fails."""
        together = await self._try_until_known(writer, authority, [waiting.submission for waiting in batch])
        if isinstance(together, list):
            for waiting, outcomes in zip(batch, together, strict=True):
                self._settle(waiting, outcomes)
        elif together.is_final:
            for waiting in batch:
                self._settle(waiting, together.outcomes_for(waiting.submission), error=together.error)
        else:
            await self._commit_singly(writer, authority, batch)

    async def _commit_singly(self, writer: _Writer, authority: Authority, batch: list[_Waiting]) -> None:
        """Run the requests of a failed batch one at a time, so that only the culprit fails."""
        # Heads that somebody holds would cost their lock time-out again for each of their requests,
        # and a database that went away the whole deadline: both fail the rest without a try.
        stuck: dict[TopicName, _Failure] = {}
        away: _Failure | None = None
        for waiting in batch:
            outcomes: list[Outcome] = []
            error: Unavailable | None = None
            for request in waiting.submission.requests:
                if outcomes and isinstance(outcomes[-1], Refused | Skipped):
                    outcomes.append(Skipped())
                    continue
                known = away or stuck.get(request.first_topic)
                result = known or await self._try_until_known(writer, authority, [Submission((request,))])
                if isinstance(result, list):
                    outcomes += result[0]
                    continue
                if result.refusal is not None:
                    outcomes.append(result.refusal)
                    continue
                error = result.error
                assert error is not None
                untried = _Failure(error=Unavailable(error.reason, error.retry_after_s))
                if error.reason in _WAITED_TOO_LONG:
                    stuck[request.first_topic] = untried
                else:
                    away = untried
                break
            self._settle(waiting, outcomes, error=error)

    async def _try_until_known(
        self, writer: _Writer, authority: Authority, submissions: list[Submission]
    ) -> list[list[Outcome]] | _Failure:
        """Return the outcomes of each submission, or why there are none.

        Repeats what is safe and sensible to repeat: lost connections until ``commit_deadline_s``,
        rolled-back transactions a few times.
        """
        is_single = len(submissions) == 1 and len(submissions[0].requests) == 1
        give_up_at = trio.current_time() + self._limits.commit_deadline_s
        delay_s = RETRY_FIRST_S
        is_unknown = False
        tries = 0
        while True:
            tries += 1
            try:
                return await self._attempt(writer, authority, submissions)
            except Superseded:
                self.supersede()
                if is_unknown:
                    return _Failure(error=Unavailable("superseded", outcome_unknown=True))
                return _Failure(refusal=_SUPERSEDED)
            except DatabaseError as error:
                return _Failure(refusal=self._refuse_content(error, submissions), is_final=is_single)
            except SerializationTrouble as error:
                self._metrics.retried("serialization")
                if tries >= SERIALIZATION_TRIES:
                    unavailable = Unavailable("database_contention", outcome_unknown=is_unknown)
                    unavailable.__cause__ = error
                    return _Failure(error=unavailable, is_final=is_single)
            except Unavailable as error:
                self._metrics.retried(error.reason)
                is_unknown = is_unknown or error.outcome_unknown
                if error.reason in _WAITED_TOO_LONG and not is_unknown:
                    return _Failure(error=error, is_final=is_single)
                await self._drop_connection(writer)
                if trio.current_time() + delay_s >= give_up_at:
                    unavailable = Unavailable(error.reason, outcome_unknown=is_unknown)
                    unavailable.__cause__ = error
                    return _Failure(error=unavailable)
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)

    async def _attempt(
        self, writer: _Writer, authority: Authority, submissions: list[Submission]
    ) -> list[list[Outcome]]:
        """Run one transaction and hand on what it committed."""
        started = trio.current_time()
        batch = BatchCommit(submissions, limiter=self._limiter, now=started, lineage=authority.lineage)
        if writer.connection is None:
            writer.connection = await writer.stack.enter_async_context(
                self._store.open_writer(authority.generation)
            )
        await writer.connection.commit_batch(batch)
        # No await from here: what is committed is handed on and answered, also if we are cancelled.
        batch.take_tokens()
        self._relay.offer(batch.committed, lineage=authority.lineage)
        outcomes = batch.outcomes()
        self._metrics.committed(
            requests=sum(len(group) for group in outcomes),
            events=sum(len(topic.kinds) for topic in batch.committed),
            duplicates=batch.duplicate_count,
            duration_s=trio.current_time() - started,
        )
        return outcomes

    async def _drop_connection(self, writer: _Writer) -> None:
        writer.connection = None
        try:
            await writer.stack.aclose()
        except Unavailable as error:
            _log.info("writer_connection_dropped", reason=error.reason)

    def _refuse_content(self, error: DatabaseError, submissions: list[Submission]) -> Refused:
        _log.error(
            "batch_refused",
            sqlstate=error.sqlstate,
            constraint=error.constraint,
            requests=sum(len(submission.requests) for submission in submissions),
        )
        is_callers = error.sqlstate.startswith(_DATA_EXCEPTION)
        return Refused(reason_codes.INVALID_ARGUMENT if is_callers else reason_codes.INTERNAL, {})

    def _settle(
        self, waiting: _Waiting, outcomes: Sequence[Outcome] = (), *, error: Unavailable | None = None
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


def _all_refused(submission: Submission, refusal: Refused) -> tuple[Outcome, ...]:
    return (refusal, *(Skipped() for _ in submission.requests[1:]))
