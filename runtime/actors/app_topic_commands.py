"""Appends to an application's own topics, ``app:{org_id}:{name}``.

Called by the HTTP adapter's handlers, one task per request; owns no task. A topic begins with its first
event: there is nothing to create. Who may write is decided by the org in the topic's own name, so an org
that does not exist and one that the principal is no member of are the same `not_found`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala_contracts import reason_codes
from khala_contracts.topics import TopicInvalid, format_app, parse_topic
from runtime.actors.command_path import refused
from runtime.core.access_policy import Ownership, can_append
from runtime.core.commands import AppendEvents, TopicEvents, TopicTarget
from runtime.core.fingerprint import fingerprint_events
from runtime.core.outcomes import Appended

if TYPE_CHECKING:
    from khala_contracts.topics import ParsedTopic
    from runtime.actors.command_path import Caller, CommandPath
    from runtime.core.events import EventColumns
    from runtime.core.principals import Principal

__all__ = ["APP_CLASS", "AppTopicCommands", "parse_app_topic"]

APP_CLASS: Final = "app"
_ROUTE_APPEND: Final = "POST /v1/app-topics/{org_id}/{name}/events"


def parse_app_topic(org_id: str, name: str) -> ParsedTopic:
    """Return the topic that two parts of a path name.

    Raises:
        CommandRefused: topic_invalid; looked at without asking whether anything exists.
    """
    try:
        return parse_topic(format_app(org_id, name))
    except TopicInvalid as error:
        raise refused(reason_codes.TOPIC_INVALID, problem=error.detail) from None


class AppTopicCommands:
    """The command of SPEC section 4 that writes app topics."""

    def __init__(self, path: CommandPath) -> None:
        self._path = path

    def authorize_append(self, principal: Principal, org_id: str, name: str) -> TopicTarget:
        """Return the topic if the principal may write to it.

        Raises:
            CommandRefused: topic_invalid; not_found.
        """
        topic = parse_app_topic(org_id, name)
        if not can_append(principal, topic, Ownership(None, org_id)):
            raise refused(reason_codes.NOT_FOUND)
        return TopicTarget(topic.name, APP_CLASS, None, org_id, None)

    async def append(
        self, caller: Caller, target: TopicTarget, events: EventColumns, *, expected_seq: int | None
    ) -> Appended:
        """Append a batch atomically and return where it is.

        Args:
            caller: Who sends it.
            target: What authorize_append returned for this caller.
            events: At least one.
            expected_seq: If not None, the topic's head must be exactly this; 0 for a new topic.

        Raises:
            CommandRefused: seq_conflict, rate_limited, idempotency_conflict.
            Unavailable: see Appender.submit.
        Cancellation: only stops the waiting.
        """
        key = self._path.key(caller, _ROUTE_APPEND, target.topic, fingerprint_events(events, expected_seq))
        await self._path.check_rate(target.topic, APP_CLASS, len(events), key)
        command = AppendEvents((TopicEvents(target, events),), expected_seq)
        outcome = await self._path.submit(caller, key, command)
        assert isinstance(outcome, Appended)
        return outcome
