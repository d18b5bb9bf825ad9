"""What other tools call our kinds. Pure data; importers and recorders look here.

A name that is absent has no counterpart: it is imported as ``custom`` with its own name, so that nothing
of a recording is lost.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AG_UI_KINDS",
    "CLAUDE_CODE_HOOK_KINDS",
    "CODEX_EVENT_KINDS",
    "CODEX_ITEM_KINDS",
    "CUSTOM_KIND",
    "SWE_AGENT_HISTORY_KINDS",
    "SWE_AGENT_STEP_KINDS",
]

CUSTOM_KIND: Final = "custom"

# SWE-agent .traj: fields of one element of ``trajectory``, in the order in which they happened.
SWE_AGENT_STEP_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {"thought": "thought", "action": "action", "observation": "observation"}
)

# SWE-agent .traj with only a ``history``: message_type of one element.
SWE_AGENT_HISTORY_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "system_prompt": "message.done",
        "demonstration": "message.done",
        "user": "message.done",
        "thought": "thought",
        "action": "action",
        "observation": "observation",
    }
)

# Codex, one JSON object a line: ``type`` of an event.
CODEX_EVENT_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "thread.started": "run.started",
        "turn.started": "step.started",
        "turn.completed": "custom",
        "turn.failed": "error",
        "error": "error",
    }
)

# Codex: ``type`` of the item in item.started (first) and item.completed (second).
CODEX_ITEM_KINDS: Final[Mapping[str, tuple[str | None, str]]] = MappingProxyType(
    {
        "agent_message": (None, "message.done"),
        "reasoning": (None, "thought"),
        "command_execution": ("action", "observation"),
        "file_change": (None, "artifact"),
        "mcp_tool_call": ("tool.called", "tool.returned"),
        "web_search": ("tool.called", "tool.returned"),
        "todo_list": (None, "custom"),
        "error": (None, "error"),
    }
)

# Claude Code: hook_event_name of a hook's input.
CLAUDE_CODE_HOOK_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SessionStart": "run.started",
        "UserPromptSubmit": "message.done",
        "PreToolUse": "tool.called",
        "PostToolUse": "tool.returned",
        "Notification": "output",
        "SubagentStop": "custom",
        "PreCompact": "custom",
        "Stop": "message.done",
        "SessionEnd": "run.finished",
    }
)

# AG-UI: ``type`` of an event. Streaming starts carry no text of their own and become custom.
AG_UI_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RUN_STARTED": "run.started",
        "RUN_FINISHED": "run.finished",
        "RUN_ERROR": "error",
        "STEP_STARTED": "step.started",
        "STEP_FINISHED": "custom",
        "TEXT_MESSAGE_START": "custom",
        "TEXT_MESSAGE_CONTENT": "message.delta",
        "TEXT_MESSAGE_END": "message.done",
        "TOOL_CALL_START": "tool.called",
        "TOOL_CALL_ARGS": "custom",
        "TOOL_CALL_END": "custom",
        "TOOL_CALL_RESULT": "tool.returned",
        "STATE_SNAPSHOT": "artifact",
        "STATE_DELTA": "custom",
        "MESSAGES_SNAPSHOT": "custom",
        "RAW": "output",
        "CUSTOM": "custom",
    }
)
