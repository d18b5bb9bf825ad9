from __future__ import annotations

import json
from hashlib import sha256

from khala_client.events import Event
from khala_client.history import format_history_lines
from khala_contracts.chain import chain_next_hashed, chain_start
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.frames import ERASED_KIND, Frame
from tests.unit.khala_client.node_model import LogModel, topic_number

TOPIC = topic_number(1)


def test_data_is_the_payload_in_words() -> None:
    """Decoded when asked for; unknown kinds keep their bytes."""
    known = Event(TOPIC, 1, "thought", b"\x0a\x02hi", 1, bytes(32))
    assert known.data["text"] == "hi"
    assert known.data is known.data
    unknown = Event(TOPIC, 1, "thing.of_the_future", b"\xff", 1, bytes(32))
    assert unknown.data == {"payload_base64": "/w=="}
    assert "hi" not in repr(known)
    assert not known.is_erased


def test_a_history_can_be_checked_from_its_lines_alone() -> None:
    """The chain follows from seq, kind, schema_version and payload hash, erased lines included."""
    log = LogModel(TOPIC)
    log.append(3)
    erased = Erased("thought", sha256(log.frames[1].payload).digest(), 1, "asked for")
    tombstone = Frame(TOPIC, 2, ERASED_KIND, encode_erased(erased), 1)
    frames = [log.frames[0], tombstone, log.frames[2]]
    events = [Event.from_frame(frame, chain=log.chains[frame.seq]) for frame in frames]
    assert events[1].is_erased
    lines = [json.loads(line) for line in format_history_lines(events)]
    assert [line.get("erased", False) for line in lines] == [False, True, False]
    chain = chain_start(TOPIC)
    for seq, line in enumerate(lines, start=1):
        assert (line["topic"], line["seq"], line["kind"]) == (TOPIC, str(seq), "thought")
        digest = bytes.fromhex(line["payload_sha256"])
        chain = chain_next_hashed(chain, seq, line["schema_version"], line["kind"], digest)
        assert line["chain"] == chain.hex()
    assert chain == log.chains[3]
