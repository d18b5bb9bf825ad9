from __future__ import annotations

import pytest

from khala_client.core.cursor import Cursor, parse_after, start_of
from khala_contracts.codec import CursorStart, FromStart, SubscribeFrom
from khala_contracts.topics import Lineage, Seq, TopicName

TOPIC = TopicName("run:run_00000000000000000000000001:events")
LINEAGE = Lineage("lin_1")


def test_a_cursor_says_all_it_knows() -> None:
    """Seq, lineage and chain go into the subscribe; an unknown chain stays away."""
    assert start_of(Cursor(TOPIC, Seq(7), LINEAGE, bytes(32))) == CursorStart(7, "lin_1", bytes(32))
    assert start_of(Cursor(TOPIC, Seq(7), LINEAGE)) == CursorStart(7, "lin_1", b"")


@pytest.mark.parametrize(
    ("word", "member"),
    [
        ("beginning", SubscribeFrom.BEGINNING),
        ("earliest", SubscribeFrom.EARLIEST),
        ("now", SubscribeFrom.NOW),
    ],
)
def test_a_word_is_itself(word: str, member: SubscribeFrom) -> None:
    """The three words of subscribe are also those of a person."""
    parsed = parse_after(word)
    assert parsed == word
    assert start_of(parsed) == FromStart(member)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seq", "lineage", "chain"), [(-1, "l", None), (2**63, "l", None), (1, "", None), (1, "l", bytes(31))]
)
def test_what_is_no_cursor(seq: int, lineage: str, chain: bytes | None) -> None:
    """0 <= seq < 2**63; lineage above 0; 32 bytes of chain if any."""
    with pytest.raises(ValueError, match=TOPIC):
        Cursor(TOPIC, Seq(seq), Lineage(lineage), chain)


def test_the_ends_of_a_cursor() -> None:
    """0 without a lineage and 2**63 - 1 are cursors."""
    Cursor(TOPIC, Seq(0), Lineage(""))
    Cursor(TOPIC, Seq(2**63 - 1), LINEAGE)


@pytest.mark.parametrize(
    ("text", "after"), [("0", 0), ("12", 12), (str(2**63 - 1), 2**63 - 1), ("saved", "saved")]
)
def test_positions_that_a_person_types(text: str, after: object) -> None:
    """A decimal seq, or saved."""
    assert parse_after(text) == after


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1.0", "1e3", "٣", str(2**63), "Beginning", "head"])
def test_what_is_no_position(text: str) -> None:
    """Only ASCII digits and the four words, exactly."""
    with pytest.raises(ValueError, match="not a position"):
        parse_after(text)
