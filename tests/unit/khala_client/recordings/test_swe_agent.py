from __future__ import annotations

import json
from typing import Any

import pytest

from khala_client.errors import RecordingRefused
from khala_client.outgoing import OutgoingEvent
from khala_client.recordings import Recording, parse_recording
from khala_client.recordings.events import TEXT_PART_MAX_BYTES

STEP = {
    "action": "open a.py\n",
    "observation": "1: x\r\n",
    "thought": "Look at it.\nThen change it.",
    "response": "raw",
    "state": '{"open_file": "n/a"}',
    "execution_time": 0.25,
}
PROMPTS = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": "A demonstration.", "is_demo": True},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Fix it."}, {"type": "image_url", "image_url": "x"}],
    },
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "open", "arguments": '{"path": "a.py"}'}}


def parse(document: dict[str, Any]) -> Recording:
    """Parse a document as a file has it."""
    return parse_recording(json.dumps(document, indent=1).encode())


def shapes(recording: Recording) -> list[tuple[str, dict[str, Any]]]:
    """Return kinds and data."""
    return [(event.kind, dict(event.data)) for event in recording.events]


def test_every_part_of_a_step_in_order() -> None:
    """step.started, thought, action, observation with state and duration."""
    recording = parse(
        {"trajectory": [STEP], "history": [], "info": {"exit_status": "submitted", "submission": "diff"}}
    )
    assert shapes(recording) == [
        ("step.started", {"step": 1, "title": "Look at it."}),
        ("thought", {"text": "Look at it.\nThen change it.", "step": 1, "role": "assistant"}),
        ("action", {"text": "open a.py\n", "step": 1}),
        ("observation", {"text": "1: x\r\n", "step": 1, "duration_s": 0.25, "state": {"open_file": "n/a"}}),
    ]
    assert [event.gap_s for event in recording.events] == [0.0, 0.2, 0.0, 0.25]
    assert (recording.source, recording.agent, recording.name) == ("swe-agent", "swe-agent", "")
    assert (recording.outcome.state, recording.outcome.reason, recording.outcome.result) == (
        "succeeded",
        "submitted",
        "diff",
    )
    assert recording.duration_s == pytest.approx(0.45)


def test_the_prompts_come_first() -> None:
    """Everything of the history before the first answer; the rest of it is the trajectory again."""
    history = [*PROMPTS, {"role": "assistant", "content": "x"}, {"role": "user", "content": "1: x"}]
    recording = parse({"trajectory": [STEP, STEP], "history": history})
    assert shapes(recording)[:3] == [
        ("message.done", {"message_id": "history-0", "role": "system", "text": "You are an agent."}),
        ("message.done", {"message_id": "history-1", "role": "user", "text": "A demonstration."}),
        ("message.done", {"message_id": "history-2", "role": "user", "text": "Fix it.\n[image_url]"}),
    ]
    assert [event.kind for event in recording.events[3:]] == [
        "step.started",
        "thought",
        "action",
        "observation",
    ] * 2
    assert recording.events[-1].data["step"] == 2


def test_a_history_alone() -> None:
    """One step per answer, its calls as actions, what came back as observations."""
    history = [
        *PROMPTS[:2],
        {
            "role": "assistant",
            "content": "c",
            "thought": "Open.",
            "action": "open a.py",
            "tool_calls": [CALL, CALL],
        },
        {"role": "tool", "content": "1: x", "tool_call_ids": ["call_1"]},
        {"role": "assistant", "content": "Done.", "action": "submit"},
        {"role": "user", "content": "ok"},
        {"role": "tool", "content": "late", "tool_call_id": "call_9"},
    ]
    call = {"tool": "open", "args": {"path": "a.py"}, "call_id": "call_1"}
    assert shapes(parse({"history": history}))[2:] == [
        ("step.started", {"step": 1, "title": "Open."}),
        ("thought", {"text": "Open.", "step": 1, "role": "assistant"}),
        ("action", {"text": "open a.py", "step": 1, **call}),
        ("action", {"text": "", "step": 1, **call}),
        ("observation", {"text": "1: x", "step": 1, "call_id": "call_1"}),
        ("step.started", {"step": 2, "title": "Done."}),
        ("thought", {"text": "Done.", "step": 2, "role": "assistant"}),
        ("action", {"text": "submit", "step": 2}),
        ("observation", {"text": "ok", "step": 2, "call_id": ""}),
        ("observation", {"text": "late", "step": 2, "call_id": "call_9"}),
    ]


