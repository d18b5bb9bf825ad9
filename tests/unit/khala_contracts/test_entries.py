"""Frames as bytes: the hand-assembled layout against protobuf's own serialiser."""

import json
from itertools import accumulate

import pytest

from khala_contracts import entries
from khala_contracts.codec import ServerHeartbeat, encode_server_control
from khala_contracts.entries import (
    EntryTemplate,
    count_sound_entries,
    decode_entries,
    encode_entry,
    encode_varint,
    frame_json,
)
from khala_contracts.errors import WireError
from khala_contracts.frames import SCHEMA_VERSION_MAX, SEQ_MAX, Frame
from khala_contracts.gen.openagents.sync.v1 import frames_pb2, session_pb2
from khala_contracts.strict_json import message_to_mapping
from khala_contracts.topics import TopicName

TOPIC = TopicName("run:x:events")
FRAMES = [
    Frame(TOPIC, 1, "thought", b"abc", 1),
    Frame(TOPIC, 2, "output", b"", 1),
    Frame(TOPIC, 300, "été", bytes(200), 300),
    Frame(TOPIC, SEQ_MAX, "x" * 64, bytes(20_000), SCHEMA_VERSION_MAX),
]


def as_wire(frame: Frame) -> frames_pb2.KhalaFrame:
    """Return the generated message of a frame."""
    return frames_pb2.KhalaFrame(
        topic=frame.topic,
        seq=frame.seq,
        kind=frame.kind,
        payload_bytes=frame.payload,
        schema_version=frame.schema_version,
    )


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(frame.seq))
def test_an_entry_is_what_protobuf_writes(frame: Frame) -> None:
    """Byte for byte, with and without a payload, through both functions."""
    expected = session_pb2.ServerMessage(frames=[as_wire(frame)]).SerializeToString(deterministic=True)
    assert encode_entry(frame) == expected
    template = EntryTemplate(frame.topic)
    assert template.entry(frame.seq, frame.kind, frame.payload, frame.schema_version) == expected


def test_the_layout_is_the_documented_one() -> None:
    """The small example of the module's docstring, spelled out."""
    assert encode_entry(Frame(TopicName("t"), 1, "k", b"p", 1)) == bytes.fromhex(
        "0a 0d 0a0174 1001 1a016b 220170 2801"
    )
    assert encode_entry(Frame(TopicName("t"), 1, "k", b"", 1)) == bytes.fromhex(
        "0a 0a 0a0174 1001 1a016b 2801"
    )


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2**64 - 1, "ff" * 9 + "01"),
    ],
)
def test_varints_are_minimal(value: int, encoded: str) -> None:
    """7 bits a byte, lowest first."""
    assert encode_varint(value).hex() == encoded


@pytest.mark.parametrize("value", [-1, 2**64])
def test_other_numbers_are_no_varint(value: int) -> None:
    """One beyond each end."""
    with pytest.raises(ValueError, match="varint"):
        encode_varint(value)


def test_joined_entries_decode_to_their_frames_in_order() -> None:
    """A range is its entries joined."""
    assert decode_entries(b"".join(map(encode_entry, FRAMES))) == FRAMES
    assert decode_entries(b"") == []


@pytest.mark.parametrize(
    "blob",
    [
        b"\x0a\x05ab",
        b"\xff",
        session_pb2.ServerMessage(lagging=session_pb2.Lagging(topic="x")).SerializeToString(),
        session_pb2.ServerMessage(frames=[frames_pb2.KhalaFrame()]).SerializeToString(),
    ],
    ids=["cut off", "no protobuf", "a control message", "an empty frame"],
)
def test_other_bytes_are_refused(blob: bytes) -> None:
    """Only frames that keep their invariants."""
    with pytest.raises(WireError) as caught:
        decode_entries(blob)
    assert caught.value.reason_code == "malformed_message"


def test_the_place_of_a_bad_frame_is_named() -> None:
    """frames[1] is the one without a seq."""
    bad = as_wire(FRAMES[0])
    bad.seq = 0
    with pytest.raises(WireError) as caught:
        entries.frames_from_wire([as_wire(FRAMES[0]), bad])
    assert caught.value.field == "frames[1]"


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(frame.seq))
def test_a_json_frame_is_the_strict_mapping_of_the_frame(frame: Frame) -> None:
    """The hand-made text equals what the general printer gives."""
    assert json.loads(frame_json(encode_entry(frame))) == message_to_mapping(as_wire(frame))


_TOPIC = "run:run_00000000000000000000000001:events"


def _joined(entries: list[bytes]) -> tuple[bytes, list[int]]:
    return b"".join(entries), list(accumulate(map(len, entries)))


def _entries(count: int, *, first: int = 5) -> list[bytes]:
    template = EntryTemplate(_TOPIC)
    return [template.entry(seq, "thought", b"x" * seq, 1) for seq in range(first, first + count)]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_sound_entries_are_all_counted(count: int) -> None:
    """Frames of the topic that follow each other are sound, however many there are."""
    blob, ends = _joined(_entries(count))
    assert count_sound_entries(blob, ends, topic=_TOPIC, first_seq=5) == count


@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"\xff",
        EntryTemplate(_TOPIC).entry(1_000, "thought", b"", 1),
        EntryTemplate("run:run_00000000000000000000000002:events").entry(5, "thought", b"", 1),
        b"\x0a\x00",
        encode_server_control(ServerHeartbeat((), 1)),
    ],
)
def test_the_first_unsound_entry_ends_the_count(at: int, spoilt: bytes) -> None:
    """What is no frame, another topic's or another seq's is found, and everything before it is sound."""
    rows = _entries(7)
    rows[at] = spoilt
    blob, ends = _joined(rows)
    assert count_sound_entries(blob, ends, topic=_TOPIC, first_seq=5) == at


def test_two_frames_in_one_row() -> None:
    """A row that holds the next row's frame as well is unsound."""
    first, second, third = _entries(3)
    blob, ends = _joined([first, second + third])
    assert count_sound_entries(blob, ends, topic=_TOPIC, first_seq=5) == 1


def test_another_start() -> None:
    """The seq of the first entry is part of the question."""
    blob, ends = _joined(_entries(3))
    assert count_sound_entries(blob, ends, topic=_TOPIC, first_seq=4) == 0
