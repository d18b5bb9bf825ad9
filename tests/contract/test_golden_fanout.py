"""fanout.json: records as the runtime seals them."""

from typing import cast

import pytest

from khala_contracts import codec
from khala_contracts.fanout_records import FanoutRecord, RecordSigner, RecordVerifier
from khala_contracts.topics import TopicName
from tests.contract.fixture_files import Row, load, rows

FIXTURE = load("fanout.json")
KEY_ID, KEY = str(FIXTURE["key_id"]), bytes.fromhex(str(FIXTURE["key_hex"]))


@pytest.mark.parametrize("row", rows(FIXTURE, "records"), ids=lambda row: row["name"])
def test_a_sealed_record(row: Row) -> None:
    """The recorded bytes open to the recorded values and are sealed from them again."""
    record = FanoutRecord(
        topic=TopicName(row["topic"]),
        lineage=row["lineage"],
        first_seq=int(row["first_seq"]),
        last_seq=int(row["last_seq"]),
        chain_before=bytes.fromhex(row["chain_before_hex"]),
        chain_after=bytes.fromhex(row["chain_after_hex"]),
        entries=tuple(bytes.fromhex(entry) for entry in cast("list[str]", row["entries_hex"])),
        committed_at_us=int(row["committed_at_us"]),
    )
    sealed = bytes.fromhex(row["sealed_hex"])
    assert RecordSigner(KEY_ID, KEY).seal(record) == sealed
    assert RecordVerifier({KEY_ID: KEY}).open_untrusted(sealed) == record
    frames = codec.decode_entries(b"".join(record.entries))
    assert [frame.seq for frame in frames] == list(range(record.first_seq, record.first_seq + len(frames)))