@pytest.mark.parametrize(
    ("step", "kinds"),
    [
        ({"action": "ls", "observation": ""}, ["step.started", "action", "observation"]),
        ({"thought": "", "response": "r", "observation": None}, ["step.started", "thought"]),
        ({"thought": None, "action": None, "observation": "o"}, ["step.started", "observation"]),
    ],
)
def test_steps_that_lack_something(step: dict[str, Any], kinds: list[str]) -> None:
    """No event is made of nothing; an observation may be empty."""
    recording = parse({"trajectory": [step]})
    assert [event.kind for event in recording.events] == kinds


def test_a_state_of_any_form_is_kept() -> None:
    """Objects, JSON in a string, or a string."""
    states = [{"a": 1}, '{"a": 1}', "plain", None]
    recording = parse({"trajectory": [{"observation": "o", "state": state} for state in states]})
    found = [event.data.get("state") for event in recording.events if event.kind == "observation"]
    assert found == [{"a": 1}, {"a": 1}, "plain", None]


def test_an_agent_that_gave_up_failed() -> None:
    """Its own word is the reason."""
    outcome = parse({"trajectory": [STEP], "info": {"exit_status": "exit_cost"}}).outcome
    assert (outcome.state, outcome.reason) == ("failed", "exit_cost")
    assert parse({"trajectory": [STEP], "info": None}).outcome.state == "succeeded"


def test_a_long_patch_becomes_an_artifact() -> None:
    """A finished event could not hold it."""
    patch = "+" * 60_000
    recording = parse({"trajectory": [STEP], "info": {"exit_status": "submitted", "submission": patch}})
    assert recording.events[-1].data == {"name": "submission", "text": patch}
    assert recording.outcome.result == ""


def test_a_long_observation_is_split_between_characters() -> None:
    """The parts, joined, are the text; duration and state are said once."""
    text = "é" * TEXT_PART_MAX_BYTES
    recording = parse({"trajectory": [{**STEP, "observation": text}]})
    parts = [event for event in recording.events if event.kind == "observation"]
    assert len(parts) == 2
    assert "".join(str(part.data["text"]) for part in parts) == text
    assert (
        ["state" in part.data for part in parts]
        == ["duration_s" in part.data for part in parts]
        == [False, True]
    )
    assert [part.gap_s for part in parts] == [0.25, 0.0]
    for part in parts:
        OutgoingEvent.of(part.kind, part.data)


def test_a_long_prompt_is_split_into_numbered_messages() -> None:
    """Each part is a message of its own."""
    history = [{"role": "system", "content": "x" * (TEXT_PART_MAX_BYTES + 1)}]
    ids = [event.data["message_id"] for event in parse({"trajectory": [STEP], "history": history}).events[:2]]
    assert ids == ["history-0", "history-0#2"]


def test_a_long_title_is_cut() -> None:
    """A title is one line of 120 characters."""
    title = parse({"trajectory": [{"thought": "x" * 200, "observation": ""}]}).events[0].data["title"]
    assert isinstance(title, str)
    assert len(title) == 120


@pytest.mark.parametrize(
    ("document", "line", "where"),
    [
        ({"trajectory": [], "history": []}, 0, ""),
        ({"trajectory": "x"}, 0, "trajectory"),
        ({"trajectory": [{"a": 1}, 5]}, 6, "trajectory[1]"),
        ({"trajectory": [{"thought": "t"}, {"thought": 5}]}, 6, "trajectory[1].thought"),
        ({"trajectory": [{"thought": "t"}, {"state": {}}]}, 6, "trajectory[1]"),
        ({"trajectory": [{"observation": "o", "execution_time": "1"}]}, 3, "trajectory[0].execution_time"),
        ({"trajectory": [{"observation": "o", "execution_time": -1}]}, 3, "trajectory[0].execution_time"),
        ({"trajectory": [{"observation": "o", "execution_time": True}]}, 3, "trajectory[0].execution_time"),
        ({"history": [{"role": "wizard", "content": "x"}]}, 3, "history[0].role"),
        ({"history": [{"role": "user", "content": {"a": 1}}]}, 3, "history[0].content"),
        ({"history": [{"role": "user", "content": [5]}]}, 3, "history[0].content"),
        ({"history": [{"role": "assistant", "content": "x", "tool_calls": "y"}]}, 3, "history[0].tool_calls"),
        (
            {"history": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
            3,
            "history[0].tool_calls[0]",
        ),
        ({"trajectory": [{"action": "x" * 300_000, "observation": ""}]}, 3, "trajectory[0]"),
    ],
)
def test_what_is_refused(document: dict[str, Any], line: int, where: str) -> None:
    """With line and path, and nothing of the file used."""
    with pytest.raises(RecordingRefused) as refused:
        parse(document)
    assert (refused.value.line, refused.value.where) == (line, where)
    assert refused.value.reason
