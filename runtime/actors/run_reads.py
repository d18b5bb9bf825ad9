"""Reads for initial state: runs, pages of history, positions of topics, each with its watermark.

Called by the HTTP adapter's handlers; owns no task and keeps nothing but the run directory. A client
that subscribes after the watermark of what it read misses nothing and gets nothing twice. What does
not exist and what the principal may not see are the same `not_found`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts import reason_codes
from khala_contracts.ids import is_id
from khala_contracts.topics import TopicInvalid, format_run_events, parse_topic
from runtime.actors.app_topic_commands import parse_app_topic
from runtime.actors.command_path import CommandRefused
from runtime.core.access_policy import Ownership, can_read, may_list_runs
from runtime.core.message_pages import find_staleness
from runtime.core.outcomes import Refused
from runtime.core.principals import PrincipalKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from khala_contracts.topics import ParsedTopic, TopicName
    from runtime.core.limits import RuntimeLimits
    from runtime.core.message_pages import PageCursor
    from runtime.core.principals import Principal
    from runtime.ports import EventPage, JournalStore, MessagePage, RunRecord, TopicRecord

__all__ = ["RunPage", "RunReads"]


@attrs.frozen
class RunPage:
    """Runs, newest first; `next_before` is where the next page starts, "" on the last one."""

    runs: Sequence[RunRecord]
    next_before: str


class RunReads:
    """The reads of SPEC section 4 that this issue has."""

    def __init__(self, *, store: JournalStore, limits: RuntimeLimits) -> None:
        self._store = store
        self._limits = limits

    async def get_run(self, principal: Principal, run_id: str) -> RunRecord:
        """Return one run.

        Raises:
            CommandRefused: not_found.
            Unavailable: The database does not answer.
        """
        record = await self._store.read_run(run_id) if is_id("run", run_id) else None
        if record is None:
            raise _not_found()
        topic = parse_topic(record.facts.topic)
        if not can_read(principal, topic, Ownership(record.facts.owner_user_id, record.facts.org_id)):
            raise _not_found()
        return record

    async def list_runs(self, principal: Principal, *, before: str, limit: int) -> RunPage:
        """Return a page of the principal's own runs and those of its orgs; of a key's org only.

        Args:
            principal: Who asks.
            before: `next_before` of the previous page, "" for the first.
            limit: 1..page_runs_max.

        Raises:
            CommandRefused: forbidden for a key without the right; invalid_argument.
            Unavailable: The database does not answer.
        """
        if not may_list_runs(principal):
            raise CommandRefused(Refused(reason_codes.FORBIDDEN, {}))
        if before and not is_id("run", before):
            raise CommandRefused(Refused(reason_codes.INVALID_ARGUMENT, {"field": "page_token"}))
        found = await self._store.list_runs(
            # No user is named "": what a key's creator owns elsewhere is not the key's to see.
            user_id="" if principal.kind is PrincipalKind.SERVICE else principal.user_id,
            org_ids=sorted(principal.org_roles),
            before_run_id=before or None,
            # One more tells whether there is a next page.
            limit=limit + 1,
        )
        page = found[:limit]
        return RunPage(page, page[-1].facts.run_id if len(found) > limit else "")

    async def read_events(
        self, principal: Principal, run_id: str, *, after_seq: int, limit: int
    ) -> EventPage:
        """Return a page of a run's history; the log is never pruned, so any position can be read.

        Args:
            principal: Who asks.
            run_id: The run.
            after_seq: Position after which the page starts.
            limit: 1..page_events_max; the page is also cut at page_bytes_max.

        Raises:
            CommandRefused: not_found; stale_cursor.lineage_mismatch for a position ahead of the
                head, which belongs to another history.
            Unavailable: The database does not answer.
        """
        if not is_id("run", run_id):
            raise _not_found()
        return await self._read_page(
            principal, parse_topic(format_run_events(run_id)), after_seq=after_seq, limit=limit
        )

    async def read_app_events(
        self, principal: Principal, org_id: str, name: str, *, after_seq: int, limit: int
    ) -> EventPage:
        """Return a page of an app topic's history. Arguments and errors: as `read_events`.

        Raises:
            CommandRefused: also topic_invalid.
        """
        topic = parse_app_topic(org_id, name)
        # Before the read: of a run only its head row knows who may, here the name does.
        if not can_read(principal, topic, Ownership(None, org_id)):
            raise _not_found()
        return await self._read_page(principal, topic, after_seq=after_seq, limit=limit)

    async def _read_page(
        self, principal: Principal, topic: ParsedTopic, *, after_seq: int, limit: int
    ) -> EventPage:
        page = await self._store.read_events(
            topic.name, after_seq=after_seq, limit=limit, max_bytes=self._limits.page_bytes_max
        )
        if page is None or not _may_read(principal, topic, page.topic):
            raise _not_found()
        if after_seq > page.topic.head_seq:
            details = {"after_seq": str(after_seq), "head_seq": str(page.topic.head_seq)}
            raise CommandRefused(Refused(reason_codes.STALE_LINEAGE_MISMATCH, details))
        return page

    async def get_topic(self, principal: Principal, name: str) -> TopicRecord:
        """Return a topic's position.

        Raises:
            CommandRefused: topic_invalid; not_found.
            Unavailable: The database does not answer.
        """
        try:
            topic = parse_topic(name)
        except TopicInvalid as error:
            raise CommandRefused(Refused(reason_codes.TOPIC_INVALID, {"problem": error.detail})) from None
        record = await self._store.read_topic(topic.name)
        if record is None or not _may_read(principal, topic, record):
            raise _not_found()
        return record

    async def read_messages(self, name: str, cursor: PageCursor, *, limit: int) -> MessagePage:
        """Return a page of a topic's journal; for operators only.

        Args:
            name: The topic.
            cursor: Position after which the page starts.
            limit: 1..page_events_max frames; the page is also cut at page_bytes_max.

        Raises:
            CommandRefused: topic_invalid; not_found; stale_cursor with what was observed.
            Unavailable: The database does not answer.
        """
        try:
            topic = parse_topic(name)
        except TopicInvalid as error:
            raise CommandRefused(Refused(reason_codes.TOPIC_INVALID, {"problem": error.detail})) from None
        page = await self._store.read_messages(
            topic.name, after_seq=cursor.seq, limit=limit, max_bytes=self._limits.page_bytes_max
        )
        if page is None:
            raise _not_found()
        staleness = find_staleness(cursor, page.start)
        if staleness is not None:
            raise CommandRefused(staleness)
        return page

    async def owners(self, names: Sequence[str]) -> Mapping[TopicName, TopicRecord]:
        """Return the head rows of those names that are topics and have one; for control only.

        Raises:
            CommandRefused: limit_exceeded, invalid_argument for none at all.
            Unavailable: The database does not answer.
        """
        if not names:
            raise CommandRefused(Refused(reason_codes.INVALID_ARGUMENT, {"field": "topics"}))
        if len(names) > self._limits.topic_owners_max:
            limit = str(self._limits.topic_owners_max)
            raise CommandRefused(Refused(reason_codes.LIMIT_EXCEEDED, {"field": "topics", "limit": limit}))
        topics: list[TopicName] = []
        for name in names:
            try:
                topics.append(parse_topic(name).name)
            except TopicInvalid:
                continue
        return await self._store.read_topics(topics) if topics else {}


def _may_read(principal: Principal, topic: ParsedTopic, record: TopicRecord) -> bool:
    return can_read(principal, topic, Ownership(record.owner_user_id, record.org_id))


def _not_found() -> CommandRefused:
    return CommandRefused(Refused(reason_codes.NOT_FOUND, {}))
