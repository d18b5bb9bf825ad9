"""JSON objects that agent programs write, one a line, as events of ours.

    {"kind": .., "data": ..}   our own, as ``khala tail --json`` and ``khala record`` write them
    Codex                      ``codex exec --json``: thread, turn and item events
    Claude Code                the input of its hooks (``hook_event_name``)
    AG-UI                      events of the protocol (``type`` in capitals)

Which kind a name becomes is a table in khala_contracts.kind_names; here is how the fields map. An
object of these programs whose name or shape is not known becomes ``custom`` with its own name, so
that nothing of a recording is lost. What starts and ends a run of theirs becomes ``custom`` too: it
is our run that starts and ends here. Holds state across lines (steps, texts that come in pieces);
one TypedLines per stream of lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from khala_contracts.kind_names import (
    AG_UI_KINDS,
    CLAUDE_CODE_HOOK_KINDS,
    CODEX_EVENT_KINDS,
    CODEX_ITEM_KINDS,
    CUSTOM_KIND,
)

__all__ = ["LIFECYCLE_KINDS", "TypedLines"]

Pairs = Sequence[tuple[str, dict[str, object]]]

# Written by the runtime when a run starts, moves, ends or changes hands; an importer does not append them.
LIFECYCLE_KINDS: Final = frozenset({"run.started", "run.state_changed", "run.finished", "run.transferred"})
_CODEX_ITEM_EVENTS: Final = frozenset({"item.started", "item.updated", "item.completed"})
# Texts that are being put together; a stream that opens more is not one of these programs.
_OPEN_TEXTS_MAX: Final = 256


class TypedLines:
    """Maps one object after the other."""

    def __init__(self) -> None:
        self._step = 0
        self._called: set[str] = set()
        self._texts: dict[str, str] = {}

    def events_of(self, line: Mapping[str, object]) -> Pairs | None:
        """Return the (kind, data) pairs of one object, None if it is of no known program.

        An empty answer means: known, and nothing of it is an event of a run.
        """
        kind, data = line.get("kind"), line.get("data")
        if isinstance(kind, str) and isinstance(data, dict):
            return () if kind in LIFECYCLE_KINDS else ((kind, data),)
        hook = line.get("hook_event_name")
        if isinstance(hook, str):
            return self._claude_code(hook, line)
        name = line.get("type")
        if not isinstance(name, str):
            return None
        if name in CODEX_EVENT_KINDS:
            return self._codex_event(name, line)
        if name in _CODEX_ITEM_EVENTS:
            return self._codex_item(name, line)
        if name in AG_UI_KINDS:
            return self._ag_ui(name, line)
        return None

    # -- Codex -------------------------------------------------------------------------------

    def _codex_event(self, name: str, line: Mapping[str, object]) -> Pairs:
        match CODEX_EVENT_KINDS[name]:
            case "step.started":
                return self._next_step("")
            case "error":
                error = line.get("error")
                text = _text(error, "message") if isinstance(error, dict) else _text(line, "message")
                return (("error", {"text": text, "type": name, "step": self._step}),)
            case _:
                return _custom(name, line)

    def _codex_item(self, name: str, line: Mapping[str, object]) -> Pairs:
        item = line.get("item")
        if not isinstance(item, dict):
            return _custom(name, line)
        item_type = _text(item, "type")
        kinds = CODEX_ITEM_KINDS.get(item_type)
        if kinds is None or name == "item.updated":
            return _custom(f"{name}.{item_type}" if item_type else name, line)
        started, completed = kinds
        item_id = _text(item, "id")
        if name == "item.started":
            self._called.add(item_id)
            return () if started is None else (self._codex_event_of(started, item_type, item_id, item),)
        pairs = [self._codex_event_of(completed, item_type, item_id, item)] if completed != "artifact" else []
        if completed == "artifact":
            pairs += _file_changes(item)
        if started is not None and item_id not in self._called:
            pairs.insert(0, self._codex_event_of(started, item_type, item_id, item))
        self._called.discard(item_id)
        return tuple(pairs)

    def _codex_event_of(
        self, kind: str, item_type: str, item_id: str, item: Mapping[str, object]
    ) -> tuple[str, dict[str, object]]:
        match kind:
            case "message.done":
                return kind, {"message_id": item_id, "text": _text(item, "text"), "role": "assistant"}
            case "thought":
                return kind, {"text": _text(item, "text"), "step": self._step, "role": "assistant"}
            case "action":
                text = _text(item, "command")
                return kind, {"text": text, "step": self._step, "tool": "shell", "call_id": item_id}
            case "observation":
                data: dict[str, object] = {
                    "text": _text(item, "aggregated_output"),
                    "step": self._step,
                    "call_id": item_id,
                }
                if item.get("exit_code") is not None:
                    data["state"] = {"exit_code": item["exit_code"]}
                return kind, data
            case "tool.called":
                tool = (
                    ".".join(part for part in (_text(item, "server"), _text(item, "tool")) if part)
                    or item_type
                )
                args = item.get("arguments", {"query": item["query"]} if "query" in item else {})
                return kind, {"call_id": item_id, "tool": tool, "args": args, "step": self._step}
            case "tool.returned":
                error = item.get("error")
                data = {"call_id": item_id, "step": self._step}
                if item.get("result") is not None:
                    data["result"] = item["result"]
                if error is not None:
                    data["error"] = _text(error, "message") if isinstance(error, dict) else str(error)
                return kind, data
            case "error":
                return kind, {"text": _text(item, "message"), "type": item_type, "step": self._step}
            case _:
                return CUSTOM_KIND, {"name": item_type, "data": dict(item)}

    # -- Claude Code ---------------------------------------------------------------------------

    def _claude_code(self, hook: str, line: Mapping[str, object]) -> Pairs:
        call_id = _text(line, "tool_use_id")
        match CLAUDE_CODE_HOOK_KINDS.get(hook):
            case "tool.called":
                data: dict[str, object] = {
                    "call_id": call_id,
                    "tool": _text(line, "tool_name"),
                    "step": self._step,
                }
                return (("tool.called", data | {"args": line.get("tool_input", {})}),)
            case "tool.returned":
                data = {"call_id": call_id, "step": self._step, "result": line.get("tool_response")}
                return (
                    ("tool.returned", {name: value for name, value in data.items() if value is not None}),
                )
            case "message.done" if hook == "UserPromptSubmit":
                prompt = _text(line, "prompt")
                data = {"message_id": f"prompt-{self._step + 1}", "text": prompt, "role": "user"}
                return (("message.done", data), *self._next_step(prompt))
            case "message.done" if _text(line, "last_assistant_message"):
                text = _text(line, "last_assistant_message")
                return (
                    (
                        "message.done",
                        {"message_id": f"answer-{self._step}", "text": text, "role": "assistant"},
                    ),
                )
            case "output":
                return (("output", {"stream": "OUTPUT_STREAM_STDOUT", "text": _text(line, "message")}),)
            case _:
                return _custom(hook, line)

    # -- AG-UI ---------------------------------------------------------------------------------

    def _ag_ui(self, name: str, line: Mapping[str, object]) -> Pairs:
        match name:
            case "TEXT_MESSAGE_CONTENT":
                return self._ag_ui_delta(line)
            case "TEXT_MESSAGE_END":
                message_id = _text(line, "messageId")
                text = self._texts.pop(message_id, "")
                return (("message.done", {"message_id": message_id, "text": text, "role": "assistant"}),)
            case "STEP_STARTED":
                return self._next_step(_text(line, "stepName"))
            case "RUN_ERROR":
                return (
                    (
                        "error",
                        {"text": _text(line, "message"), "type": _text(line, "code"), "step": self._step},
                    ),
                )
            case "TOOL_CALL_START":
                call = {
                    "call_id": _text(line, "toolCallId"),
                    "tool": _text(line, "toolCallName"),
                    "step": self._step,
                }
                return (("tool.called", call),)
            case "TOOL_CALL_RESULT":
                data: dict[str, object] = {"call_id": _text(line, "toolCallId"), "step": self._step}
                return (("tool.returned", data | {"result": line.get("content", "")}),)
            case "RAW" if isinstance(line.get("event"), str):
                return (("output", {"stream": "OUTPUT_STREAM_STDOUT", "text": _text(line, "event")}),)
            case _:
                return _custom(_text(line, "name") if name == "CUSTOM" else name, line)

    def _ag_ui_delta(self, line: Mapping[str, object]) -> Pairs:
        message_id, delta = _text(line, "messageId"), _text(line, "delta")
        if message_id not in self._texts and len(self._texts) >= _OPEN_TEXTS_MAX:
            return _custom("TEXT_MESSAGE_CONTENT", line)
        before = self._texts.get(message_id, "")
        self._texts[message_id] = before + delta
        return (("message.delta", {"message_id": message_id, "offset": len(before), "text": delta}),)

    def _next_step(self, title: str) -> Pairs:
        self._step += 1
        return (("step.started", {"step": self._step, "title": title.split("\n", 1)[0][:120]}),)


def _custom(name: str, line: Mapping[str, object]) -> Pairs:
    return ((CUSTOM_KIND, {"name": name, "data": dict(line)}),)


def _text(source: Mapping[str, object], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def _file_changes(item: Mapping[str, object]) -> list[tuple[str, dict[str, object]]]:
    changes = item.get("changes")
    if not isinstance(changes, list):
        return [(CUSTOM_KIND, {"name": "file_change", "data": dict(item)})]
    return [
        ("artifact", {"name": _text(change, "path"), "text": _text(change, "kind")})
        for change in changes
        if isinstance(change, dict)
    ]
