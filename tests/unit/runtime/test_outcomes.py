"""Answers survive being remembered."""

from __future__ import annotations

import pytest

from khala_contracts.topics import Lineage
from runtime.core.outcomes import Answered, Appended, AppendedPart, decode_answer, encode_answer
from tests.actors.runtime.rig import LINEAGE, make_id, topic_of


def part(number: int, count: int) -> AppendedPart:
    """Return a part with this many events."""
    return AppendedPart(
        topic_of(number),
        Lineage(LINEAGE),
        2**62 - number,
        tuple(make_id("evt", index) for index in range(count)),
        bytes(range(32)) * count,
    )


@pytest.mark.parametrize("parts", [(part(1, 1),), (part(1, 500),), (part(1, 2), part(2, 1), part(3, 7))])
def test_appended_round_trip(parts: tuple[AppendedPart, ...]) -> None:
    """Every position, id and chain comes back."""
    assert decode_answer(encode_answer(Appended(parts))) == Appended(parts)


@pytest.mark.parametrize("message", [b"", b"\x01", b"message"])
def test_answered_round_trip(message: bytes) -> None:
    """A response comes back byte for byte, whatever it begins with."""
    assert decode_answer(encode_answer(Answered(message))) == Answered(message)


def test_acks() -> None:
    """Acks are consecutive, and each has its own chain."""
    appended = AppendedPart(topic_of(1), Lineage(LINEAGE), 5, ("a", "b"), b"x" * 32 + b"y" * 32)
    assert list(appended.acks()) == [("a", 5, b"x" * 32), ("b", 6, b"y" * 32)]
    assert appended.last_seq == 6


def test_damage_is_noticed() -> None:
    """An unknown layout or a truncated row is an error, never a wrong answer."""
    whole = encode_answer(Appended((part(1, 3),)))
    for damaged in (
        b"",
        b"\x03abc",
        whole[:-1],
        whole[:-32],
        whole[:60],
        b"\x01\x00",
        b"\x01\x00\x01\xff" + whole,
    ):
        with pytest.raises(ValueError, match="answer"):
            decode_answer(damaged)


def test_size() -> None:
    """A remembered answer costs 63 bytes an event, about a third of the response's 165."""
    one, many = (len(encode_answer(Appended((part(1, count),)))) for count in (1, 201))
    assert (many - one) / 200 == 63
