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

__all__ = ["ack_messages", "append_response", "create_response", "run_message", "transition_response"]


def ack_messages(part: AppendedPart) -> list[m.Ack]:
    """Return one acknowledgement for each event of the part."""
    topic, lineage = part.topic, part.lineage
    return [
        m.Ack(event_id=event_id, topic=topic, seq=seq, lineage=lineage, chain=chain)
        for event_id, seq, chain in part.acks()
    ]


def append_response(appended: Appended) -> m.AppendEventsResponse:
    """Return the response of an append."""
    return m.AppendEventsResponse(acks=[ack for part in appended.parts for ack in ack_messages(part)])


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
    return m.CreateRunResponse(run=run, ack=ack_messages(part)[0]).SerializeToString(deterministic=True)


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
    message = m.TransitionRunResponse(run=run, ack=ack_messages(part)[0])
    return message.SerializeToString(deterministic=True)
