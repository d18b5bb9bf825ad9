"""What a person sees of one event. Pure: kind and data in, words out.

A view is a symbol, a colour, a headline and a body. Kinds that this table does not know are shown
with their data as it is, so that a newer server's events are never hidden.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from khala.cli.wording import duration_text

__all__ = ["EventView", "view_event"]

Data = Mapping[str, object]


@attrs.frozen
class EventView:
    """How to show one event.

    Attributes:
        symbol: One character of width 1.
        style: A rich style.
        headline: One line, without the kind; may be empty.
        body: Any number of lines, as the source wrote them; may be empty.
    """

    symbol: str
    style: str
    headline: str = ""
    body: str = ""


def view_event(kind: str, data: Data) -> EventView:
    """Return how to show an event of ``kind`` with the JSON mapping of its payload."""
    view = _VIEWS.get(kind)
    return view(data) if view is not None else EventView("·", "dim", _compact(data))


def _text(data: Data, name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _word(data: Data, name: str) -> str:
    """Return an enum's value as a word: ``RUN_STATE_FAILED`` is ``failed``."""
    value = _text(data, name)
    for prefix in ("RUN_STATE_", "WORKER_STATE_", "OUTPUT_STREAM_"):
        value = value.removeprefix(prefix)
    return value.lower()


def _compact(value: object) -> str:
    if value in (None, "", {}, []):
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str)


def _line(*parts: str, separator: str = " ") -> str:
    return separator.join(part for part in parts if part)


def _step(data: Data) -> str:
    step = data.get("step")
    return f"step {step}" if step not in (None, "", "0", 0) else ""


def _one_or_more_lines(symbol: str, style: str, prefix: str, text: str) -> EventView:
    """Put a short text beside the kind and a long one below it."""
    text = text.strip("\n")
    if "\n" in text:
        return EventView(symbol, style, prefix, text)
    return EventView(symbol, style, _line(prefix, text, separator=": " if prefix else ""))


def _run_started(data: Data) -> EventView:
    origin = _line(_text(data, "agent"), _text(data, "source"), separator=", ")
    return EventView("▶", "bold green", _line(_text(data, "name"), f"({origin})" if origin else ""))


def _state_changed(data: Data) -> EventView:
    change = f"{_word(data, 'from_state')} → {_word(data, 'to_state')}"
    return EventView("◆", "cyan", _line(change, _text(data, "reason"), separator=": "))


def _run_finished(data: Data) -> EventView:
    state = _word(data, "state")
    style = {"succeeded": "bold green", "failed": "bold red"}.get(state, "bold yellow")
    status = data.get("exit_status")
    ended = state if status is None else f"{state}, exit status {status}"
    return EventView("■", style, _line(ended, _text(data, "reason"), separator=": "), _text(data, "result"))


def _transferred(data: Data) -> EventView:
    return EventView("◆", "cyan", f"{_text(data, 'from_user_id')} → {_text(data, 'to_user_id')}")


def _step_started(data: Data) -> EventView:
    return EventView("○", "bold", _line(_step(data), _text(data, "title"), separator=": "))


def _thought(data: Data) -> EventView:
    role = _text(data, "role")
    return _one_or_more_lines("~", "italic", "" if role == "assistant" else role, _text(data, "text"))


def _action(data: Data) -> EventView:
    return _one_or_more_lines(
        "→", "bold blue", _text(data, "tool"), _text(data, "text") or _compact(data.get("args"))
    )


def _observation(data: Data) -> EventView:
    duration = data.get("duration_s")
    took = duration_text(duration) if isinstance(duration, int | float) else ""
    return _one_or_more_lines("←", "default", took, _text(data, "text"))


def _output(data: Data) -> EventView:
    style = "red" if _word(data, "stream") == "stderr" else "default"
    return _one_or_more_lines("│", style, "", _text(data, "text"))


def _message(data: Data) -> EventView:
    return _one_or_more_lines("»", "magenta", _text(data, "role"), _text(data, "text"))


def _tool_called(data: Data) -> EventView:
    return EventView("→", "blue", _line(_text(data, "tool"), _compact(data.get("args"))))


def _tool_returned(data: Data) -> EventView:
    error = _text(data, "error")
    if error:
        return _one_or_more_lines("←", "red", "", error)
    result = data.get("result")
    return _one_or_more_lines("←", "default", "", result if isinstance(result, str) else _compact(result))


def _error(data: Data) -> EventView:
    return _one_or_more_lines("✗", "bold red", _text(data, "type"), _text(data, "text"))


def _artifact(data: Data) -> EventView:
    about = _line(_text(data, "name"), _text(data, "media_type"), _text(data, "uri"))
    return EventView("▣", "green", about, _text(data, "text"))


def _custom(data: Data) -> EventView:
    return EventView("·", "default", _line(_text(data, "name"), _compact(data.get("data"))))


def _erased(data: Data) -> EventView:
    what = _text(data, "original_kind")
    return EventView(
        "∅", "yellow", _line(f"was {what}" if what else "", _text(data, "reason"), separator=": ")
    )


def _summary(data: Data) -> EventView:
    who = _text(data, "name") or _text(data, "run_id") or _text(data, "worker_id")
    said = "no longer here" if data.get("withdrawn") else _word(data, "state")
    return EventView("◆", "cyan", _line(who, said, _text(data, "title"), separator=", "))


_VIEWS: Final[Mapping[str, Callable[[Data], EventView]]] = {
    "run.started": _run_started,
    "run.state_changed": _state_changed,
    "run.finished": _run_finished,
    "run.transferred": _transferred,
    "run.summarised": _summary,
    "step.started": _step_started,
    "thought": _thought,
    "action": _action,
    "observation": _observation,
    "output": _output,
    "message.delta": _message,
    "message.done": _message,
    "tool.called": _tool_called,
    "tool.returned": _tool_returned,
    "error": _error,
    "artifact": _artifact,
    "custom": _custom,
    "worker.state_changed": _state_changed,
    "worker.summarised": _summary,
    "khala.erased": _erased,
}
