"""Unit tests of khala.cli.event_view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from rich.style import Style

from khala.cli.event_view import view_event
from khala_contracts.kinds import KINDS, decode_payload, encode_payload, kinds_of

if TYPE_CHECKING:
    from khala.cli.event_view import EventView


def view_of(kind: str, data: dict[str, object], topic_class: str = "run_events") -> EventView:
    """View an event as it comes from the wire: encoded and decoded once."""
    return view_event(kind, decode_payload(kind, encode_payload(topic_class, kind, data)))


@pytest.mark.parametrize(
    ("kind", "data", "headline", "body"),
    [
        ("run.started", {"name": "fix-1867", "agent": "swe-agent"}, "fix-1867 (swe-agent)", ""),
        ("run.started", {"name": "n", "agent": "ls", "source": "khala record"}, "n (ls, khala record)", ""),
        ("run.started", {}, "", ""),
        (
            "run.state_changed",
            {"from_state": "RUN_STATE_RUNNING", "to_state": "RUN_STATE_PAUSED", "reason": "lunch"},
            "running → paused: lunch",
            "",
        ),
        ("run.finished", {"state": "RUN_STATE_FAILED", "exit_status": 3}, "failed, exit status 3", ""),
        ("run.finished", {"state": "RUN_STATE_SUCCEEDED", "result": "+a\n-b"}, "succeeded", "+a\n-b"),
        ("run.transferred", {"from_user_id": "usr_a", "to_user_id": "usr_b"}, "usr_a → usr_b", ""),
        ("step.started", {"step": 2, "title": "look"}, "step 2: look", ""),
        ("step.started", {"title": "look"}, "look", ""),
        ("thought", {"text": "hm", "role": "assistant"}, "hm", ""),
        ("thought", {"text": "a\nb", "role": "user"}, "user", "a\nb"),
        ("action", {"tool": "pytest", "args": ["-x"]}, 'pytest: ["-x"]', ""),
        ("action", {"text": "ls -l"}, "ls -l", ""),
        ("observation", {"text": "ok\n", "duration_s": 0.25}, "250 ms: ok", ""),
        ("observation", {"text": "one\ntwo\n"}, "", "one\ntwo"),
        ("output", {"stream": "OUTPUT_STREAM_STDOUT", "text": "hi\n"}, "hi", ""),
        ("message.delta", {"message_id": "m", "text": "hel"}, "hel", ""),
        ("message.done", {"message_id": "m", "text": "hello", "role": "user"}, "user: hello", ""),
        ("tool.called", {"tool": "grep", "args": {"q": "x"}}, 'grep {"q": "x"}', ""),
        ("tool.returned", {"result": "found"}, "found", ""),
        ("tool.returned", {"result": {"n": 1}}, '{"n": 1}', ""),
        ("tool.returned", {"error": "no such file"}, "no such file", ""),
        ("error", {"type": "KeyError", "text": "'x'"}, "KeyError: 'x'", ""),
        ("artifact", {"name": "a.txt", "media_type": "text/plain", "text": "x"}, "a.txt text/plain", "x"),
        ("custom", {"name": "turn", "data": {"n": 1}}, 'turn {"n": 1}', ""),
    ],
)
def test_every_kind_of_a_run_is_said_in_words(
    kind: str, data: dict[str, object], headline: str, body: str
) -> None:
    """Headline and body hold what the payload says, each once."""
    view = view_of(kind, data)
    assert (view.headline, view.body) == (headline, body)


@pytest.mark.parametrize("kind", [*kinds_of("run_events"), "khala.erased", "run.summarised", "unheard.of"])
def test_every_view_fits_the_layout(kind: str) -> None:
    """A symbol takes one column, and its style is one that rich knows."""
    view = view_event(kind, {})
    assert cell_len(view.symbol) == 1
    Style.parse(view.style)


def test_the_state_of_a_run_has_its_colour() -> None:
    """Good, bad and neither look different."""
    states = ("SUCCEEDED", "FAILED", "CANCELLED")
    styles = [view_of("run.finished", {"state": f"RUN_STATE_{state}"}).style for state in states]
    assert styles == ["bold green", "bold red", "bold yellow"]
    assert view_of("output", {"stream": "OUTPUT_STREAM_STDERR", "text": "x"}).style == "red"


def test_an_erased_event_says_what_stood_there() -> None:
    """A tombstone names the kind and the reason."""
    assert (
        view_event("khala.erased", {"original_kind": "thought", "reason": "secret"}).headline
        == "was thought: secret"
    )
    assert view_event("khala.erased", {}).headline == ""


def test_summaries_name_their_subject() -> None:
    """Records of state topics say who and how."""
    data = {"run_id": "run_1", "state": "RUN_STATE_RUNNING", "title": "step 3"}
    assert view_event("run.summarised", data).headline == "run_1, running, step 3"
    assert (
        view_event("run.summarised", {**data, "withdrawn": True}).headline == "run_1, no longer here, step 3"
    )


def test_an_unknown_kind_is_shown_with_its_data() -> None:
    """What a newer server sends is never hidden."""
    assert view_event("brand.new", {"payload_base64": "AAE="}).headline == '{"payload_base64": "AAE="}'
    assert view_event("brand.new", {}).headline == ""


def test_every_registered_kind_can_be_viewed() -> None:
    """No payload of the registry, empty as it may be, breaks the view."""
    for topic_class, kind in KINDS:
        if kind != "khala.erased":
            view_of(kind, {}, topic_class)
