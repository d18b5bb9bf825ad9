"""One transaction of a projector: what is read, folded, told and remembered, for several runs.

Pure: `ProjectionStore.run_step` calls `reads`, `fold`, `append` and `finish` between its database calls, all of
them synchronous. An instance serves one attempt. Everything that it decides is written in the
transaction in which it was read, under the checkpoints' locks (INV-18).

Projections are exempt from rates: a run's summary costs at most one frame a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import kinds
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.topics import format_org_runs, format_user_runs, parse_topic
from runtime.core.batch_commit import CommittedTopic
from runtime.core.commands import TopicTarget
from runtime.core.journal_calls import AppendCall
from runtime.core.projections import PROJECTOR, ProjectionFailed, RunSummary, fold_events
from runtime.core.summary_pace import SUMMARY_KIND, Publish, Wait, encode_summary, pace_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from khala_contracts.topics import TopicName
    from runtime.core.journal_calls import AppendResult
    from runtime.core.projections import SourceEvent
    from runtime.core.summary_pace import Published

__all__ = [
    "CheckpointMove",
    "LockedSource",
    "ProjectionStep",
    "SourcePage",
    "SourceRead",
    "Stepped",
    "list_targets",
    "user_list",
]

# Written beside summaries: who made them, and that no request did.
ACTOR: Final = f"projector:{PROJECTOR}"
NO_REQUEST: Final = ""


@attrs.frozen
class LockedSource:
    """A source topic whose checkpoint is locked, with its row of the read model as of now."""

    topic: TopicName
    owner_user_id: str
    org_id: str | None
    applied_seq: int
    published: Published | None
    summary: RunSummary | None


@attrs.frozen
class SourceRead:
    """Read the events of a topic after a position, up to and including another (None: to the head)."""

    topic: TopicName
    after_seq: int
    last_seq: int | None = None


@attrs.frozen
class SourcePage:
    """Events of one source, ascending, without a hole."""

    topic: TopicName
    events: tuple[SourceEvent, ...]


@attrs.frozen
class CheckpointMove:
    """From where a checkpoint was found to where it is; `told` if a summary was written."""

    topic: TopicName
    seq_before: int
    summary: RunSummary
    told: bool


@attrs.frozen
class Stepped:
    """What a step did for one source.

    Attributes:
        summary: The fold as it now stands in the read model.
        applied_count: Events that this step applied.
        wait_us: Until a summary that is held back becomes due; None: nothing is held back.
    """

    topic: TopicName
    summary: RunSummary
    applied_count: int
    wait_us: int | None


@attrs.define
class _Source:
    locked: LockedSource
    base: RunSummary
    summary: RunSummary
    lists: list[TopicTarget]
    # Of these the list in which the run no longer is.
    left: TopicTarget | None = None
    decision: object = None


class ProjectionStep:
    """The pure half of one transaction."""

    def __init__(
        self,
        topics: Sequence[TopicName],
        *,
        new_event_id: Callable[[], str],
        bases: Mapping[TopicName, RunSummary] | None = None,
        former_owners: Mapping[TopicName, str] | None = None,
    ) -> None:
        """Prepare a step.

        Args:
            topics: Source topics, distinct.
            new_event_id: Makes ids of the frames that are appended.
            bases: For a rebuild: folds from the first event that replace the stored rows.
            former_owners: For a transfer: whose list each of these runs leaves. Their lists are told at once.
        """
        self.topics = tuple(topics)
        self._new_event_id = new_event_id
        self._bases = bases or {}
        self._former_owners = former_owners or {}
        self._sources: dict[TopicName, _Source] = {}
        self._now_us = 0
        self._targets: dict[TopicName, tuple[TopicTarget, list[_Source]]] = {}
        self.committed: list[CommittedTopic] = []

    def reads(self, locked: Sequence[LockedSource]) -> list[SourceRead]:
        """Return what to read; sources without a head are absent from `locked`.

        Raises:
            ProjectionFailed: The row of the read model is not where its checkpoint is.
        """
        for source in locked:
            base = self._bases.get(source.topic) or self._stored(source)
            # Whose run it is says the head, always; events only say how that came about.
            base = attrs.evolve(base, owner_user_id=source.owner_user_id)
            lists, left = list_targets(source.owner_user_id, source.org_id), None
            if source.topic in self._former_owners:
                left = user_list(self._former_owners[source.topic])
                lists.append(left)
            self._sources[source.topic] = _Source(source, base, base, lists, left)
        return [SourceRead(topic, source.base.applied_seq) for topic, source in self._sources.items()]

    def fold(self, pages: Sequence[SourcePage], *, now_us: int) -> list[RunSummary]:
        """Return the rows to write.

        Args:
            pages: What was read.
            now_us: The database's clock.

        Raises:
            ProjectionFailed: An event cannot be applied; nothing must be written.
        """
        self._now_us = now_us
        for page in pages:
            source = self._sources[page.topic]
            source.summary = fold_events(source.base, page.events)
        for topic, source in self._sources.items():
            if source.summary.applied_seq < source.locked.applied_seq:
                # Only a rebuild has a base below the checkpoint; it reads on and tries again.
                raise ProjectionFailed(
                    f"topic={topic} checkpoint={source.locked.applied_seq} log={source.summary.applied_seq}"
                )
            # Who was never told of this run, or has to forget it, does not wait for the throttle.
            published = None if topic in self._former_owners else source.locked.published
            source.decision = pace_summary(published, source.summary, now_us=now_us)
            if isinstance(source.decision, Publish):
                self._collect(source)
        return [source.summary for source in self._sources.values() if self._is_changed(source)]

    def append(self) -> AppendCall | None:
        """Return the summaries to append, None if nobody has to be told anything."""
        if not self._targets:
            return None
        columns = [(target, source) for target, sources in self._targets.values() for source in sources]
        classes = [target.topic_class for target, _ in columns]
        return AppendCall(
            targets=tuple(target for target, _ in self._targets.values()),
            event_counts=[len(sources) for _, sources in self._targets.values()],
            event_ids=[self._new_event_id() for _ in columns],
            kinds=[SUMMARY_KIND] * len(columns),
            payloads=[
                encode_summary(target.topic_class, source.summary, is_withdrawn=target is source.left)
                for target, source in columns
            ],
            schema_versions=[kinds.KINDS[name, SUMMARY_KIND].schema_version for name in classes],
            actors=[ACTOR] * len(columns),
            request_ids=[NO_REQUEST] * len(columns),
            compaction_keys=[source.summary.run_id for _, source in columns],
        )

    def finish(self, call: AppendCall | None, appended: AppendResult | None) -> list[CheckpointMove]:
        """Return the checkpoints to write, last of all."""
        if call is not None and appended is not None:
            self._place(call, appended)
        return [
            CheckpointMove(
                topic, source.locked.applied_seq, source.summary, isinstance(source.decision, Publish)
            )
            for topic, source in self._sources.items()
            if source.summary.applied_seq != source.locked.applied_seq or isinstance(source.decision, Publish)
        ]

    def lists_of(self, topic: TopicName) -> frozenset[TopicName]:
        """Return the lists that a source belongs to; none before the source was read."""
        source = self._sources.get(topic)
        return frozenset() if source is None else frozenset(target.topic for target in source.lists)

    @property
    def told_lists(self) -> frozenset[TopicName]:
        """Lists whose heads this step locks, as far as it has come."""
        return frozenset(self._targets)

    def results(self) -> list[Stepped]:
        """Return what was done for each source that has a head; after the commit."""
        return [
            Stepped(
                topic,
                source.summary,
                source.summary.applied_seq - source.locked.applied_seq,
                max(0, source.decision.due_at_us - self._now_us)
                if isinstance(source.decision, Wait)
                else None,
            )
            for topic, source in self._sources.items()
        ]

    def _stored(self, source: LockedSource) -> RunSummary:
        if source.summary is None and source.applied_seq == 0:
            return empty_summary(source.topic, source.owner_user_id, source.org_id)
        if source.summary is None or source.summary.applied_seq != source.applied_seq:
            found = "none" if source.summary is None else source.summary.applied_seq
            raise ProjectionFailed(f"topic={source.topic} checkpoint={source.applied_seq} row={found}")
        return source.summary

    def _is_changed(self, source: _Source) -> bool:
        return source.summary != source.locked.summary and source.summary.applied_seq > 0

    def _collect(self, source: _Source) -> None:
        """Add a run's summary to the lists in which it is told."""
        for target in source.lists:
            self._targets.setdefault(target.topic, (target, []))[1].append(source)

    def _place(self, call: AppendCall, appended: AppendResult) -> None:
        at = 0
        for ordinal, (target, count) in enumerate(zip(call.targets, call.event_counts, strict=True)):
            end = at + count
            self.committed.append(
                CommittedTopic(
                    topic=target.topic,
                    topic_class=target.topic_class,
                    first_seq=appended.seqs_before[ordinal] + 1,
                    kinds=call.kinds[at:end],
                    payloads=call.payloads[at:end],
                    schema_versions=call.schema_versions[at:end],
                    chains=appended.chains[at * CHAIN_BYTES : end * CHAIN_BYTES],
                    chain_before=appended.chains_before[ordinal],
                    committed_at_us=appended.committed_at_us,
                )
            )
            at = end


def user_list(user_id: str) -> TopicTarget:
    """Return the list of a user's runs as a target."""
    return TopicTarget(format_user_runs(user_id), "user_runs", user_id, None, None)


def list_targets(owner_user_id: str, org_id: str | None) -> list[TopicTarget]:
    """Return the lists in which a run is told: its owner's, and its org's if it has one."""
    targets = [user_list(owner_user_id)]
    if org_id is not None:
        targets.append(TopicTarget(format_org_runs(org_id), "org_runs", None, org_id, None))
    return targets


def empty_summary(topic: TopicName, owner_user_id: str, org_id: str | None) -> RunSummary:
    """Return the summary of a run of which nothing has been applied."""
    run_id = parse_topic(topic).ids["run_id"]
    return RunSummary(run_id=run_id, owner_user_id=owner_user_id, org_id=org_id)
