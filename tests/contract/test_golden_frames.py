"""frames.json: every decoder gives these fields, every encoder these bytes."""

import hashlib
import json
from base64 import b64encode

import pytest

from khala_contracts import codec
from khala_contracts.frames import SEQ_MAX, Frame
from khala_contracts.gen.openagents.sync.v1 import frames_pb2, session_pb2
from khala_contracts.strict_json import parse_strict, print_json
from khala_contracts.topics import TopicName
from tests.contract.fixture_files import Row, load, rows

FIXTURE = load("frames.json")
FRAMES = rows(FIXTURE, "frames")


def frame_of(row: Row) -> Frame:
    """Return the frame that a row describes."""
    payload = bytes.fromhex(row["payload_hex"])
    return Frame(TopicName(row["topic"]), int(row["seq"]), row["kind"], payload, int(row["schema_version"]))


def test_the_corpus_covers_the_edges() -> None:
    """PR-17: at least 200 frames, among them the ones that break decoders."""
    assert len(FRAMES) >= 200
    frames = [frame_of(row) for row in FRAMES]
    assert any(frame.payload == b"" for frame in frames)
    assert any(frame.payload and not frame.payload.strip(b"\0") for frame in frames)
    assert any(frame.seq == SEQ_MAX for frame in frames)
    assert any(frame.kind == "quasar.collapsed" for frame in frames)
    assert any(2**53 < frame.seq < SEQ_MAX for frame in frames)
    assert len({frame.topic.partition(":")[0] + frame.topic.rpartition(":")[2] for frame in frames}) == 10


@pytest.mark.parametrize("row", FRAMES, ids=[row["name"] for row in FRAMES])
def test_a_frame_and_its_bytes(row: Row) -> None:
    """Our encoder, our decoder, protobuf's own, and the JSON form agree with the file."""
    frame, entry = frame_of(row), bytes.fromhex(row["entry_hex"])
    assert codec.encode_entry(frame) == entry
    assert codec.decode_entries(entry) == [frame]
    generated = session_pb2.ServerMessage.FromString(entry)
    assert generated.SerializeToString(deterministic=True) == entry
    assert codec.frame_json(entry).decode() == row["json"] == print_json(generated.frames[0])
    assert parse_strict(row["json"], frames_pb2.KhalaFrame) == generated.frames[0]
    shown = json.loads(row["json"])
    assert shown["seq"] == row["seq"]
    assert shown["payload_bytes"] == b64encode(frame.payload).decode()


def test_all_encoders_have_the_same_hash() -> None:
    """PR-17: server encoder, client decoder and encoder, and what is stored."""
    stored = b"".join(bytes.fromhex(row["entry_hex"]) for row in FRAMES)
    ours = b"".join(codec.encode_entry(frame_of(row)) for row in FRAMES)
    through = b"".join(map(codec.encode_entry, codec.decode_entries(stored)))
    hashes = {hashlib.sha256(data).hexdigest() for data in (stored, ours, through)}
    assert hashes == {FIXTURE["entries_sha256"]}


def test_a_frame_of_a_newer_server_still_has_its_five_fields() -> None:
    """PR-03: unknown fields are skipped."""
    for row in FRAMES[:20]:
        frame = session_pb2.ServerMessage.FromString(bytes.fromhex(row["entry_hex"])).frames[0]
        newer = frame.SerializeToString() + b"\xa2\x06\x05newer"
        entry = b"\x0a" + codec.encode_varint(len(newer)) + newer
        assert codec.decode_entries(entry) == [frame_of(row)]
