"""SWE-agent's .traj files as events.

A step of ``trajectory`` becomes step.started, thought, action, observation (with state and duration),
in this order. The prompts that came before the first step are taken from ``history``. A file
with a ``history`` only has its steps in there: one per message of the assistant.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from khala_client.errors import RecordingRefused
from khala_client.recordings.events import RecordedEvent, checked
from khala_client.recordings.pace import reading_pause_s, writing_pause_s
from khala_contracts.kind_names import SWE_AGENT_HISTORY_KINDS, SWE_AGENT_STEP_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from khala_client.recordings.json_document import JsonDocument

__all__ = ["is_trajectory", "read_exit_status", "read_steps", "read_submission"]

_TITLE_MAX_CHARS: Final = 120
_THOUGHT: Final = SWE_AGENT_STEP_KINDS["thought"]
_ACTION: Final = SWE_AGENT_STEP_KINDS["action"]
_OBSERVATION: Final = SWE_AGENT_STEP_KINDS["observation"]
_PROMPT: Final = SWE_AGENT_HISTORY_KINDS["system_prompt"]
_PROMPT_ROLES: Final = frozenset({"system", "user"})


def is_trajectory(document: JsonDocument) -> bool:
    """Return whether the document has what a .traj file has."""
    return "trajectory" in document.members or "history" in document.members


def read_steps(document: JsonDocument) -> Iterator[RecordedEvent]:
    """Return the events of the file, in order.

    Raises:
        RecordingRefused: with line and path of what is not as it should be.
    """
    trajectory = _array(document, "trajectory")
    history = _array(document, "history")
    if not trajectory and not history:
        raise RecordingRefused("neither trajectory nor history has anything in it")
    if not trajectory:
        yield from _read_history(document, history)
        return
    for index, entry in enumerate(history):
        if _text(entry, "role", f"history[{index}]", document.line_of("history", index)) not in _PROMPT_ROLES:
            break
        yield from _prompt(document, index, entry)
    for index, step in enumerate(trajectory):
        yield from _read_step(step, index + 1, f"trajectory[{index}]", document.line_of("trajectory", index))


def read_exit_status(document: JsonDocument) -> str:
    """Return the exit status that SWE-agent noted, for example ``submitted``; empty if none."""
    return _info(document, "exit_status")


def read_submission(document: JsonDocument) -> str:
    """Return the patch that was submitted; empty if none."""
    return _info(document, "submission")


def _info(document: JsonDocument, name: str) -> str:
    info = document.members.get("info")
    value = info.get(name) if isinstance(info, dict) else None
    return value if isinstance(value, str) else ""


def _array(document: JsonDocument, name: str) -> list[dict[str, object]]:
    value = document.members.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordingRefused("must be an array", where=name)
    for index, element in enumerate(value):
        if not isinstance(element, dict):
            raise RecordingRefused(
                "must be an object", line=document.line_of(name, index), where=f"{name}[{index}]"
            )
    return value


def _text(entry: Mapping[str, object], name: str, where: str, line: int) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if name == "content" and isinstance(value, list):
        return "\n".join(_content_text(part, f"{where}.{name}", line) for part in value)
    raise RecordingRefused("must be text", line=line, where=f"{where}.{name}")


def _content_text(part: object, where: str, line: int) -> str:
    if isinstance(part, dict):
        text = part.get("text")
        # Images and the like are named, not carried: their bytes are not part of the conversation.
        return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"
    raise RecordingRefused("must be text or parts of content", line=line, where=where)


def _prompt(document: JsonDocument, index: int, entry: Mapping[str, object]) -> Iterator[RecordedEvent]:
    where, line = f"history[{index}]", document.line_of("history", index)
    role = _text(entry, "role", where, line)
    text = _text(entry, "content", where, line)
    data = {"message_id": f"history-{index}", "role": role, "text": text}
    yield from checked(RecordedEvent(_PROMPT, data), line=line, where=where)


def _read_step(step: Mapping[str, object], number: int, where: str, line: int) -> Iterator[RecordedEvent]:
    thought = _text(step, "thought", where, line) or _text(step, "response", where, line)
    action = _text(step, "action", where, line)
    observation = _text(step, "observation", where, line)
    if not thought and not action and "observation" not in step:
        raise RecordingRefused("has neither thought nor action nor observation", line=line, where=where)
    events = [RecordedEvent("step.started", {"step": number, "title": _title(thought or action)})]
    if thought:
        data: dict[str, object] = {"text": thought, "step": number, "role": "assistant"}
        events.append(RecordedEvent(_THOUGHT, data, writing_pause_s(thought)))
    if action:
        data = {"text": action, "step": number}
        events.append(RecordedEvent(_ACTION, data, 0.0 if thought else writing_pause_s(action)))
    if step.get("observation") is not None:
        events.append(_observation(step, observation, number, where, line))
    for event in events:
        yield from checked(event, line=line, where=where)


def _observation(step: Mapping[str, object], text: str, number: int, where: str, line: int) -> RecordedEvent:
    data: dict[str, object] = {"text": text, "step": number}
    duration_s = step.get("execution_time")
    if duration_s is not None:
        if isinstance(duration_s, bool) or not isinstance(duration_s, int | float) or duration_s < 0:
            raise RecordingRefused("must be a number of seconds", line=line, where=f"{where}.execution_time")
        data["duration_s"] = float(duration_s)
    state = step.get("state")
    if state is not None:
        data["state"] = _state(state)
    return RecordedEvent(
        _OBSERVATION,
        data,
        float(duration_s) if isinstance(duration_s, int | float) else reading_pause_s(text),
    )


def _state(state: object) -> object:
    # Older files carry the state as JSON inside a string.
    if not isinstance(state, str):
        return state
    try:
        return json.loads(state)
    except ValueError:
        return state


def _title(text: str) -> str:
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= _TITLE_MAX_CHARS else first[: _TITLE_MAX_CHARS - 1] + "…"


def _read_history(document: JsonDocument, history: list[dict[str, object]]) -> Iterator[RecordedEvent]:
    step = 0
    for index, entry in enumerate(history):
        where, line = f"history[{index}]", document.line_of("history", index)
        role = _text(entry, "role", where, line)
        if role == "assistant":
            step += 1
            yield from _read_assistant(entry, step, where, line)
        elif role in {"system", "user"} and step == 0:
            yield from _prompt(document, index, entry)
        elif role in {"system", "user", "tool"}:
            text = _text(entry, "content", where, line)
            data = {"text": text, "step": step, "call_id": _call_id(entry)}
            yield from checked(
                RecordedEvent(_OBSERVATION, data, reading_pause_s(text)), line=line, where=where
            )
        else:
            raise RecordingRefused(
                "role must be system, user, assistant or tool", line=line, where=f"{where}.role"
            )


def _call_id(entry: Mapping[str, object]) -> str:
    ids = entry.get("tool_call_ids")
    if isinstance(ids, list) and ids and isinstance(ids[0], str):
        return ids[0]
    call_id = entry.get("tool_call_id")
    return call_id if isinstance(call_id, str) else ""


def _read_assistant(entry: Mapping[str, object], step: int, where: str, line: int) -> Iterator[RecordedEvent]:
    thought = _text(entry, "thought", where, line) or _text(entry, "content", where, line)
    action = _text(entry, "action", where, line)
    calls = entry.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RecordingRefused("must be an array", line=line, where=f"{where}.tool_calls")
    events = [RecordedEvent("step.started", {"step": step, "title": _title(thought or action)})]
    if thought:
        data: dict[str, object] = {"text": thought, "step": step, "role": "assistant"}
        events.append(RecordedEvent(_THOUGHT, data, writing_pause_s(thought)))
    if action and not calls:
        events.append(RecordedEvent(_ACTION, {"text": action, "step": step}))
    for number, call in enumerate(calls):
        called = _tool_call(call, f"{where}.tool_calls[{number}]", line)
        # SWE-agent writes the command of a message once, beside its calls.
        events.append(RecordedEvent(_ACTION, {"text": action if number == 0 else "", "step": step, **called}))
    for event in events:
        yield from checked(event, line=line, where=where)


def _tool_call(call: object, where: str, line: int) -> dict[str, object]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise RecordingRefused("must be a tool call with a function", line=line, where=where)
    arguments = function.get("arguments")
    return {
        "tool": _text(function, "name", where, line),
        "args": _state(arguments) if arguments is not None else {},
        "call_id": _text(call, "id", where, line),
    }
