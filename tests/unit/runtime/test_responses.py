"""Responses are what was decided, nothing else."""

from __future__ import annotations

from khala_contracts import http_messages as m
from khala_contracts.topics import Lineage
from runtime.core.outcomes import Appended, AppendedPart
from runtime.core.responses import append_response, create_response, transition_response
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.rig import LINEAGE, ORG, facts

RUN = facts(1, name="n", org_id=ORG)
PART = AppendedPart(RUN.topic, Lineage(LINEAGE), 7, ("e1", "e2"), b"x" * 32 + b"y" * 32)


def test_append() -> None:
    """One ack for each event, in order, over all parts."""
    response = append_response(Appended((PART, PART)))
    assert [(ack.event_id, ack.seq, ack.chain) for ack in response.acks] == [
        ("e1", 7, b"x" * 32), ("e2", 8, b"y" * 32), ("e1", 7, b"x" * 32), ("e2", 8, b"y" * 32),
    ]  # fmt: skip
    assert {(ack.topic, ack.lineage) for ack in response.acks} == {(RUN.topic, LINEAGE)}


def test_create() -> None:
    """The run as it is right after its first event, with the ack of that event."""
    response = m.CreateRunResponse.FromString(create_response(RUN, created_at_us=5, part=PART))
    run = response.run
    assert (run.run_id, run.name, run.org_id, run.owner_user_id) == (RUN.run_id, "n", ORG, RUN.owner_user_id)
    assert (run.agent, run.source, dict(run.attributes)) == ("agent", "source", {"k": "v"})
    assert m.RUN_STATES.word(run.state) == "running"
    assert (run.created_at_us, run.finished_at_us, run.topic) == (5, 0, RUN.topic)
    assert (run.watermark.seq, run.watermark.chain, run.watermark.lineage) == (8, b"y" * 32, LINEAGE)
    assert (response.ack.event_id, response.ack.seq) == ("e1", 7)


def test_transition() -> None:
    """The run in its new state, finished if that is terminal."""
    message = transition_response(RUN, RunState.FAILED, created_at_us=5, finished_at_us=9, part=PART)
    response = m.TransitionRunResponse.FromString(message)
    assert m.RUN_STATES.word(response.run.state) == "failed"
    assert (response.run.created_at_us, response.run.finished_at_us) == (5, 9)
