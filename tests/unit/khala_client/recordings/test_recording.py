from __future__ import annotations

import json

import pytest

from khala_client.errors import RecordingRefused
from khala_client.recordings import RecordedEvent, format_recording_line, parse_recording
from khala_client.recordings.json_document import parse_document_untrusted


def lines(*values: object) -> bytes:
    """Return a file of JSON lines."""
    return "\n".join(json.dumps(value) for value in values).encode()


def test_lines_of_our_own() -> None:
    """What was written is read again; what starts and ends a run is about the run."""
    events = [
        RecordedEvent("thought", {"text": "hé"}, 0.5),
        RecordedEvent("custom", {"name": "x", "data": [1]}, 0.0),
    ]
    data = "\n\n".join(format_recording_line(event) for event in events).encode()
    recording = parse_recording(data + b"\n")
    assert list(recording.events) == events
    assert (recording.source, recording.outcome.state) == ("jsonl", "succeeded")


def test_a_recorded_tail_keeps_what_is_known_of_the_run() -> None:
    """``khala tail --json`` into a file is a recording, with name, agent and outcome."""
    recording = parse_recording(
        lines(
            {"topic": "t", "seq": "1", "kind": "run.started", "data": {"name": "n", "agent": "a"}},
            {"topic": "t", "seq": "2", "kind": "thought", "data": {"text": "hi"}},
            {"topic": "t", "seq": "3", "kind": "run.state_changed", "data": {"to_state": "RUN_STATE_PAUSED"}},
            {
                "kind": "run.finished",
                "data": {"state": "RUN_STATE_FAILED", "reason": "r", "exit_status": 3, "result": "patch"},
            },
        )
    )
    assert [event.kind for event in recording.events] == ["thought"]
    assert (recording.name, recording.agent) == ("n", "a")
    outcome = recording.outcome
    assert (outcome.state, outcome.reason, outcome.exit_status, outcome.result) == ("failed", "r", 3, "patch")


def test_pauses_by_time_stamp_or_by_default() -> None:
    """Milliseconds of AG-UI; never backwards; a night is an hour; else by the length of the text."""
    recording = parse_recording(
        lines(
            {"type": "STEP_STARTED", "stepName": "a", "timestamp": 1_000},
            {"type": "STEP_STARTED", "stepName": "b", "timestamp": 3_500},
            {"type": "STEP_STARTED", "stepName": "c", "timestamp": 3_000},
            {"type": "STEP_STARTED", "stepName": "d", "timestamp": 90_000_000},
            {"kind": "thought", "data": {"text": "x" * 400}},
            {"kind": "output", "data": {"text": "x" * 5_000}},
            {"kind": "thought", "data": {"text": "x"}, "gap_s": 7_200},
        )
    )
    assert [event.gap_s for event in recording.events] == [0.1, 2.5, 0.0, 3_600.0, 2.0, 1.0, 3_600.0]


def test_one_line_may_be_several_events() -> None:
    """The pause is before the first of them."""
    codex = {"type": "item.completed", "item": {"id": "i", "type": "command_execution", "command": "ls"}}
    recording = parse_recording(lines({"type": "turn.started"}, {**codex, "gap_s": 0.0}))
    assert [event.kind for event in recording.events] == ["step.started", "action", "observation"]


def test_a_trajectory_on_one_line_is_a_trajectory() -> None:
    """Also if it fits on the first line; and a byte order mark is no content."""
    recording = parse_recording(
        b"\xef\xbb\xbf" + lines({"trajectory": [{"thought": "t", "observation": "o"}]})
    )
    assert recording.source == "swe-agent"


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"", 0, "the file is empty"),
        (b" \n\n ", 0, "the file is empty"),
        (b"\n\xff", 2, "not UTF-8"),
        (b"just text", 1, "not JSON"),
        (b'{"kind": "thought", "data": {}}\n{"kind": ', 2, "not JSON"),
        (b'{"kind": "thought", "data": {}}\n[1]', 2, "must be a JSON object"),
        (b'{"kind": "thought", "data": {}}\n\n{"hello": 1}', 3, "not an event of a known program"),
        (b'{"kind": "thought", "data": {}}\n{"kind": "thought", "data": {"text": NaN}}', 2, "NaN"),
        (b'{"kind": "thought", "data": {"txt": 1}}', 1, "thought cannot be appended"),
        (b'{"kind": "no.such", "data": {}}', 1, "no.such cannot be appended"),
        (b'{"kind": "thought", "data": {}, "gap_s": -1}', 1, "gap_s"),
        (b'{"kind": "thought", "data": {}, "gap_s": "1"}', 1, "gap_s"),
        (b'{"kind": "run.started", "data": {}}', 0, "no line holds an event"),
        (b'{\n"a": 1\n}', 0, "neither a SWE-agent trajectory nor JSON lines"),
        (b'{\n"trajectory": [\n{"thought": "t"},\n{"thought": \n]}', 5, "not JSON"),
        (b'{\n"trajectory": [\n{"thought": "t"}\n', 4, "not JSON: ',' or ']' was expected"),
        (b'{\n"a": 1 "b": 2}', 2, "',' or '}' was expected"),
        (b'{\n"a" 1}', 2, "':' was expected"),
        (b"{\n5: 1}", 2, "a name in quotes"),
        (b'{\n"a": 1}\n{"b": 2}', 3, "something follows"),
        (b'{\n"a": Infinity}', 0, "Infinity"),
        (b"[\n1]", 1, "an object was expected"),
        (b'{\n"a": ' + b"[" * 100_000, 0, "nested too deeply"),
        (b"[" * 100_000 + b"\n", 1, "an object was expected"),
    ],
)
def test_broken_files_are_refused_with_their_line(data: bytes, line: int, reason: str) -> None:
    """Nothing of them is used."""
    with pytest.raises(RecordingRefused) as refused:
        parse_recording(data)
    assert refused.value.line == line
    assert reason in refused.value.reason


def test_deep_lines_are_refused() -> None:
    """Of JSON lines, too."""
    data = b'{"kind": "thought", "data": {}}\n' + b'{"a":' * 100_000
    with pytest.raises(RecordingRefused, match="line 2"):
        parse_recording(data)


def test_lines_of_elements_are_known() -> None:
    """Also of empty arrays and of what is no array."""
    document = parse_document_untrusted('{"a": [1,\n2,\n\n3], "b": [], "c": {}}')
    assert document.members == {"a": [1, 2, 3], "b": [], "c": {}}
    assert document.lines == {"a": [1, 2, 4], "b": []}
    assert (document.line_of("a", 2), document.line_of("a", 3), document.line_of("c", 0)) == (4, 0, 0)
    assert parse_document_untrusted("{}").members == {}
