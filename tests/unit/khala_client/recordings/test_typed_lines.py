from __future__ import annotations

from typing import Any

import pytest

from khala_client.outgoing import OutgoingEvent
from khala_client.recordings import TypedLines
from khala_contracts.kind_names import (
    AG_UI_KINDS,
    CLAUDE_CODE_HOOK_KINDS,
    CODEX_EVENT_KINDS,
    CODEX_ITEM_KINDS,
)


def events_of(*lines: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Map lines of one stream; every event of them can be appended."""
    typed = TypedLines()
    events = []
    for line in lines:
        pairs = typed.events_of(line)
        assert pairs is not None, line
        events += list(pairs)
    for kind, data in events:
        OutgoingEvent.of(kind, data)
    return events


def item(event: str, item_type: str, **fields: object) -> dict[str, Any]:
    """Return a line of Codex about an item."""
    return {"type": f"item.{event}", "item": {"id": "item_1", "type": item_type, **fields}}


def test_codex() -> None:
    """A turn with a message, a thought, a command, files, tools and errors."""
    assert events_of(
        {"type": "thread.started", "thread_id": "th"},
        {"type": "turn.started"},
        item("completed", "reasoning", text="hm"),
        item("started", "command_execution", command="ls", status="in_progress"),
        item("completed", "command_execution", command="ls", aggregated_output="a\n", exit_code=0),
        item("completed", "agent_message", text="done"),
        item("completed", "file_change", changes=[{"path": "a.py", "kind": "update"}, 5]),
        item("completed", "file_change", changes=None),
        item("started", "mcp_tool_call", server="s", tool="t", arguments={"q": 1}),
        item("completed", "mcp_tool_call", server="s", tool="t", result={"ok": True}, error=None),
        item("completed", "web_search", query="khala", error={"message": "no net"}),
        item("completed", "todo_list", items=[]),
        item("completed", "error", message="bad"),
        item("updated", "todo_list", items=[]),
        item("started", "agent_message"),
        {"type": "item.completed", "item": 5},
        {"type": "turn.failed", "error": {"message": "boom"}},
        {"type": "error", "message": "gone"},
        {"type": "turn.completed", "usage": {}},
    ) == [
        ("custom", {"name": "thread.started", "data": {"type": "thread.started", "thread_id": "th"}}),
        ("step.started", {"step": 1, "title": ""}),
        ("thought", {"text": "hm", "step": 1, "role": "assistant"}),
        ("action", {"text": "ls", "step": 1, "tool": "shell", "call_id": "item_1"}),
        ("observation", {"text": "a\n", "step": 1, "call_id": "item_1", "state": {"exit_code": 0}}),
        ("message.done", {"message_id": "item_1", "text": "done", "role": "assistant"}),
        ("artifact", {"name": "a.py", "text": "update"}),
        ("custom", {"name": "file_change", "data": {"id": "item_1", "type": "file_change", "changes": None}}),
        ("tool.called", {"call_id": "item_1", "tool": "s.t", "args": {"q": 1}, "step": 1}),
        ("tool.returned", {"call_id": "item_1", "step": 1, "result": {"ok": True}}),
        ("tool.called", {"call_id": "item_1", "tool": "web_search", "args": {"query": "khala"}, "step": 1}),
        ("tool.returned", {"call_id": "item_1", "step": 1, "error": "no net"}),
        ("custom", {"name": "todo_list", "data": {"id": "item_1", "type": "todo_list", "items": []}}),
        ("error", {"text": "bad", "type": "error", "step": 1}),
        ("custom", {"name": "item.updated.todo_list", "data": item("updated", "todo_list", items=[])}),
        ("custom", {"name": "item.completed", "data": {"type": "item.completed", "item": 5}}),
        ("error", {"text": "boom", "type": "turn.failed", "step": 1}),
        ("error", {"text": "gone", "type": "error", "step": 1}),
        ("custom", {"name": "turn.completed", "data": {"type": "turn.completed", "usage": {}}}),
    ]


def test_claude_code() -> None:
    """Inputs of hooks, in the order of a session."""
    base = {"session_id": "s", "cwd": "/w"}
    events = events_of(
        {**base, "hook_event_name": "SessionStart"},
        {**base, "hook_event_name": "UserPromptSubmit", "prompt": "Fix it\nplease"},
        {
            **base,
            "hook_event_name": "PreToolUse",
            "tool_name": "Bash",
            "tool_input": {"command": "ls"},
            "tool_use_id": "u",
        },
        {**base, "hook_event_name": "PostToolUse", "tool_response": {"stdout": "a"}, "tool_use_id": "u"},
        {**base, "hook_event_name": "Notification", "message": "waiting"},
        {**base, "hook_event_name": "Stop"},
        {**base, "hook_event_name": "Stop", "last_assistant_message": "Done."},
        {**base, "hook_event_name": "HookOfTomorrow"},
    )
    assert [kind for kind, _ in events] == [
        "custom", "message.done", "step.started", "tool.called", "tool.returned", "output", "custom", "message.done", "custom",
    ]  # fmt: skip
    assert events[1][1] == {"message_id": "prompt-1", "text": "Fix it\nplease", "role": "user"}
    assert events[2][1] == {"step": 1, "title": "Fix it"}
    assert events[3][1] == {"call_id": "u", "tool": "Bash", "step": 1, "args": {"command": "ls"}}
    assert events[4][1] == {"call_id": "u", "step": 1, "result": {"stdout": "a"}}
    assert events[5][1]["text"] == "waiting"
    assert events[7][1]["text"] == "Done."
    assert [events[index][1]["name"] for index in (0, 6, 8)] == ["SessionStart", "Stop", "HookOfTomorrow"]


def test_ag_ui() -> None:
    """Deltas with their offsets in code points, and the whole text at the end."""
    events = events_of(
        {"type": "RUN_STARTED", "threadId": "t", "runId": "r"},
        {"type": "STEP_STARTED", "stepName": "plan"},
        {"type": "TEXT_MESSAGE_START", "messageId": "m"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "hé"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "!"},
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "grep"},
        {"type": "TOOL_CALL_RESULT", "toolCallId": "c", "content": "found"},
        {"type": "RAW", "event": "text"},
        {"type": "RAW", "event": {"a": 1}},
        {"type": "CUSTOM", "name": "mine", "value": 1},
        {"type": "RUN_ERROR", "message": "no", "code": "E1"},
    )
    assert [data for kind, data in events if kind == "message.delta"] == [
        {"message_id": "m", "offset": 0, "text": "hé"},
        {"message_id": "m", "offset": 2, "text": "!"},
    ]
    assert ("message.done", {"message_id": "m", "text": "hé!", "role": "assistant"}) in events
    assert ("step.started", {"step": 1, "title": "plan"}) in events
    assert ("tool.called", {"call_id": "c", "tool": "grep", "step": 1}) in events
    assert ("tool.returned", {"call_id": "c", "step": 1, "result": "found"}) in events
    assert ("error", {"text": "no", "type": "E1", "step": 1}) in events
    assert [data["name"] for kind, data in events if kind == "custom"] == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "RAW", "mine",
    ]  # fmt: skip


def test_texts_that_never_end_are_bounded() -> None:
    """256 open messages; more are kept as they are."""
    typed = TypedLines()
    for number in range(256):
        typed.events_of({"type": "TEXT_MESSAGE_CONTENT", "messageId": str(number), "delta": "x"})
    pairs = typed.events_of({"type": "TEXT_MESSAGE_CONTENT", "messageId": "one more", "delta": "x"})
    assert pairs is not None
    assert pairs[0][0] == "custom"
    known = typed.events_of({"type": "TEXT_MESSAGE_CONTENT", "messageId": "0", "delta": "y"})
    assert known is not None
    assert known[0][1]["offset"] == 1


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"type": "info"},
        {"type": 5},
        {"kind": "thought"},
        {"kind": 1, "data": {}},
        {"level": "info", "msg": "x"},
    ],
)
def test_what_is_of_no_known_program(line: dict[str, Any]) -> None:
    """A log line in JSON is not an event."""
    assert TypedLines().events_of(line) is None


def test_our_own_run_is_ours() -> None:
    """Its start and end are not appended by anybody else."""
    assert TypedLines().events_of({"kind": "run.finished", "data": {}}) == ()
    assert TypedLines().events_of({"kind": "thought", "data": {"text": "x"}}) == (("thought", {"text": "x"}),)


def test_every_name_of_the_tables_gives_something() -> None:
    """Whatever fields are there or missing: an event that can be appended, or nothing."""
    bare: list[dict[str, Any]] = [{"type": name} for name in (*CODEX_EVENT_KINDS, *AG_UI_KINDS)]
    bare += [{"hook_event_name": name} for name in CLAUDE_CODE_HOOK_KINDS]
    bare += [item(event, name) for name in CODEX_ITEM_KINDS for event in ("started", "updated", "completed")]
    for line in bare:
        events_of(line)
