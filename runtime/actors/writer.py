"""One writer: a connection of its own, and the patience to find out what became of a batch.

Used by appender.py, one task each. Takes submissions and answers every one of them through a callback;
knows nothing of the inbox. It is the one retry owner of a commit. Running a batch again is safe because
every request has a key: what an earlier attempt committed is found under it.

    what happened                         what is done
    committed                             everybody is answered
    content refused (DatabaseError)       again one request at a time; alone: refused
    our own bug met before COMMIT         the same; alone: internal
    rolled back because of another        again, a few times; then as content
    waited too long for a lock            again one request at a time; alone: unavailable
    connection lost, also in COMMIT       again on a new connection until commit_deadline_s
    no answer until commit_deadline_s     rolled back: unavailable
    generation lost (Superseded)          everybody is refused; nothing is tried any more

Once an answer to COMMIT was lost, nothing but a later success can say that nothing was written: any
other ending is ``outcome_unknown``. What is found under its key after that was never told to the nodes:
then the heads of its topics are told (INV-20).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from khala_contracts import reason_codes
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.failpoints import hit
from khala_service.logs import get_logger
from runtime.actors.head_news import tell_heads
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import Submission
from runtime.core.outcomes import Refused, Skipped
from runtime.ports import Superseded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from khala_contracts.topics import TopicName
    from runtime.actors.relay import Relay
    from runtime.core.limits import RuntimeLimits
    from runtime.core.outcomes import Outcome
    from runtime.core.rate_limit import RateLimiter
    from runtime.ports import AppendMetrics, Authority, JournalStore, JournalWriter

__all__ = ["SERIALIZATION_TRIES", "SUPERSEDED", "AnswerCallback", "Writer", "refuse_all"]

RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
# Transactions that PostgreSQL rolled back because of another one; the second try nearly always passes.
SERIALIZATION_TRIES: Final = 5
# Alone, the culprit is one of one; a batch of hundreds would be a line of kilobytes.
REQUEST_IDS_LOGGED_MAX: Final = 10
SUPERSEDED: Final = Refused(reason_codes.SUPERSEDED, {}, retry_after_ms=1_000)
# Reasons of Unavailable after which the connection is fine and the transaction rolled back.
_WAITED_TOO_LONG: Final = frozenset({"database_lock_timeout", "database_statement_timeout"})
# SQLSTATE class of values that PostgreSQL cannot hold, for example a NUL character in a text.
_DATA_EXCEPTION: Final = "22"

_OPERATING_ERRORS: Final = (Superseded, DatabaseError, SerializationTrouble, Unavailable)

_log = get_logger(__name__)


class AnswerCallback(Protocol):
    """Takes what became of one submission, by its place in the batch; called once for each."""

    def __call__(
        self, index: int, outcomes: Sequence[Outcome] = (), error: Unavailable | None = None
    ) -> None:
        """Answer the caller; must not wait."""


@attrs.frozen
class _Failure:
    """A transaction that answered nothing; exactly one of `refusal` and `error` is set.

    Attributes:
        refusal: What a caller gets if its request was the only one.
        error: The same, for trouble that is nobody's fault.
        is_final: False: the batch is to be run again one request at a time.
    """

    refusal: Refused | None = None
    error: Unavailable | None = None
    is_final: bool = True


class _BatchCrashed(Exception):
    """A bug of ours, met before COMMIT was sent: nothing was written."""


class Writer:
    """One connection, used by one task inside its block."""

    def __init__(
        self,
        store: JournalStore,
        relay: Relay,
        *,
        authority: Authority,
        limits: RuntimeLimits,
        limiter: RateLimiter,
        metrics: AppendMetrics,
        supersede: Callable[[], None],
    ) -> None:
        self._store = store
        self._relay = relay
        self._authority = authority
        self._limits = limits
        self._limiter = limiter
        self._metrics = metrics
        self._supersede = supersede
        self._connection: JournalWriter | None = None
        self._stack = AsyncExitStack()
        # Topics of requests whose commit was not seen, and may not have been told to the nodes.
        self._untold: set[TopicName] = set()

    async def aclose(self) -> None:
        """Give the connection back; it is opened again when needed."""
        self._connection = None
        try:
            await self._stack.aclose()
        except Unavailable as error:
            _log.info("writer_connection_dropped", reason=error.reason)

    async def commit(self, submissions: Sequence[Submission], answer: AnswerCallback) -> None:
        """Answer every submission: together, or one request at a time if that fails.

        Cancellation: the transaction in flight is rolled back, or its COMMIT awaited; what was not
        answered until then may or may not be committed.
        """
        together = await self._try_until_known(submissions)
        if isinstance(together, list):
            for index, outcomes in enumerate(together):
                answer(index, outcomes)
        elif not together.is_final:
            await self._commit_singly(submissions, answer)
        else:
            for index, submission in enumerate(submissions):
                refusal = together.refusal
                answer(index, () if refusal is None else refuse_all(submission, refusal), together.error)
        if self._untold:
            # The callers have their answers.
            topics, self._untold = self._untold, set()
            await tell_heads(self._store, self._relay, topics)

    async def _commit_singly(self, submissions: Sequence[Submission], answer: AnswerCallback) -> None:
        """Run the requests of a failed batch one at a time, so that only the culprit fails."""
        # Heads that somebody holds would cost their lock time-out again for each of their requests,
        # and a database that went away the whole deadline: both fail the rest without a try.
        stuck: dict[TopicName, _Failure] = {}
        away: _Failure | None = None
        for index, submission in enumerate(submissions):
            outcomes: list[Outcome] = []
            error: Unavailable | None = None
            for request in submission.requests:
                if outcomes and isinstance(outcomes[-1], Refused | Skipped):
                    outcomes.append(Skipped())
                    continue
                known = away or stuck.get(request.first_topic)
                result = known or await self._try_until_known([Submission((request,))])
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
            answer(index, outcomes, error)

    async def _try_until_known(self, submissions: Sequence[Submission]) -> list[list[Outcome]] | _Failure:
        """Return the outcomes of each submission, or why there are none."""
        is_single = len(submissions) == 1 and len(submissions[0].requests) == 1
        give_up_at = trio.current_time() + self._limits.commit_deadline_s
        delay_s = RETRY_FIRST_S
        is_unknown = False
        tries = 0
        while True:
            tries += 1
            try:
                # A transaction that is cancelled is rolled back, or the answer to its COMMIT awaited.
                # Not fail_after: a process without a turn wakes after the deadline, and a time is not negative.
                with trio.fail_at(give_up_at):
                    outcomes = await self._attempt(submissions)
            except trio.TooSlowError:
                self._metrics.retried("commit_deadline")
                await self.aclose()
                return _Failure(error=Unavailable("commit_deadline", outcome_unknown=is_unknown))
            except _BatchCrashed as crash:
                self._metrics.retried("internal_error")
                _log.error("batch_crashed", requests=_count(submissions), exc_info=crash.__cause__)
                await self.aclose()
                if is_unknown:
                    return _Failure(error=_unknown("internal_error", crash))
                return _Failure(refusal=Refused(reason_codes.INTERNAL, {}), is_final=is_single)
            except Superseded:
                self._supersede()
                if is_unknown:
                    return _Failure(error=Unavailable("superseded", outcome_unknown=True))
                return _Failure(refusal=SUPERSEDED)
            except DatabaseError as error:
                if is_unknown:
                    return _Failure(error=_unknown("database_error", error))
                return _Failure(refusal=_refuse_content(error, submissions), is_final=is_single)
            except SerializationTrouble as error:
                self._metrics.retried("serialization")
                if tries >= SERIALIZATION_TRIES and is_unknown:
                    return _Failure(error=_unknown("database_contention", error))
                if tries >= SERIALIZATION_TRIES:
                    return _Failure(error=Unavailable("database_contention"), is_final=is_single)
            except Unavailable as error:
                self._metrics.retried(error.reason)
                is_unknown = is_unknown or error.outcome_unknown
                if error.reason in _WAITED_TOO_LONG and not is_unknown:
                    return _Failure(error=error, is_final=is_single)
                await self.aclose()
                if trio.current_time() + delay_s >= give_up_at:
                    return _Failure(error=_unknown(error.reason, error) if is_unknown else error)
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
            else:
                if is_unknown:
                    requests = (request for submission in submissions for request in submission.requests)
                    self._untold.update(topic for request in requests for topic in request.topics)
                return outcomes

    async def _attempt(self, submissions: Sequence[Submission]) -> list[list[Outcome]]:
        """Run one transaction and hand on what it committed."""
        started = trio.current_time()
        authority = self._authority
        if self._connection is None:
            opened = self._store.open_writer(authority.generation)
            self._connection = await self._stack.enter_async_context(opened)
        try:
            batch = BatchCommit(submissions, limiter=self._limiter, now=started, lineage=authority.lineage)
            await self._connection.commit_batch(batch)
        except _OPERATING_ERRORS:
            raise
        except Exception as error:
            raise _BatchCrashed from error
        if batch.committed:
            hit("runtime.committed")
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


def _count(submissions: Sequence[Submission]) -> int:
    return sum(len(submission.requests) for submission in submissions)


def refuse_all(submission: Submission, refusal: Refused) -> tuple[Outcome, ...]:
    """Return the outcomes of a submission whose first request is refused."""
    return (refusal, *(Skipped() for _ in submission.requests[1:]))


def _unknown(reason: str, cause: Exception) -> Unavailable:
    unavailable = Unavailable(reason, outcome_unknown=True)
    unavailable.__cause__ = cause
    return unavailable


def _first_request_ids(submissions: Sequence[Submission]) -> list[str]:
    """Return whom a trouble of a batch concerns, as many as a line of the log needs."""
    requests = (request for submission in submissions for request in submission.requests)
    return list(dict.fromkeys(request.request_id for request in islice(requests, REQUEST_IDS_LOGGED_MAX)))


def _refuse_content(error: DatabaseError, submissions: Sequence[Submission]) -> Refused:
    _log.error(
        "batch_refused",
        sqlstate=error.sqlstate,
        constraint=error.constraint,
        requests=_count(submissions),
        request_ids=_first_request_ids(submissions),
    )
    is_callers = error.sqlstate.startswith(_DATA_EXCEPTION)
    return Refused(reason_codes.INVALID_ARGUMENT if is_callers else reason_codes.INTERNAL, {})
