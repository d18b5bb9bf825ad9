"""Payload of khala.erased."""

import pytest

from khala_contracts.erasure import Erased, decode_erased_untrusted, encode_erased
from khala_contracts.errors import WireError

ERASED = Erased("thought", bytes(range(32)), 3, "asked for")


def test_it_round_trips() -> None:
    """Everything that enters the chain comes back."""
    assert decode_erased_untrusted(encode_erased(ERASED)) == ERASED


@pytest.mark.parametrize(
    ("kind", "digest", "version"),
    [("", bytes(32), 1), ("thought", bytes(31), 1), ("thought", bytes(33), 1), ("thought", bytes(32), 0)],
)
def test_an_incomplete_one_cannot_be_made(kind: str, digest: bytes, version: int) -> None:
    """Kind, hash and schema version of the original are all needed."""
    with pytest.raises(ValueError, match="names kind"):
        Erased(kind, digest, version)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x0a\x07thought", encode_erased(ERASED)[:-1]])
def test_bytes_that_are_not_one_are_refused(payload: bytes) -> None:
    """Empty, no protobuf, incomplete, cut off."""
    with pytest.raises(WireError) as caught:
        decode_erased_untrusted(payload)
    assert caught.value.reason_code == "malformed_message"
