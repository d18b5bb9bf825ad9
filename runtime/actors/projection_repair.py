"""Compares the read model of runs with its source, and builds it again: what operators ask for.

Called by the internal routes, a page of runs at a time; owns no task. The fold from the first event is
the measure of both (INV-19). A rebuild holds no lock while it folds: it then takes the checkpoint, folds
what came meanwhile and replaces the row in one transaction, so live projection and followers go on. It
writes a summary frame only where the list was told something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_contracts import reason_codes
from khala_contracts.ids import is_id
from khala_contracts.topics import format_run_events
from khala_service.errors import Unavailable
from khala_service.logs import get_logger
from runtime.actors.command_path import CommandRefused
from runtime.actors.writer import SUPERSEDED
from runtime.core.outcomes import Refused
from runtime.core.projection_step import ProjectionStep, SourceRead, empty_summary
from runtime.core.projections import ProjectionFailed, fold_events, hash_summaries
from runtime.ports import Superseded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.core.projections import RunSummary
    from runtime.ports import Authority, CommitListener, Ids, ProjectionStore, StoredSummary

__all__ = ["Difference", "DriftReport", "ProjectionRepair", "RebuildReport"]

# A page ends after this, so that its request is answered long before it times out.
PAGE_DEADLINE_S: Final = 20.0
# Tries at one run that is written faster than it is folded; each try starts where the last one ended.
REBUILD_TRIES: Final = 20

_log = get_logger(__name__)


@attrs.frozen
class Difference:
    """A run whose row is not what the fold gives, or that cannot be folded."""

    run_id: str
    problem: str


@attrs.frozen
class DriftReport:
    """A page of the comparison; `next_after` is the last run looked at, "" on the last page."""

    checked: int
    differences: Sequence[Difference]
    stored_hash: bytes
    folded_hash: bytes
    next_after: str


@attrs.frozen
class RebuildReport:
    """A page of the rebuild; `next_after` as in DriftReport."""

    rebuilt: int
    changed: int
    summaries: int
    failures: Sequence[Difference]
    hash: bytes
    next_after: str


class ProjectionRepair:
    """Drift and rebuild."""

    def __init__(
        self,
        store: ProjectionStore,
        relay: CommitListener,
        *,
        ids: Ids,
        authority: Callable[[], Authority | None],
    ) -> None:
        self._store = store
        self._relay = relay
        self._ids = ids
        self._authority = authority

    async def drift(self, *, after: str, limit: int) -> DriftReport:
        """Compare a page of rows with folds of the same length from the first event.

        What is not applied yet is no drift: the fold ends where the checkpoint is.

        Args:
            after: Run id after which the page starts; "" from the first.
            limit: Most runs; fewer if PAGE_DEADLINE_S ends it.

        Raises:
            CommandRefused: invalid_argument.
            Unavailable: The database does not answer.
        """
        differences: list[Difference] = []
        stored: list[RunSummary] = []
        folded: list[RunSummary] = []
        found = await self._page(after, limit)
        checked = 0
        give_up_at = trio.current_time() + PAGE_DEADLINE_S
        for source in found:
            if checked and trio.current_time() >= give_up_at:
                break
            checked += 1
            run_id = _run_id(source)
            if source.summary is not None:
                stored.append(source.summary)
            try:
                fold = await self._fold(_empty(source), last_seq=source.checkpoint_seq)
            except ProjectionFailed:
                differences.append(Difference(run_id, "cannot be folded"))
                continue
            if fold.applied_seq > 0:
                folded.append(fold)
            problem = _problem(source, fold)
            if problem is not None:
                differences.append(Difference(run_id, problem))
        next_after = _next_after(found, checked, limit)
        return DriftReport(checked, differences, hash_summaries(stored), hash_summaries(folded), next_after)

    async def rebuild(self, *, after: str, limit: int) -> RebuildReport:
        """Build a page of rows again from the first event.

        Args: as `drift`.

        Raises:
            CommandRefused: invalid_argument; superseded.
            Unavailable: The database does not answer, or this process is not the writer.
        """
        authority = self._authority()
        if authority is None:
            raise Unavailable("not_serving")
        failures: list[Difference] = []
        rows: list[RunSummary] = []
        changed = summaries = checked = 0
        found = await self._page(after, limit)
        give_up_at = trio.current_time() + PAGE_DEADLINE_S
        for source in found:
            if checked and trio.current_time() >= give_up_at:
                break
            checked += 1
            try:
                row, frames = await self._rebuild(source, authority)
            except ProjectionFailed as error:
                _log.error("projection_rebuild_failed", topic=source.topic, problem=str(error))
                failures.append(Difference(_run_id(source), "cannot be folded"))
                continue
            except Superseded:
                raise CommandRefused(SUPERSEDED) from None
            rows.append(row)
            summaries += frames
            changed += row != source.summary
        next_after = _next_after(found, checked, limit)
        _log.info("projection_rebuilt", runs=len(rows), changed=changed, summaries=summaries)
        return RebuildReport(len(rows), changed, summaries, failures, hash_summaries(rows), next_after)

    async def _page(self, after: str, limit: int) -> list[StoredSummary]:
        if after and not is_id("run", after):
            raise CommandRefused(Refused(reason_codes.INVALID_ARGUMENT, {"field": "page_token"}))
        after_topic = format_run_events(after) if after else ""
        return await self._store.list_summaries(after_topic=after_topic, limit=limit)

    async def _fold(self, base: RunSummary, *, last_seq: int | None) -> RunSummary:
        """Return the fold of a run's events up to a position, or to the head."""
        topic = format_run_events(base.run_id)
        while last_seq is None or base.applied_seq < last_seq:
            pages = await self._store.read_sources([SourceRead(topic, base.applied_seq, last_seq)])
            if not pages:
                break
            base = fold_events(base, pages[0].events)
        return base

    async def _rebuild(self, source: StoredSummary, authority: Authority) -> tuple[RunSummary, int]:
        """Replace one row; return it and how many summary frames were written."""
        base = _empty(source)
        for _ in range(REBUILD_TRIES):
            base = await self._fold(base, last_seq=None)
            step = ProjectionStep(
                [source.topic], new_event_id=lambda: self._ids.new("evt"), bases={source.topic: base}
            )
            failure: ProjectionFailed | None = None
            try:
                await self._store.run_step(step, generation=authority.generation)
            except ProjectionFailed as error:
                failure = error
            if failure is not None:
                if await self._is_moving(base):
                    continue
                raise failure
            self._relay.offer(step.committed, lineage=authority.lineage)
            (result,) = step.results()
            return result.summary, sum(len(commit.kinds) for commit in step.committed)
        raise ProjectionFailed(f"topic={source.topic}: written faster than it is folded")

    async def _is_moving(self, base: RunSummary) -> bool:
        """Return whether the log has events after the fold: then it was overtaken, and is no failure."""
        topic = format_run_events(base.run_id)
        return bool(await self._store.read_sources([SourceRead(topic, base.applied_seq)]))


def _empty(source: StoredSummary) -> RunSummary:
    return empty_summary(source.topic, source.owner_user_id, source.org_id)


def _run_id(source: StoredSummary) -> str:
    return _empty(source).run_id


def _problem(source: StoredSummary, fold: RunSummary) -> str | None:
    """Return in words how a row differs from its fold, None if it does not."""
    if fold.applied_seq < source.checkpoint_seq:
        return f"its checkpoint {source.checkpoint_seq} is beyond the log {fold.applied_seq}"
    row = source.summary
    if row is None:
        return None if source.checkpoint_seq == 0 else "missing"
    fields = [name for name in attrs.fields_dict(type(row)) if getattr(row, name) != getattr(fold, name)]
    return f"differs in {', '.join(fields)}" if fields else None


def _next_after(found: Sequence[StoredSummary], checked: int, limit: int) -> str:
    is_last = checked == len(found) < limit
    return "" if is_last or not found else _run_id(found[checked - 1])
