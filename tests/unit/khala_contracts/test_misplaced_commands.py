"""misplaced_commands.py: what is the body of a command, and what is only broken."""

from __future__ import annotations

import pytest

from khala_contracts import http_messages as m
from khala_contracts.codec import ClientHeartbeat, Hello, Subscribe, VersionRange, encode_client_message
from khala_contracts.misplaced_commands import is_append, is_command

HELLO = Hello("t", None, "dev_0123456789", "b", VersionRange(1, 1), VersionRange(1, 1))
APPENDS = [
    m.AppendEventsRequest(events=[m.EventInput(kind="thought")]),
    m.AppendEventsRequest(events=[m.EventInput(kind="output", payload_bytes=b"\x0a\x01x")]),
    m.AppendEventsRequest(events=[m.EventInput(kind="thought")] * 3, expected_seq=7),
]
OTHERS = [
    m.CreateRunRequest(name="fix-1867", agent="a"),
    m.TransitionRunRequest(to_state="RUN_STATE_SUCCEEDED", reason="done"),
    m.RegisterWorkerRequest(name="w", host="h"),
    m.DevSignInRequest(login="dev", device_id="dev_0123456789"),
    m.SyncTokenRequest(topics=["run:x:events"], ttl_s=60),
    m.CreateKeyRequest(name="ci", rights=["publish"]),
]


@pytest.mark.parametrize("message", [*APPENDS, *OTHERS], ids=str)
def test_a_body_is_a_command(message: m.AppendEventsRequest) -> None:
    """Each body that writes, as a client would send it over HTTP."""
    assert is_command(message.SerializeToString())


@pytest.mark.parametrize("message", APPENDS, ids=str)
def test_an_append_is_told_from_a_hello(message: m.AppendEventsRequest) -> None:
    """By the kinds that it names."""
    assert is_append(message.SerializeToString())
    unknown = m.AppendEventsRequest(events=[*message.events, m.EventInput(kind="token-like")])
    assert not is_append(unknown.SerializeToString())


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\x0a", b"\x0b", b"\x0a\x7f\x0a", b"{}", b"\x22\x03\x0a\x01\xff"]
)
def test_noise_is_no_command(data: bytes) -> None:
    """Nothing, cut off, a group, text, bad UTF-8."""
    assert not is_command(data)
    assert not is_append(data)


@pytest.mark.parametrize("message", [HELLO, Subscribe(()), ClientHeartbeat()], ids=str)
def test_a_client_message_is_no_append(message: Hello | Subscribe | ClientHeartbeat) -> None:
    """Also a hello of which the rest is missing."""
    assert not is_append(encode_client_message(message))
    assert not is_append(m.AppendEventsRequest(events=[m.EventInput(kind="eyJhbGciOi")]).SerializeToString())
