"""Files of what many connections say first: read back as the clients in C read them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from chaos.load.preambles import FROM_NOW, Preamble, mask_message, upgrade_request, write_preambles
from khala_contracts.codec import Hello, Subscribe, TopicStart, decode_client_message_untrusted

if TYPE_CHECKING:
    from pathlib import Path

    from khala_contracts.codec import ClientMessage

RUN = "run:run_01fwhe4yddfk4scvajq9ww84cz:events"


def read_preambles(data: bytes) -> list[Preamble]:
    """Read a file as ``stream_load`` does."""
    found, at = [], 0
    while at < len(data):
        upgrade_bytes, message_bytes, topics = struct.unpack_from("<III", data, at)
        at += 12
        upgrade, at = data[at : at + upgrade_bytes], at + upgrade_bytes
        messages, at = data[at : at + message_bytes], at + message_bytes
        expected = []
        for _ in range(topics):
            (length,) = struct.unpack_from("<H", data, at)
            name, at = data[at + 2 : at + 2 + length].decode(), at + 2 + length
            expected.append((name, struct.unpack_from("<q", data, at)[0]))
            at += 8
        found.append(Preamble(upgrade, messages, expected))
    return found


def unmask(data: bytes) -> list[ClientMessage]:
    """Return the messages of frames that are masked with zeros."""
    messages, at = [], 0
    while at < len(data):
        assert data[at] == 0x82
        size, head = data[at + 1] & 0x7F, 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        assert data[at + 1] & 0x80
        assert data[at + head : at + head + 4] == bytes(4)
        messages.append(decode_client_message_untrusted(data[at + head + 4 : at + head + 4 + size]))
        at += head + 4 + size
    return messages


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """One entry for each connection, in this order; peers have no messages."""
    written = [
        Preamble.of_subscriber("token", "dev_00000000", [TopicStart(RUN, FROM_NOW)]),
        Preamble(b"", b"", [("app", 7), ("other", 0)]),
    ]
    file = tmp_path / "preambles"
    write_preambles(file, written)
    assert read_preambles(file.read_bytes()) == written


def test_a_subscriber_says_hello_and_subscribes_to_64_topics_at_a_time() -> None:
    """So many are allowed in one subscribe; ``subscribed`` says where each begins."""
    starts = [TopicStart(f"app:org_01fwhe4yddfk4scvajq9ww84cz:t{n}", FROM_NOW) for n in range(65)]
    preamble = Preamble.of_subscriber("secret", "dev_12345678", starts)
    hello, first, second = unmask(preamble.messages)
    assert isinstance(hello, Hello)
    assert (hello.token, hello.device_id) == ("secret", "dev_12345678")
    assert isinstance(first, Subscribe)
    assert isinstance(second, Subscribe)
    assert [*first.topics, *second.topics] == starts
    assert len(first.topics) == 64
    assert preamble.expected == [(start.topic, -1) for start in starts]


def test_lengths_of_frames_have_both_forms() -> None:
    """RFC 6455, 5.2."""
    assert mask_message(b"x" * 125)[:2] == bytes((0x82, 0x80 | 125))
    assert mask_message(b"x" * 126)[:4] == bytes((0x82, 0x80 | 126, 0, 126))


def test_an_upgrade_names_its_subprotocol_or_none() -> None:
    """Peers have none of ours."""
    assert b"Sec-WebSocket-Protocol: khala.v1\r\n\r\n" in upgrade_request("host", "/sync/v1/ws")
    assert b"Protocol:" not in upgrade_request("host", "/", None)
