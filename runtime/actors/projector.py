"""Keeps the read model of runs and tells the lists of runs, a bounded step at a time.

Started by app.py with the authority; hears of commits by a synchronous call that never waits. The queue
is only a hint of what to look at: every SWEEP_EVERY_S, and at the start, one query finds sources whose
heads are ahead of their checkpoints, so that a lost hint, a crash or a full queue costs delay and
nothing else. What a step appends goes to the relay like any commit.

    what happened                       what is done
    committed                           its frames go to the relay; what is held back becomes due by itself
    connection lost, also in COMMIT     again with backoff: the checkpoints say what was committed
    anything else that went wrong       again one source at a time; the one that fails alone is set aside
    a list's head is held by somebody   the same, and of sources that share the list one is tried a step
    generation lost (Superseded)        it ends; nothing is tried any more

A source that is set aside is tried again alone, with backoff, counted and logged; the others go on
(INV-9). Of a transaction whose answer to COMMIT was lost the lists' heads are told, after the next one
that succeeds (INV-20).
The fold is core/projections.py, the transaction core/projection_step.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.logs import get_logger
from khala_service.readiness import Degraded
from runtime.core.projection_queue import ProjectionQueue
from runtime.core.projection_step import ProjectionStep
from runtime.core.projections import ProjectionFailed
from runtime.ports import Superseded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.batch_commit import CommittedTopic
    from runtime.ports import Authority, CommitListener, Ids, ProjectionMetrics, ProjectionStore

__all__ = ["BATCH_SOURCES", "PACE_S", "QUEUE_SOURCES", "SWEEP_EVERY_S", "Projector"]

SOURCE_CLASS: Final = "run_events"
# Sources of one transaction. More: their lists' heads are locked for longer, and one poisoned source
# makes so many others wait for a second try.
BATCH_SOURCES: Final = 64
# About 200 bytes each; as many again may be set aside.
QUEUE_SOURCES: Final = 10_000
SWEEP_EVERY_S: Final = 10.0
SWEEP_PAGE: Final = 1_000
# After a step that found little: what arrives meanwhile shares the next transaction. Longer: lists are
# later by that much. Shorter: a busy run costs a transaction for each of its commits.
PACE_S: Final = 0.05
# A step that applied so many events was behind, and the next follows at once.
PACED_EVENTS_MAX: Final = 200
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
# The connection is fine and the transaction rolled back: somebody holds one of the locks.
_WAITED_TOO_LONG: Final = frozenset({"database_lock_timeout", "database_statement_timeout"})

# The word for a fault that is not the sources': everybody waits.
_AWAY: Final = "database"

_log = get_logger(__name__)


@attrs.frozen
class _Fault:
    """Why a transaction was not committed, how far it came; the reason is one of PROJECTION_FAILURES."""

    reason: str
    error: Exception
    step: ProjectionStep


class Projector:
    """One task; the only one that steps live sources of this process."""

    def __init__(
        self,
        store: ProjectionStore,
        relay: CommitListener,
        *,
        ids: Ids,
        metrics: ProjectionMetrics,
        supersede: Callable[[], None],
        tell_heads: Callable[[Collection[TopicName]], Awaitable[None]],
        queue_sources: int = QUEUE_SOURCES,
    ) -> None:
        self._store = store
        self._relay = relay
        self._ids = ids
        self._metrics = metrics
        self._supersede = supersede
        self._tell_heads = tell_heads
        self._capacity = queue_sources
        self._queue = ProjectionQueue(capacity=queue_sources)
        self._has_news = trio.Event()
        self._sweep_at = 0.0
        self._retry_s = RETRY_FIRST_S
        # Whether the last step found so little that the next may wait for company.
        self._is_paced = False
        # Lists that a lost COMMIT may have moved; at most those of the sources that are known.
        self._untold: set[TopicName] = set()
        self._is_running = False
        self._has_run = False

    @property
    def queue(self) -> ProjectionQueue:
        """What waits, for metrics; not to be changed."""
        return self._queue

    async def check(self) -> str | None:
        """Answer readiness: once it has run, its crashes make lists older and take nobody out of traffic."""
        if self._is_running:
            return None
        return Degraded("restarting") if self._has_run else "not_started"

    def offer(self, committed: Sequence[CommittedTopic], *, lineage: Lineage) -> None:
        """Take what one transaction committed; see CommitListener."""
        del lineage
        for commit in committed:
            if commit.topic_class == SOURCE_CLASS:
                self._queue.note(
                    commit.topic,
                    head_seq=commit.last_seq,
                    applied_seq=commit.first_seq - 1,
                    now=trio.current_time(),
                )
        self._has_news.set()

    async def serve(
        self, authority: Authority, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Project until cancelled, or until superseded: that is final."""
        self._is_running = self._has_run = True
        task_status.started()
        self._sweep_at = trio.current_time()
        try:
            while True:
                if self._must_sweep():
                    await self._sweep()
                taken = self._queue.take(BATCH_SOURCES, now=trio.current_time())
                if taken:
                    await self._step(taken, authority)
                else:
                    await self._wait()
        except Superseded:
            self._supersede()
        finally:
            self._is_running = False

    def _must_sweep(self) -> bool:
        has_room = self._queue.has_lost and len(self._queue) <= self._capacity // 2
        return has_room or trio.current_time() >= self._sweep_at

    async def _wait(self) -> None:
        """Wait for news, or for the next time that something is due."""
        due_at = self._queue.next_due()
        self._has_news = trio.Event()
        until = self._sweep_at if due_at is None else min(due_at, self._sweep_at)
        with trio.move_on_at(until):
            await self._has_news.wait()

    async def _sweep(self) -> None:
        """Find sources that are behind, whether or not anybody told us."""
        self._queue.has_lost = False
        after_topic = ""
        try:
            while len(self._queue) < self._capacity:
                found = await self._store.find_behind(after_topic=after_topic, limit=SWEEP_PAGE)
                for source in found:
                    self._queue.note(
                        source.topic,
                        head_seq=source.head_seq,
                        applied_seq=source.applied_seq,
                        now=trio.current_time(),
                    )
                if len(found) < SWEEP_PAGE:
                    break
                after_topic = found[-1].topic
        except (Unavailable, SerializationTrouble, DatabaseError) as error:
            self._metrics.failed("sweep")
            _log.warning("projection_sweep_postponed", reason=str(error))
            self._sweep_at = trio.current_time() + self._next_retry_s()
            return
        self._retry_s = RETRY_FIRST_S
        self._sweep_at = trio.current_time() + SWEEP_EVERY_S

    async def _step(self, taken: Sequence[TopicName], authority: Authority) -> None:
        """Step several sources together, or one at a time if that fails."""
        fault = await self._attempt(taken, authority)
        if fault is None:
            await self._tell_untold()
            if self._is_paced:
                await trio.sleep(PACE_S)
        elif fault.reason == _AWAY:
            await self._back_off(taken, fault)
        elif len(taken) == 1:
            self._set_aside(taken[0], fault)
        else:
            await self._step_singly(taken, authority, together=fault.step)

    async def _step_singly(
        self, taken: Sequence[TopicName], authority: Authority, *, together: ProjectionStep
    ) -> None:
        """Find the sources that fail alone, and set those aside.

        Lists whose head somebody holds would cost their lock time-out again for each source: the others
        of such a list are left for the next step. `together`, which failed, knows their lists.
        """
        held: frozenset[TopicName] = frozenset()
        for index, topic in enumerate(taken):
            if held & together.lists_of(topic):
                self._queue.put_back(topic)
                continue
            fault = await self._attempt([topic], authority)
            if fault is None:
                await self._tell_untold()
            elif fault.reason == _AWAY:
                await self._back_off(taken[index:], fault)
                return
            else:
                self._set_aside(topic, fault)
                held |= fault.step.told_lists if fault.reason == "locked" else frozenset()

    async def _attempt(self, topics: Sequence[TopicName], authority: Authority) -> _Fault | None:
        """Run one transaction; return why it was not committed, None if it was.

        Raises:
            Superseded: nothing is to be tried any more.
        """
        step = ProjectionStep(topics, new_event_id=lambda: self._ids.new("evt"))
        try:
            applied = await self._commit(step, authority)
        except Superseded:
            raise
        except Unavailable as error:
            if error.outcome_unknown:
                self._untold |= step.told_lists
            return _Fault("locked" if error.reason in _WAITED_TOO_LONG else _AWAY, error, step)
        except SerializationTrouble as error:
            return _Fault(_AWAY, error, step)
        except ProjectionFailed as error:
            return _Fault("poison", error, step)
        except Exception as error:  # noqa: BLE001 - the one place that contains a projector's crash
            return _Fault("crash", error, step)
        self._is_paced = applied <= PACED_EVENTS_MAX and len(topics) < BATCH_SOURCES
        return None

    async def _commit(self, step: ProjectionStep, authority: Authority) -> int:
        """Run one transaction, hand on what it committed, and return how many events it applied."""
        started = trio.current_time()
        await self._store.run_step(step, generation=authority.generation)
        # No await from here: what is committed is handed on, also if we are cancelled.
        self._relay.offer(step.committed, lineage=authority.lineage)
        now = trio.current_time()
        results = step.results()
        for result in results:
            wait_s = None if result.wait_us is None else result.wait_us / 1_000_000
            self._queue.settle(result.topic, result.summary.applied_seq, now=now, wait_s=wait_s)
        for topic in set(step.topics) - {result.topic for result in results}:
            self._queue.forget(topic)
        applied = sum(result.applied_count for result in results)
        self._retry_s = RETRY_FIRST_S
        self._metrics.applied(
            events=applied,
            summaries=sum(len(commit.kinds) for commit in step.committed),
            duration_s=now - started,
        )
        return applied

    async def _tell_untold(self) -> None:
        if self._untold:
            topics, self._untold = self._untold, set()
            await self._tell_heads(topics)

    def _set_aside(self, topic: TopicName, fault: _Fault) -> None:
        self._metrics.failed(fault.reason)
        retry_in_s = self._queue.set_aside(topic, now=trio.current_time())
        _log.error(
            "projection_set_aside",
            topic=topic,
            reason=fault.reason,
            problem=str(fault.error),
            retry_in_s=retry_in_s,
            exc_info=fault.error if fault.reason == "crash" else None,
        )

    async def _back_off(self, untried: Sequence[TopicName], fault: _Fault) -> None:
        """Wait for a database that is away; nothing is lost meanwhile."""
        self._metrics.failed(fault.reason)
        for topic in untried:
            self._queue.put_back(topic)
        _log.info("projection_postponed", reason=str(fault.error), sources=len(untried))
        await trio.sleep(self._next_retry_s())

    def _next_retry_s(self) -> float:
        delay_s = self._retry_s
        self._retry_s = min(2 * delay_s, RETRY_MAX_S)
        return delay_s
