from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala_client.recordings import OutputLines, RecordedEvent, TypedLines
from khala_client.recordings.process_output import LINE_MAX_BYTES, TYPED_LINE_MAX_BYTES


def texts(events: tuple[RecordedEvent, ...]) -> list[str]:
    """Return the texts of output events."""
    return [str(event.data["text"]) for event in events]


def test_lines_that_arrive_together_are_one_event() -> None:
    """A build prints more lines than a run takes events."""
    output = OutputLines("stderr")
    events = output.feed(b"one\ntwo\nthr")
    assert [(event.kind, dict(event.data)) for event in events] == [
        ("output", {"stream": "OUTPUT_STREAM_STDERR", "text": "one\ntwo\n"})
    ]
    assert texts(output.feed(b"ee\n")) == ["three\n"]
    assert output.end() == ()


def test_much_output_makes_several_events() -> None:
    """32 KiB each, whole lines."""
    events = OutputLines("stdout").feed(b"x" * 999 + b"\n" + (b"y" * 999 + b"\n") * 99)
    assert len(events) == 4
    assert all(text.endswith("\n") for text in texts(events))


def test_a_typed_line_is_an_event_between_texts() -> None:
    """In order with the output around it."""
    line = json.dumps({"kind": "thought", "data": {"text": "hm"}}).encode()
    output = OutputLines("stdout", typed=TypedLines())
    events = output.feed(b"before\n" + line + b"\nafter\n")
    assert [event.kind for event in events] == ["output", "thought", "output"]
    assert events[1].data == {"text": "hm"}
    assert output.feed(line[:10]) == ()
    assert output.flush() == ()
    assert [event.kind for event in output.feed(line[10:] + b"\n")] == ["thought"]
    output.feed(line)
    assert [event.kind for event in output.end()] == ["thought"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"level": "info"}',
        b"{not json}",
        b'{"kind": "thought", "data": {"txt": 1}}',
        b'{"kind": "no.such", "data": {}}',
        b'{"a":' * 5_000,
        b'{"a": "\xff"}',
    ],
)
def test_what_only_looks_typed_is_output(line: bytes) -> None:
    """Nothing is lost of it."""
    events = OutputLines("stdout", typed=TypedLines()).feed(line + b"\n")
    assert [event.kind for event in events] == ["output"]
    assert texts(events) == [(line + b"\n").decode(errors="replace")]


def test_a_prompt_without_a_newline_is_flushed() -> None:
    """When the caller has waited long enough; what follows belongs to the same line."""
    output = OutputLines("stdout", typed=TypedLines())
    assert output.feed(b"Password: ") == ()
    assert texts(output.flush()) == ["Password: "]
    assert output.flush() == ()
    assert texts(output.feed(b"\n")) == ["\n"]


def test_a_long_line_is_given_in_parts() -> None:
    """64 KiB without a newline; a typed one may be 1 MiB."""
    output = OutputLines("stdout", typed=TypedLines())
    assert output.feed(b"x" * LINE_MAX_BYTES) == ()
    assert sum(map(len, texts(output.feed(b"x")))) == LINE_MAX_BYTES + 1
    typed = OutputLines("stdout", typed=TypedLines())
    assert typed.feed(b"{" + b"x" * (TYPED_LINE_MAX_BYTES - 1)) == ()
    given_up = typed.feed(b"x")
    assert sum(map(len, texts(given_up))) == TYPED_LINE_MAX_BYTES + 1


def test_bytes_that_are_no_text_are_counted() -> None:
    """Replaced by U+FFFD, and never cut in the middle of a character."""
    (event,) = OutputLines("stdout").feed(b"a\xff\xfeb\n")
    assert event.data == {"stream": "OUTPUT_STREAM_STDOUT", "text": "a\ufffd\ufffdb\n", "replaced_bytes": 2}
    output = OutputLines("stdout")
    output.feed("né".encode()[:2])
    assert texts(output.flush()) == ["n"]
    assert texts(output.feed("é\n".encode()[1:])) == ["é\n"]


@given(
    st.lists(st.one_of(st.text(), st.sampled_from(["\n", "é", "😀", "{"])).map(str.encode), max_size=20),
    st.booleans(),
)
def test_the_texts_joined_are_the_output(pieces: list[bytes], is_flushed: bool) -> None:
    """However it is cut into reads, and flushed in between."""
    output = OutputLines("stdout", typed=TypedLines())
    found: list[str] = []
    for piece in pieces:
        for at in range(0, len(piece), 3):
            found += texts(output.feed(piece[at : at + 3]))
            if is_flushed:
                found += texts(output.flush())
    found += texts(output.end())
    assert "".join(found) == b"".join(pieces).decode()
