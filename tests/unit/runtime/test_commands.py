"""What a request and a submission say about themselves."""

from __future__ import annotations

import pytest

from runtime.core.commands import Submission
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.rig import append, append_to_many, create, facts, thoughts, transition


def test_measures() -> None:
    """Events and payload bytes of each kind of command, and the topic that chooses its writer."""
    run, other = facts(1), facts(2)
    events = thoughts("a", "bc")
    both = append_to_many([other, run], "x")
    requests = [append(run, events), both, create(run), transition(run, RunState.FAILED)]
    assert [request.event_count for request in requests] == [2, 2, 1, 1]
    assert [request.size_bytes for request in requests] == [events.size_bytes, 6, 0, len("because")]
    assert [request.first_topic for request in requests] == [run.topic, other.topic, run.topic, run.topic]
    topics = [(run.topic,), (other.topic, run.topic), (run.topic,), (run.topic,)]
    assert [request.topics for request in requests] == topics


def test_submission_adds_up() -> None:
    """A submission has at least one request and the sums of all."""
    run = facts()
    submission = Submission((append(run, thoughts("a")), append(run, thoughts("b", "c"))))
    assert (submission.event_count, submission.size_bytes) == (3, 9)
    with pytest.raises(ValueError, match="at least one"):
        Submission(())
    with pytest.raises(ValueError, match="appends only"):
        Submission((append(run, thoughts("a")), create(facts(2))))
