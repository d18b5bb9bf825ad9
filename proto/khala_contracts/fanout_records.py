"""The message of a fan-out driver, sealed by the runtime and opened by nodes.

``mac`` is HMAC-SHA256 over exactly these bytes (u32 and u64 big-endian; *bytes* are preceded by their
length as u32):

    "khala.fanout.v1" 0x00
    bytes(key_id) bytes(topic) bytes(lineage)
    u64(first_seq) u64(last_seq) bytes(chain_before) bytes(chain_after) u64(committed_at_us)
    u32(number of entries) bytes(entry) ...

A record is accepted only in its one encoding: every byte of it is covered, unknown fields included.
A record without entries is a pure hint. Authentic says nothing about order: a node still compares
the record with its own head (``khala.core.records``).
"""

from __future__ import annotations

import hmac
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs
from google.protobuf.message import DecodeError

from khala_contracts import reason_codes
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.errors import WireError
from khala_contracts.frames import SEQ_MAX
from khala_contracts.gen.openagents.sync.v1 import fanout_pb2
from khala_contracts.topics import TopicInvalid, TopicName, parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["KEY_MIN_BYTES", "FanoutRecord", "RecordSigner", "RecordVerifier", "read_unverified"]

# RFC 2104 section 3: a key shorter than the hash weakens it.
KEY_MIN_BYTES: Final = 32
_DOMAIN: Final = b"khala.fanout.v1\x00"
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")


@attrs.frozen
class FanoutRecord:
    """Frames ``first_seq .. last_seq`` of one topic, or only the news that they exist.

    Invariants: 1 <= first_seq <= last_seq; entries are none or one per seq; chains have 32 bytes.
    Raises ValueError if one does not hold.
    """

    topic: TopicName
    lineage: str
    first_seq: int
    last_seq: int
    chain_before: bytes = attrs.field(repr=False)
    chain_after: bytes = attrs.field(repr=False)
    entries: tuple[bytes, ...] = attrs.field(repr=False)
    # Unix microseconds at which the runtime saw the commit return; for latency figures only.
    committed_at_us: int

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.first_seq <= self.last_seq <= SEQ_MAX:
            message = f"no range of seqs: {self.first_seq}..{self.last_seq}"
            raise ValueError(message)
        if len(self.chain_before) != CHAIN_BYTES or len(self.chain_after) != CHAIN_BYTES:
            message = f"a chain has {CHAIN_BYTES} bytes"
            raise ValueError(message)
        if len(self.entries) not in {0, self.last_seq - self.first_seq + 1}:
            message = f"{len(self.entries)} entries for {self.first_seq}..{self.last_seq}"
            raise ValueError(message)
        if not self.lineage or not 0 <= self.committed_at_us <= SEQ_MAX:
            message = "a record has a lineage and a time"
            raise ValueError(message)


def _covered(record: FanoutRecord, key_id: str) -> bytes:
    parts = [_DOMAIN]
    for text in (key_id, record.topic, record.lineage):
        data = text.encode()
        parts += (_U32.pack(len(data)), data)
    parts += (_U64.pack(record.first_seq), _U64.pack(record.last_seq))
    for chain in (record.chain_before, record.chain_after):
        parts += (_U32.pack(len(chain)), chain)
    parts += (_U64.pack(record.committed_at_us), _U32.pack(len(record.entries)))
    for entry in record.entries:
        parts += (_U32.pack(len(entry)), entry)
    return b"".join(parts)


def _encode(record: FanoutRecord, key_id: str, mac: bytes) -> bytes:
    return fanout_pb2.FanoutRecord(
        topic=record.topic,
        lineage=record.lineage,
        first_seq=record.first_seq,
        last_seq=record.last_seq,
        chain_before=record.chain_before,
        chain_after=record.chain_after,
        entries=record.entries,
        key_id=key_id,
        mac=mac,
        committed_at_us=record.committed_at_us,
    ).SerializeToString(deterministic=True)


def _decode(data: bytes) -> tuple[fanout_pb2.FanoutRecord, FanoutRecord]:
    try:
        wire = fanout_pb2.FanoutRecord.FromString(data)
        return wire, FanoutRecord(
            topic=parse_topic(wire.topic).name,
            lineage=wire.lineage,
            first_seq=wire.first_seq,
            last_seq=wire.last_seq,
            chain_before=wire.chain_before,
            chain_after=wire.chain_after,
            entries=tuple(wire.entries),
            committed_at_us=wire.committed_at_us,
        )
    except (DecodeError, TopicInvalid, ValueError):
        raise WireError(reason_codes.MALFORMED_MESSAGE, "a FanoutRecord") from None


def read_unverified(data: bytes) -> tuple[FanoutRecord, str]:
    """Return what the bytes claim, and the id of the key that they claim; for forging in tests.

    Raises:
        WireError: malformed_message if it is no record.
    """
    wire, record = _decode(data)
    return record, wire.key_id


def _check_key(key_id: str, key: bytes) -> None:
    if not key_id or len(key) < KEY_MIN_BYTES:
        message = f"a fan-out key has an id and at least {KEY_MIN_BYTES} bytes"
        raise ValueError(message)


class RecordSigner:
    """Seals records with the runtime's key."""

    def __init__(self, key_id: str, key: bytes) -> None:
        """Take the key. Raises ValueError if it is too short or has no id."""
        _check_key(key_id, key)
        self._key_id = key_id
        self._key = key

    def seal(self, record: FanoutRecord) -> bytes:
        """Return the encoded record with its MAC."""
        mac = hmac.digest(self._key, _covered(record, self._key_id), "sha256")
        return _encode(record, self._key_id, mac)


class RecordVerifier:
    """Opens records that carry the MAC of one of these keys; several while keys rotate."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take keys by id. Raises ValueError if one is too short or has no id."""
        for key_id, key in keys.items():
            _check_key(key_id, key)
        self._keys = MappingProxyType(dict(keys))

    @property
    def key_ids(self) -> Iterable[str]:
        """Ids of the keys."""
        return self._keys.keys()

    def open_untrusted(self, data: bytes) -> FanoutRecord:
        """Return the record in these bytes if it is authentic, whole and in its one encoding.

        Raises:
            WireError: malformed_message if it is no record, token_invalid if its MAC does not hold.
        """
        wire, record = _decode(data)
        key = self._keys.get(wire.key_id)
        if key is None:
            raise WireError(reason_codes.TOKEN_INVALID, "sealed with a known key", "key_id")
        if not hmac.compare_digest(hmac.digest(key, _covered(record, wire.key_id), "sha256"), wire.mac):
            raise WireError(reason_codes.TOKEN_INVALID, "the seal of its content", "mac")
        # A field that we do not know is not sealed.
        wire.DiscardUnknownFields()
        if wire.SerializeToString(deterministic=True) != data:
            raise WireError(reason_codes.MALFORMED_MESSAGE, "a FanoutRecord in its one encoding")
        return record
