"""The hash chain, against its definition written out."""

import hashlib

import pytest

from khala_contracts import chain as chains
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.errors import WireError
from khala_contracts.frames import ERASED_KIND, Frame
from khala_contracts.topics import TopicName

TOPIC = TopicName("run:x:events")


def test_the_start_is_the_hash_of_the_domain_and_the_topic() -> None:
    """chain(0), SPEC section 2."""
    assert chains.chain_start(TOPIC) == hashlib.sha256(b"khala.chain.v1\x00run:x:events").digest()


def test_a_link_covers_every_field_of_the_frame() -> None:
    """chain(n), SPEC section 2, byte by byte."""
    previous = bytes(range(32))
    covered = (
        previous
        + b"\x00\x00\x00\x00\x00\x00\x01\x02"
        + b"\x00\x00\x00\x03"
        + b"\x00\x00\x00\x06"
        + "été.".encode()
        + hashlib.sha256(b"payload").digest()
    )
    assert len("été.".encode()) == 6
    expected = hashlib.sha256(covered).digest()
    assert chains.chain_next(previous, 0x102, 3, "été.", b"payload") == expected
    assert (
        chains.chain_next_hashed(previous, 0x102, 3, "été.", hashlib.sha256(b"payload").digest()) == expected
    )
    assert chains.chain_after(previous, Frame(TOPIC, 0x102, "été.", b"payload", 3)) == expected


def test_an_erased_frame_gives_the_link_of_the_original() -> None:
    """Verification still passes after an erasure, whatever the reason says."""
    previous = chains.chain_start(TOPIC)
    original = Frame(TOPIC, 1, "thought", b"secret", 7)
    payload = encode_erased(Erased("thought", hashlib.sha256(b"secret").digest(), 7, "law"))
    erased = Frame(TOPIC, 1, ERASED_KIND, payload, 1)
    assert chains.chain_after(previous, erased) == chains.chain_after(previous, original)
    assert chains.chain_next_erased(previous, 1, payload) == chains.chain_after(previous, original)


def test_an_erased_frame_that_names_nothing_is_refused() -> None:
    """It cannot be verified, so it is no frame of ours."""
    with pytest.raises(WireError):
        chains.chain_after(bytes(32), Frame(TOPIC, 1, ERASED_KIND, b"", 1))
