"""Sealed records of a fan-out driver."""

import hashlib
import hmac
import struct

import attrs
import pytest

from khala_contracts.errors import WireError
from khala_contracts.fanout_records import (
    KEY_MIN_BYTES,
    FanoutRecord,
    RecordSigner,
    RecordVerifier,
    read_unverified,
)
from khala_contracts.gen.openagents.sync.v1 import fanout_pb2
from khala_contracts.topics import TopicName, format_run_events

TOPIC = format_run_events("run_01fwhe4ydgfk1shh6w1g60eecf")
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
RECORD = FanoutRecord(TOPIC, "lin", 5, 6, bytes(32), bytes([1] * 32), (b"one", b"two"), 1_700_000_000_000_000)
HINT = attrs.evolve(RECORD, entries=())
SIGNER = RecordSigner("k1", KEY)
VERIFIER = RecordVerifier({"k1": KEY, "k2": OTHER_KEY})


def refused(data: bytes, verifier: RecordVerifier = VERIFIER) -> tuple[str, str]:
    """Return reason and field of a refused record."""
    with pytest.raises(WireError) as caught:
        verifier.open_untrusted(data)
    return caught.value.reason_code, caught.value.field


@pytest.mark.parametrize("record", [RECORD, HINT, attrs.evolve(RECORD, first_seq=6, entries=(b"",))])
def test_what_was_sealed_is_opened(record: FanoutRecord) -> None:
    """A copy, a pure hint, and an entry without bytes."""
    assert VERIFIER.open_untrusted(SIGNER.seal(record)) == record


def test_the_mac_covers_the_documented_bytes() -> None:
    """Written out, independent of the module."""

    def sized(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    covered = b"khala.fanout.v1\x00" + sized(b"k1") + sized(TOPIC.encode()) + sized(b"lin")
    covered += struct.pack(">QQ", 5, 6) + sized(bytes(32)) + sized(bytes([1] * 32))
    covered += struct.pack(">QI", 1_700_000_000_000_000, 2) + sized(b"one") + sized(b"two")
    sealed = fanout_pb2.FanoutRecord.FromString(SIGNER.seal(RECORD))
    assert sealed.mac == hmac.new(KEY, covered, hashlib.sha256).digest()
    assert sealed.key_id == "k1"


def test_keys_rotate_with_overlap() -> None:
    """Both keys open; a third does not, nor a key under another's name."""
    assert VERIFIER.open_untrusted(RecordSigner("k2", OTHER_KEY).seal(RECORD)) == RECORD
    assert set(VERIFIER.key_ids) == {"k1", "k2"}
    assert refused(RecordSigner("k3", KEY).seal(RECORD)) == ("token_invalid", "key_id")
    assert refused(RecordSigner("k1", OTHER_KEY).seal(RECORD)) == ("token_invalid", "mac")


def test_every_flipped_bit_is_refused() -> None:
    """All of it is covered, lengths and tags included."""
    sealed = SIGNER.seal(RECORD)
    for index in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[index] ^= 1 << bit
            refused(bytes(changed))


@pytest.mark.parametrize("extra", [b"\xa2\x06\x01x", b"\x0a\x00", b"\x28\x05", b"\xff"])
def test_nothing_can_be_added(extra: bytes) -> None:
    """Unknown fields, repeated fields, noise."""
    assert refused(SIGNER.seal(RECORD) + extra)[0] in {"malformed_message", "token_invalid"}


def test_entries_cannot_be_cut_elsewhere() -> None:
    """The same bytes in other pieces are another record."""
    wire = fanout_pb2.FanoutRecord.FromString(SIGNER.seal(RECORD))
    del wire.entries[:]
    wire.entries.extend([b"onet", b"wo"])
    assert refused(wire.SerializeToString()) == ("token_invalid", "mac")


@pytest.mark.parametrize("data", [b"", b"\xff", b"hello"])
def test_noise_is_refused(data: bytes) -> None:
    """A driver may invent messages."""
    assert refused(data)[0] == "malformed_message"


@pytest.mark.parametrize(
    "change",
    [
        {"first_seq": 0},
        {"first_seq": 7},
        {"last_seq": 2**63},
        {"chain_before": b""},
        {"chain_after": bytes(33)},
        {"entries": (b"one",)},
        {"lineage": ""},
        {"committed_at_us": -1},
    ],
)
def test_a_record_that_makes_no_sense_cannot_be_made(change: dict[str, object]) -> None:
    """Ranges, chains, one entry per seq, a lineage, a time."""
    with pytest.raises(ValueError, match=r"seqs|chain|entries|lineage"):
        attrs.evolve(RECORD, **change)  # type: ignore[arg-type]


def test_a_foreign_topic_is_refused() -> None:
    """Even if it is sealed: no part of ours makes one."""
    assert (
        refused(SIGNER.seal(attrs.evolve(RECORD, topic=TopicName("run:*:events"))))[0] == "malformed_message"
    )


@pytest.mark.parametrize(("key_id", "key"), [("", KEY), ("k", bytes(KEY_MIN_BYTES - 1))])
def test_weak_keys_are_refused(key_id: str, key: bytes) -> None:
    """On both sides."""
    with pytest.raises(ValueError, match="at least 32 bytes"):
        RecordSigner(key_id, key)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        RecordVerifier({key_id: key})


def test_what_a_forger_can_read() -> None:
    """Everything in a record but the key: its claims are read without one, and are believed by nobody."""
    assert read_unverified(RecordSigner("k9", bytes(32)).seal(RECORD)) == (RECORD, "k9")
    with pytest.raises(WireError) as raised:
        read_unverified(b"\xff no record")
    assert raised.value.reason_code == "malformed_message"
