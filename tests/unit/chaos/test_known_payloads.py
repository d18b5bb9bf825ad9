"""Payloads that follow from their seq: the rule, spelled out."""

from __future__ import annotations

import pytest

from chaos.load.known_payloads import DIGITS, payload_of_seq


@pytest.mark.parametrize(
    ("seq", "size", "payload"),
    [
        (1, 16, b"0000000000000001"),
        (1, 20, b"0000000000000001rstu"),
        (10, 18, b"000000000000000aab"),
        (9, 19, b"0000000000000009zab"),
        (255, 17, b"00000000000000ffl"),
    ],
)
def test_the_digits_of_the_seq_then_letters_that_begin_with_it(seq: int, size: int, payload: bytes) -> None:
    """``'a' + (seq + i) % 26`` at place i."""
    assert payload_of_seq(seq, size) == payload


def test_every_byte_follows_the_rule() -> None:
    """Also beyond one alphabet."""
    for seq in (1, 26, 27, 1_000_003):
        payload = payload_of_seq(seq, 300)
        assert len(payload) == 300
        assert list(payload[DIGITS:]) == [ord("a") + (seq + i) % 26 for i in range(DIGITS, 300)]
