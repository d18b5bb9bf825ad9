"""Recorded agent runs as events: what ``khala import`` reads and ``khala record`` makes.

Pure: bytes in, events out, in order, each with the pause before it. A recording is read completely
before anything is made of it, so a broken file leaves nothing half done. Formats:

    SWE-agent .traj   ``trajectory`` with the prompts of ``history``, or ``history`` alone
    JSON lines        {"kind", "data"} of our own, or events of Codex, Claude Code hooks, AG-UI
"""

from __future__ import annotations

from khala_client.recordings.process_output import OutputLines
from khala_client.recordings.recording import (
    Outcome,
    RecordedEvent,
    Recording,
    format_recording_line,
    parse_recording,
)
from khala_client.recordings.typed_lines import TypedLines

__all__ = [
    "Outcome",
    "OutputLines",
    "RecordedEvent",
    "Recording",
    "TypedLines",
    "format_recording_line",
    "parse_recording",
]
