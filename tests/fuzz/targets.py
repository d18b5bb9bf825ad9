"""What must hold for any bytes: each target takes some and raises if a rule is broken.

Shared by the test command (Hypothesis, test_targets.py) and by ``python -m tests.fuzz`` (atheris, by coverage).

    decoders    only WireError escapes, and what is accepted is written back as something that is accepted
    protocol    only RemoteProtocolError escapes, and it changes no phase
    framing     whole frames come back, at most one close, nothing behind it; no connection crashes; both
                WebSocket adapters say the same
    request     an HTTP answer or nothing; no connection crashes
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final, get_args

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala.adapters.websocket_adapters import WebSocketAdapter
from khala.core.inbound_frames import InboundFrames, MessageTooBigError
from khala.core.limits import NodeLimits
from khala.core.protocol import ConnectionProtocol, Phase, RemoteProtocolError
from khala_contracts import codec, strict_json
from khala_contracts.codec import Hello, decode_entries
from khala_contracts.erasure import decode_erased_untrusted
from khala_contracts.errors import WireError
from khala_contracts.fanout_records import RecordSigner, RecordVerifier, read_unverified
from khala_contracts.kinds import check_payload_untrusted
from khala_contracts.sync_claims import from_claims_untrusted
from khala_contracts.topics import TopicInvalid, parse_topic
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.client_frames import CLOSE, ServerFrame, split_server_bytes, upgrade_request
from tests.echo_node import EchoNode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY_ID, KEY = "key-1", bytes(32)
LIMITS: Final = NodeLimits(
    inbound_message_max_bytes=2_000, client_messages_burst=50, client_messages_per_s=10
)
# What an invalid text is found by differs: at its first bad byte, or at the end of its message.
INVALID_TEXT: Final = 1007


def client_message(data: bytes) -> None:
    """Decode what a client sends; write it back."""
    try:
        message = codec.decode_client_message_untrusted(data)
    except WireError:
        return
    again = codec.encode_client_message(message)
    assert codec.decode_client_message_untrusted(again) == message


def client_message_json(data: bytes) -> None:
    """Decode what a client sends in JSON; write it back."""
    try:
        message = codec.decode_client_message_json_untrusted(data.decode(errors="replace"))
    except WireError:
        return
    again = codec.encode_client_message_json(message)
    assert codec.decode_client_message_json_untrusted(again) == message


def server_message(data: bytes) -> None:
    """Decode what a client receives, in both subprotocols."""
    for decode in (codec.decode_server_message_untrusted, codec.decode_server_message_json_untrusted):
        try:
            decode(data)
        except WireError:
            continue


def entries(data: bytes) -> None:
    """Decode joined entries; each is written back as it was, but for fields that are not ours."""
    try:
        frames = decode_entries(data)
    except WireError:
        return
    assert decode_entries(b"".join(codec.encode_entry(frame) for frame in frames)) == frames


def record(data: bytes) -> None:
    """Open a record: noise is refused, and only its one encoding has a seal that holds."""
    verifier = RecordVerifier({KEY_ID: KEY})
    with suppress(WireError):
        verifier.open_untrusted(data)
    try:
        claimed, _ = read_unverified(data)
    except WireError:
        return
    assert verifier.open_untrusted(RecordSigner(KEY_ID, KEY).seal(claimed)) == claimed


def claims(data: bytes) -> None:
    """Read the claims of a token whose signature held."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        try:
            from_claims_untrusted(document)
        except WireError:
            return


def payload(data: bytes) -> None:
    """Check a payload of a kind and class that the first bytes choose."""
    kinds = ("run.started", "thought", "output", "message.delta", "custom", "no.such")
    classes = ("run_events", "worker_events", "app")
    if len(data) >= 2:
        with suppress(WireError):
            check_payload_untrusted(classes[data[0] % 3], kinds[data[1] % len(kinds)], data[2:])
    with suppress(WireError):
        decode_erased_untrusted(data)
    with suppress(WireError):
        strict_json.load_untrusted(data)


