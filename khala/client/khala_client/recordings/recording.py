"""A whole recording: events with their pauses, and what is known of the run. Pure.

Parsing ends before anything is appended: a file is used whole, or refused with line and reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs

from khala_client.errors import RecordingRefused
from khala_client.recordings.events import RecordedEvent, checked
from khala_client.recordings.json_document import (
    JsonDocument,
    decode_text_untrusted,
    parse_document_untrusted,
    parse_json_untrusted,
)
from khala_client.recordings.pace import reading_pause_s, writing_pause_s
from khala_client.recordings.swe_agent import is_trajectory, read_exit_status, read_steps, read_submission
from khala_client.recordings.typed_lines import LIFECYCLE_KINDS, TypedLines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Outcome", "RecordedEvent", "Recording", "format_recording_line", "parse_recording"]

_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
# A finished frame holds 256 KiB; a longer patch is an artifact of its own.
_RESULT_MAX_CHARS: Final = 48 * 1024
_WRITTEN_KINDS: Final = frozenset({"thought", "message.delta", "message.done", "action", "tool.called"})
# A pause of a recording is kept up to here: a night between two lines is not worth waiting for.
_GAP_MAX_S: Final = 3_600.0


@attrs.frozen
class Outcome:
    """How the recorded run ended; ``state`` is succeeded, failed or cancelled."""

    state: str = "succeeded"
    reason: str = ""
    result: str = attrs.field(default="", repr=False)
    exit_status: int | None = None


@attrs.frozen
class Recording:
    """What a file gave. ``source`` names its format, ``agent`` the program; ``name`` may be empty."""

    source: str
    agent: str
    name: str
    events: tuple[RecordedEvent, ...] = attrs.field(repr=False)
    outcome: Outcome

    @property
    def duration_s(self) -> float:
        """Length at real speed."""
        return sum(event.gap_s for event in self.events)


def parse_recording(data: bytes) -> Recording:
    """Return the recording in the bytes of a file.

    Raises:
        RecordingRefused: with line and reason; nothing of the file may be used.
    """
    text = decode_text_untrusted(data)
    if not text.strip():
        raise RecordingRefused("the file is empty")
    if _is_one_line_each(text):
        return _parse_lines(text)
    document = parse_document_untrusted(text)
    if not is_trajectory(document):
        raise RecordingRefused("neither a SWE-agent trajectory nor JSON lines")
    return _from_trajectory(document)


def _is_one_line_each(text: str) -> bool:
    """Return whether the first line is a JSON value by itself and no trajectory."""
    first = text.lstrip().split("\n", 1)[0]
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return not (isinstance(value, dict) and is_trajectory(JsonDocument(value, {})))


def _from_trajectory(document: JsonDocument) -> Recording:
    events = list(read_steps(document))
    exit_status = read_exit_status(document)
    submission = read_submission(document)
    if len(submission) > _RESULT_MAX_CHARS:
        events += checked(
            RecordedEvent("artifact", {"name": "submission", "text": submission}), where="info.submission"
        )
        submission = ""
    # An agent that stopped for another reason (cost, context, an error) says so; one without a word ended well.
    succeeded = exit_status in {"", "submitted"}
    return Recording(
        source="swe-agent",
        agent="swe-agent",
        name="",
        events=tuple(events),
        outcome=Outcome("succeeded" if succeeded else "failed", exit_status, submission),
    )


def _parse_lines(text: str) -> Recording:
    typed = TypedLines()
    events: list[RecordedEvent] = []
    started: Mapping[str, object] = {}
    outcome = Outcome()
    last_ms: float | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        value = parse_json_untrusted(line, line=number)
        if not isinstance(value, dict):
            raise RecordingRefused("every line must be a JSON object", line=number)
        kind, payload = value.get("kind"), value.get("data")
        if kind in LIFECYCLE_KINDS and isinstance(payload, dict):
            started = payload if kind == "run.started" else started
            outcome = _outcome(payload) if kind == "run.finished" else outcome
            continue
        pairs = typed.events_of(value)
        if pairs is None:
            raise RecordingRefused("not an event of a known program", line=number)
        gap_s, last_ms = _gap_s(value, last_ms, number)
        for index, (event_kind, data) in enumerate(pairs):
            pause_s = _default_gap_s(event_kind, data) if gap_s is None else gap_s if index == 0 else 0.0
            events += checked(RecordedEvent(event_kind, data, pause_s), line=number)
    if not events:
        raise RecordingRefused("no line holds an event")
    return Recording(
        source="jsonl",
        agent=_word(started, "agent"),
        name=_word(started, "name"),
        events=tuple(events),
        outcome=outcome,
    )


def _gap_s(
    line: Mapping[str, object], last_ms: float | None, number: int
) -> tuple[float | None, float | None]:
    """Return the pause that the line itself states, and its time stamp in milliseconds if it has one."""
    stated = line.get("gap_s")
    if stated is not None:
        if isinstance(stated, bool) or not isinstance(stated, int | float) or stated < 0:
            raise RecordingRefused("gap_s must be a number of seconds", line=number)
        return min(float(stated), _GAP_MAX_S), last_ms
    stamp = line.get("timestamp")
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        return None, last_ms
    gap_s = None if last_ms is None else min(max(0.0, (stamp - last_ms) / 1000), _GAP_MAX_S)
    return gap_s, float(stamp)


def _default_gap_s(kind: str, data: Mapping[str, object]) -> float:
    text = _word(data, "text")
    return writing_pause_s(text) if kind in _WRITTEN_KINDS else reading_pause_s(text)


def _outcome(data: Mapping[str, object]) -> Outcome:
    state = _word(data, "state").removeprefix("RUN_STATE_").lower()
    exit_status = data.get("exit_status")
    return Outcome(
        state=state if state in _STATES else "succeeded",
        reason=_word(data, "reason"),
        result=_word(data, "result"),
        exit_status=exit_status
        if isinstance(exit_status, int) and not isinstance(exit_status, bool)
        else None,
    )


def _word(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def format_recording_line(event: RecordedEvent) -> str:
    """Return the JSON line (without newline) from which parse_recording reads ``event`` again."""
    line = {"kind": event.kind, "data": dict(event.data), "gap_s": round(event.gap_s, 6)}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def format_recording_lines(events: Iterator[RecordedEvent]) -> Iterator[str]:
    """Return one line per event."""
    return map(format_recording_line, events)
