"""Responses of commands as protobuf messages, made inside the transaction that they describe.

Pure. The encoded message is stored with the idempotency key, so a retry gets the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts import http_messages as m
from runtime.core.run_state_machine import RunState

if TYPE_CHECKING:
    from runtime.core.commands import RunFacts
    from runtime.core.outcomes import Appended, AppendedPart

__all__ = ["add_acks", "append_response", "create_response", "run_message", "transition_response"]


def add_acks(response: m.AppendEventsResponse, part: AppendedPart) -> None:
    """Add one acknowledgement for each event of the part."""
    add, topic, lineage = response.acks.add, part.topic, part.lineage
    for event_id, seq, chain in part.acks():
        add(event_id=event_id, topic=topic, seq=seq, lineage=lineage, chain=chain)


def append_response(appended: Appended) -> m.AppendEventsResponse:
    """Return the response of an append."""
    response = m.AppendEventsResponse()
    for part in appended.parts:
        add_acks(response, part)
    return response


def _first_ack(part: AppendedPart) -> m.Ack:
    event_id, seq, chain = next(part.acks())
    return m.Ack(event_id=event_id, topic=part.topic, seq=seq, lineage=part.lineage, chain=chain)


def run_message(
    facts: RunFacts,
    state: RunState,
    *,
    created_at_us: int,
    finished_at_us: int | None,
    lineage: str,
    head_seq: int,
    head_chain: bytes,
) -> m.Run:
    """Return a run with the position of its topic that this state corresponds to."""
    return m.Run(
        run_id=facts.run_id,
        name=facts.name,
        state=m.RUN_STATES.number(state.value),
        owner_user_id=facts.owner_user_id,
        org_id=facts.org_id or "",
        agent=facts.agent,
        source=facts.source,
        attributes=facts.attributes,
        created_at_us=created_at_us,
        finished_at_us=finished_at_us or 0,
        topic=facts.topic,
        watermark=m.Watermark(topic=facts.topic, lineage=lineage, seq=head_seq, chain=head_chain),
    )


def create_response(facts: RunFacts, *, created_at_us: int, part: AppendedPart) -> bytes:
    """Return the encoded response of POST /v1/runs."""
    run = run_message(
        facts,
        RunState.RUNNING,
        created_at_us=created_at_us,
        finished_at_us=None,
        lineage=part.lineage,
        head_seq=part.last_seq,
        head_chain=part.chains[-32:],
    )
    return m.CreateRunResponse(run=run, ack=_first_ack(part)).SerializeToString(deterministic=True)


def transition_response(
    facts: RunFacts,
    state: RunState,
    *,
    created_at_us: int,
    finished_at_us: int | None,
    part: AppendedPart,
) -> bytes:
    """Return the encoded response of POST /v1/runs/{id}/transitions."""
    run = run_message(
        facts,
        state,
        created_at_us=created_at_us,
        finished_at_us=finished_at_us,
        lineage=part.lineage,
        head_seq=part.last_seq,
        head_chain=part.chains[-32:],
    )
    message = m.TransitionRunResponse(run=run, ack=_first_ack(part))
    return message.SerializeToString(deterministic=True)
