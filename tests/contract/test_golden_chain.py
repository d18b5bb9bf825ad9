"""chain.json: golden vectors, erased frames included."""

import hashlib
import struct
from typing import cast

import pytest

from khala_contracts import chain as chains
from khala_contracts.frames import ERASED_KIND, Frame
from khala_contracts.topics import TopicName
from tests.contract.fixture_files import Row, load, rows

FIXTURE = load("chain.json")
HISTORIES = cast("list[dict[str, object]]", FIXTURE["histories"])


def links_of(history: dict[str, object]) -> list[Row]:
    """Return the links of a history."""
    return cast("list[Row]", history["links"])


@pytest.mark.parametrize("row", rows(FIXTURE, "starts"), ids=lambda row: row["topic"].partition(":")[0])
def test_starts(row: Row) -> None:
    """chain(0) of one topic of each class."""
    assert chains.chain_start(row["topic"]).hex() == row["chain_hex"]


@pytest.mark.parametrize("history", HISTORIES, ids=[str(history["name"]) for history in HISTORIES])
def test_histories(history: dict[str, object]) -> None:
    """Every link, and the number of erased frames."""
    topic = TopicName(str(history["topic"]))
    link, erased = chains.chain_start(topic), 0
    for row in links_of(history):
        frame = Frame(
            topic, int(row["seq"]), row["kind"], bytes.fromhex(row["payload_hex"]), int(row["schema_version"])
        )
        link = chains.chain_after(link, frame)
        erased += frame.kind == ERASED_KIND
        assert link.hex() == row["chain_hex"]
    assert erased == history["erased_frames"]


def test_an_erasure_changes_no_link() -> None:
    """The same run before and after: all chains are equal."""
    before, after = HISTORIES[0], HISTORIES[1]
    assert after["erased_frames"] == 2
    chain_of = [[row["chain_hex"] for row in links_of(history)] for history in (before, after)]
    assert chain_of[0] == chain_of[1]
    assert [row["kind"] for row in links_of(before)] != [row["kind"] for row in links_of(after)]


def test_the_first_link_by_hand() -> None:
    """SPEC section 2, without a line of ours."""
    row = links_of(HISTORIES[0])[0]
    kind = row["kind"].encode()
    start = hashlib.sha256(b"khala.chain.v1\0" + str(HISTORIES[0]["topic"]).encode()).digest()
    digest = hashlib.sha256(bytes.fromhex(row["payload_hex"])).digest()
    covered = (
        start + struct.pack(">Q", 1) + struct.pack(">I", 1) + struct.pack(">I", len(kind)) + kind + digest
    )
    assert hashlib.sha256(covered).hexdigest() == row["chain_hex"]
