"""Sealed records: what was sealed is opened, and nothing else is."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts.errors import WireError
from khala_contracts.fanout_records import FanoutRecord, RecordSigner, RecordVerifier
from tests.properties.contract_strategies import fanout_records

KEY = bytes(range(32))
SIGNER, VERIFIER = RecordSigner("k", KEY), RecordVerifier({"k": KEY})


def opens(data: bytes) -> bool:
    """Return whether the record opens."""
    try:
        VERIFIER.open_untrusted(data)
    except WireError:
        return False
    return True


@given(fanout_records())
def test_sealing_and_opening_are_inverse(record: FanoutRecord) -> None:
    """And sealing is deterministic."""
    assert VERIFIER.open_untrusted(SIGNER.seal(record)) == record
    assert SIGNER.seal(record) == SIGNER.seal(record)


@given(fanout_records(), st.data())
def test_any_flipped_byte_is_refused(record: FanoutRecord, data: st.DataObject) -> None:
    """Anywhere in the message."""
    sealed = bytearray(SIGNER.seal(record))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert not opens(bytes(sealed))


@given(fanout_records(), st.data())
def test_cutting_and_adding_are_refused(record: FanoutRecord, data: st.DataObject) -> None:
    """Bytes removed or inserted, a valid record after another."""
    sealed = SIGNER.seal(record)
    start = data.draw(st.integers(0, len(sealed) - 1))
    end = data.draw(st.integers(start + 1, len(sealed)))
    removed = sealed[:start] + sealed[end:]
    assert not opens(removed)
    inserted = sealed[:start] + data.draw(st.binary(min_size=1, max_size=9)) + sealed[start:]
    assert inserted == sealed or not opens(inserted)
    assert not opens(sealed + sealed)


@given(fanout_records(), fanout_records())
def test_a_mac_fits_one_record_only(record: FanoutRecord, other: FanoutRecord) -> None:
    """Different records have different seals."""
    assert (SIGNER.seal(record) == SIGNER.seal(other)) == (record == other)
    later = attrs.evolve(record, committed_at_us=record.committed_at_us ^ 1)
    assert SIGNER.seal(later)[-40:] != SIGNER.seal(record)[-40:]


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    """A driver may invent messages."""
    assert not opens(data)
