"""Commands on runs: checks what needs no lock, gives the request its identity, hands it to the appender.

Called by the HTTP adapter's handlers, one task per request; owns no task. Authorisation, sizes and
rate are looked at here, before anything is written; transitions, positions and keys are decided under
the locks (core/decisions.py). Raises CommandRefused with a registered reason; what does not exist and
what the principal may not see are the same `not_found`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import kinds, reason_codes
from khala_contracts.ids import is_id
from khala_contracts.topics import format_run_events, parse_topic
from runtime.actors.command_path import Caller, refused
from runtime.core.access_policy import Ownership, can_append, choose_org, may_create_runs
from runtime.core.commands import AppendEvents, CreateRun, RunFacts, TopicEvents, TransitionRun
from runtime.core.decisions import RUN_CLASS, target_of
from runtime.core.events import EventColumns
from runtime.core.fingerprint import fingerprint_events, fingerprint_parts
from runtime.core.outcomes import Answered, Appended
from runtime.core.run_fields import find_problem
from runtime.core.run_state_machine import KIND_STARTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.actors.command_path import CommandPath
    from runtime.actors.run_directory import KnownRun, RunDirectory
    from runtime.core.limits import RuntimeLimits
    from runtime.core.outcomes import Outcome
    from runtime.core.principals import Principal
    from runtime.core.run_fields import NewRunFields
    from runtime.core.run_state_machine import RunState
    from runtime.ports import Ids

__all__ = ["RunCommands", "Transition"]

_ROUTE_CREATE: Final = "POST /v1/runs"
_ROUTE_APPEND: Final = "POST /v1/runs/{run_id}/events"
_ROUTE_TRANSITION: Final = "POST /v1/runs/{run_id}/transitions"


@attrs.frozen
class Transition:
    """What a caller says about a change of state."""

    to_state: RunState
    reason: str
    exit_status: int | None
    result: str


class RunCommands:
    """The commands of SPEC section 4 that write runs."""

    def __init__(
        self,
        path: CommandPath,
        *,
        directory: RunDirectory,
        limits: RuntimeLimits,
        ids: Ids,
    ) -> None:
        self._path = path
        self._directory = directory
        self._limits = limits
        self._ids = ids

    async def create(self, caller: Caller, fields: NewRunFields) -> bytes:
        """Make a running run and return the encoded CreateRunResponse.

        Raises:
            CommandRefused: forbidden, invalid_argument, name_taken, idempotency_conflict.
            Unavailable: see Appender.submit.
        Cancellation: only stops the waiting.
        """
        if not may_create_runs(caller.principal):
            raise refused(reason_codes.FORBIDDEN)
        problem = find_problem(fields, self._limits)
        if problem is not None:
            raise refused(reason_codes.INVALID_ARGUMENT, field=problem.field, problem=problem.expected)
        try:
            org_id = choose_org(caller.principal, fields.org_id)
        except PermissionError:
            raise refused(reason_codes.FORBIDDEN, field="org_id") from None
        run_id = self._ids.new("run")
        facts = RunFacts(
            run_id=run_id,
            topic=format_run_events(run_id),
            owner_user_id=caller.principal.user_id,
            org_id=org_id,
            name=fields.name,
            agent=fields.agent,
            source=fields.source,
            attributes=dict(fields.attributes),
        )
        pairs = [text for pair in sorted(fields.attributes.items()) for text in pair]
        identity = fingerprint_parts(
            _ROUTE_CREATE, [fields.name, fields.agent, fields.source, fields.org_id, *pairs]
        )
        command = CreateRun(facts, self._started(facts))
        key = self._path.key(caller, _ROUTE_CREATE, "", identity)
        return self._answered(await self._path.submit(caller, key, command))

    async def append(
        self, caller: Caller, run_id: str, events: EventColumns, *, expected_seq: int | None
    ) -> Appended:
        """Append a batch atomically and return where it is.

        Raises:
            CommandRefused: not_found, run_finished, seq_conflict, rate_limited,
                idempotency_conflict.
            Unavailable: see Appender.submit.
        Cancellation: only stops the waiting.
        """
        run = await self.authorize_append(caller.principal, run_id)
        key = self._path.key(caller, _ROUTE_APPEND, run_id, fingerprint_events(events, expected_seq))
        await self._path.check_rate(run.facts.topic, RUN_CLASS, len(events), key)
        command = AppendEvents((TopicEvents(target_of(run.facts), events),), expected_seq)
        outcome = await self._path.submit(caller, key, command)
        assert isinstance(outcome, Appended)
        return outcome

    async def append_keyed(
        self, caller: Caller, run: KnownRun, events: Sequence[tuple[str, EventColumns]]
    ) -> list[Outcome]:
        """Append one chunk of a stream, in order, up to the first event that is refused.

        Args:
            caller: Its own key is not looked at.
            run: What authorize_append returned for this caller.
            events: (key or "", one event) each. Without any key the chunk is one atomic request.

        Returns:
            One outcome for each event; if no event has a key, one for all of them.

        Raises:
            Unavailable: see Appender.submit.
        """
        target = target_of(run.facts)
        if not any(key for key, _ in events):
            columns = _joined([event for _, event in events])
            key = self._path.key(attrs.evolve(caller, key=None), _ROUTE_APPEND, run.facts.run_id, b"")
            command = AppendEvents((TopicEvents(target, columns),))
            requests = [self._path.request(caller, key, command)]
        else:
            requests = [
                self._path.request(
                    caller,
                    self._path.key(
                        attrs.evolve(caller, key=key or None),
                        _ROUTE_APPEND,
                        run.facts.run_id,
                        fingerprint_events(event, None),
                    ),
                    AppendEvents((TopicEvents(target, event),)),
                )
                for key, event in events
            ]
        return await self._path.submit_all(requests)

    async def transition(self, caller: Caller, run_id: str, wanted: Transition) -> bytes:
        """Move a run to another state and return the encoded TransitionRunResponse.

        Raises:
            CommandRefused: not_found, invalid_transition, invalid_argument, idempotency_conflict.
            Unavailable: see Appender.submit.
        Cancellation: only stops the waiting.
        """
        run = await self.authorize_append(caller.principal, run_id)
        if len(wanted.reason.encode()) > self._limits.reason_bytes_max:
            raise refused(
                reason_codes.INVALID_ARGUMENT, field="reason", problem=_at_most(self._limits.reason_bytes_max)
            )
        payload_max = parse_topic(run.facts.topic).topic_class.payload_max_bytes
        # The payload also holds the reason and a few numbers.
        if len(wanted.result.encode()) > payload_max - 2 * self._limits.reason_bytes_max:
            raise refused(reason_codes.PAYLOAD_TOO_LARGE, field="result")
        identity = fingerprint_parts(
            _ROUTE_TRANSITION, [wanted.to_state.value, wanted.reason, wanted.exit_status, wanted.result]
        )
        command = TransitionRun(
            facts=run.facts,
            created_at_us=run.created_at_us,
            event_id=self._ids.new("evt"),
            to_state=wanted.to_state,
            reason=wanted.reason,
            exit_status=wanted.exit_status,
            result=wanted.result,
        )
        key = self._path.key(caller, _ROUTE_TRANSITION, run_id, identity)
        return self._answered(await self._path.submit(caller, key, command))

    async def authorize_append(self, principal: Principal, run_id: str) -> KnownRun:
        """Return the run if the principal may write to it.

        Raises:
            CommandRefused: not_found.
            Unavailable: The database does not answer.
        """
        run = await self._directory.find(run_id) if is_id("run", run_id) else None
        if run is None:
            raise refused(reason_codes.NOT_FOUND)
        ownership = Ownership(run.facts.owner_user_id, run.facts.org_id)
        if not can_append(principal, parse_topic(run.facts.topic), ownership):
            raise refused(reason_codes.NOT_FOUND)
        return run

    def _started(self, facts: RunFacts) -> EventColumns:
        data = {
            "name": facts.name,
            "agent": facts.agent,
            "source": facts.source,
            "attributes": dict(facts.attributes),
        }
        payload = kinds.encode_payload(RUN_CLASS, KIND_STARTED, data)
        version = kinds.payload_type(RUN_CLASS, KIND_STARTED).schema_version
        return EventColumns((self._ids.new("evt"),), (KIND_STARTED,), (payload,), (version,))

    @staticmethod
    def _answered(outcome: Appended | Answered) -> bytes:
        assert isinstance(outcome, Answered)
        return outcome.message


def _joined(events: Sequence[EventColumns]) -> EventColumns:
    return EventColumns(
        event_ids=tuple(item for event in events for item in event.event_ids),
        kinds=tuple(item for event in events for item in event.kinds),
        payloads=tuple(item for event in events for item in event.payloads),
        schema_versions=tuple(item for event in events for item in event.schema_versions),
    )


def _at_most(limit: int) -> str:
    return f"at most {limit} bytes"