def topic(data: bytes) -> None:
    """Parse a name: what is accepted is itself, letter for letter, and holds no letter of a wildcard."""
    for text in (data.decode(errors="replace"), data.decode("latin-1")):
        try:
            parsed = parse_topic(text)
        except TopicInvalid:
            continue
        assert parsed.name == text
        assert text.isascii()
        assert not set(text) & set("*>. \t\r\n\x00/")


def protocol(data: bytes) -> None:
    """Let a client say a sequence of things: length, then message; odd first bytes are pings."""
    machine = ConnectionProtocol(LIMITS, is_text=bool(data[:1] and data[0] & 1), now=0.0)
    now, position = 0.0, 1
    while position < len(data):
        size = data[position]
        said: bytes | str | None = data[position + 1 : position + 1 + size]
        position += 1 + size
        now += 0.001 * size
        if size == 255:
            said = None
        elif machine.is_text:
            assert isinstance(said, bytes)
            said = said.decode(errors="replace")
        before = machine.phase
        try:
            command = machine.receive_untrusted(said, now)
        except RemoteProtocolError:
            assert machine.phase is before
            machine.close()
            continue
        if before is Phase.CLOSING:
            assert command is None
        elif isinstance(command, Hello):
            assert (before, machine.phase) == (Phase.AWAITING_HELLO, Phase.AUTHENTICATING)
            machine.welcome()


def inbound_frames(data: bytes) -> None:
    """Cut bytes, in pieces as long as the first byte says."""
    if not data:
        return
    step, wire = data[0] % 32 + 1, data[1:]
    frames, taken = InboundFrames(500), b""
    try:
        for begin in range(0, len(wire), step):
            frames.feed(wire[begin : begin + step])
            while (piece := frames.take()) is not None:
                assert piece.data
                taken += piece.data
    except MessageTooBigError:
        pass
    assert wire.startswith(taken)


async def _serve_noise(adapter: WebSocketAdapter, request: bytes, data: bytes) -> bytes:
    """Return what a server says to a client that sends this and then nothing more."""
    node, transport = EchoNode(adapter, LIMITS), SimulatedTransport()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.serve, transport)
        transport.feed(request)
        await wait_all_tasks_blocked()
        if not transport.is_aborted:
            transport.feed(data)
            await wait_all_tasks_blocked()
        if not transport.is_aborted:
            transport.feed_eof()
            await wait_all_tasks_blocked()
        assert transport.is_aborted, "the connection goes on without a client"
    assert node.crash_log.crashes == []
    return transport.take()


def framing(data: bytes) -> None:
    """Send noise behind an upgrade, through both adapters."""
    said: list[tuple[list[ServerFrame], int | None]] = []
    for adapter in get_args(WebSocketAdapter):
        wire = trio.run(_serve_noise, adapter, upgrade_request(), data, clock=MockClock())
        _, frames = split_server_bytes(wire)
        closes = [frame for frame in frames if frame.opcode == CLOSE]
        assert len(closes) <= 1
        assert closes == frames[len(frames) - len(closes) :]
        # The words beside a code are the library's.
        said.append((frames[: len(frames) - len(closes)], closes[0].close_code if closes else None))
    (one, code), (other, other_code) = said
    if INVALID_TEXT not in (code, other_code):
        assert one == other
        # A frame that is bad already and never complete is found by one library only.
        assert code == other_code or None in (code, other_code)


def request(data: bytes) -> None:
    """Send noise instead of an upgrade request, or inside one."""
    for adapter in get_args(WebSocketAdapter):
        head = data if b"\n" in data else upgrade_request().replace(b"khala\r\n", data + b"\r\n", 1)
        wire = trio.run(_serve_noise, adapter, head, b"", clock=MockClock())
        assert not wire or wire.startswith(b"HTTP/1.1 ")


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        client_message,
        client_message_json,
        server_message,
        entries,
        record,
        claims,
        payload,
        topic,
        protocol,
        inbound_frames,
        framing,
        request,
    )
}
