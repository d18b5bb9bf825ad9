"""Forms of secrets."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.credentials import (
    format_key_secret,
    format_refresh_secret,
    hash_secret,
    is_refresh_secret,
    open_successor,
    parse_key_secret,
    seal_successor,
)
from tests.unit.control.samples import make_id

secret_bytes = st.binary(min_size=32, max_size=32)


@given(secret_bytes, secret_bytes)
def test_a_refresh_secret_carries_all_its_bits(first: bytes, second: bytes) -> None:
    """Different bytes give different texts, all of one form."""
    texts = format_refresh_secret(first), format_refresh_secret(second)
    assert (texts[0] == texts[1]) == (first == second)
    assert all(is_refresh_secret(text) for text in texts)
    assert all(parse_key_secret(text) is None for text in texts)


@given(secret_bytes, st.integers(0, 2**128 - 1))
def test_a_key_secret_names_its_key(random_bytes: bytes, number: int) -> None:
    """The key id comes back out of the secret."""
    key_id = make_id("key", number)
    secret = format_key_secret(key_id, random_bytes)
    assert secret.startswith("khk_")
    assert parse_key_secret(secret) == key_id
    assert not is_refresh_secret(secret)


def test_the_shape_is_pinned() -> None:
    """Secret scanners know these prefixes and lengths."""
    assert format_refresh_secret(b"\x00" * 32) == "khr_" + "0" * 52
    assert format_refresh_secret(b"\xff" * 32) == "khr_1" + "z" * 51
    assert format_key_secret(make_id("key", 1), b"\x00" * 32) == f"khk_{'0' * 25}1_{'0' * 52}"


@pytest.mark.parametrize(
    "text",
    ["", "khk_", "khr_", "khk_" + "0" * 26, f"khk_{'0' * 26}_{'0' * 51}", f"khk_{'0' * 26}_{'0' * 53}",
     f"khk_{'8' * 26}_{'0' * 52}", f"khk_{'0' * 26}_{'u' * 52}", f"khk_{'0' * 26}_{'0' * 52}\n",
     f"KHK_{'0' * 26}_{'0' * 52}", f" khk_{'0' * 26}_{'0' * 52}", f"khr_{'0' * 52}\n", f"khr_{'O' * 52}"],
)  # fmt: skip
def test_what_is_no_secret(text: str) -> None:
    """One character off and it is nobody's."""
    assert parse_key_secret(text) is None
    assert not is_refresh_secret(text)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_too_little_randomness_is_our_mistake(length: int) -> None:
    """A secret is made of exactly 32 bytes."""
    with pytest.raises(ValueError, match="32 random bytes"):
        format_refresh_secret(b"x" * length)


def test_the_stored_form_is_sha256() -> None:
    """So that a database made by one release is read by the next."""
    assert hash_secret("khr_x") == hashlib.sha256(b"khr_x").digest()


@given(secret_bytes, secret_bytes, secret_bytes, st.binary(min_size=12, max_size=12))
def test_a_successor_opens_with_its_predecessor_only(
    presented: bytes, successor: bytes, other: bytes, nonce: bytes
) -> None:
    """Sealed, it shows nothing; the token that it replaced opens it, and no other text does."""
    spent, new = format_refresh_secret(presented), format_refresh_secret(successor)
    sealed = seal_successor(spent, new, nonce)
    assert new.encode() not in sealed
    assert open_successor(spent, sealed) == new
    wrong = format_refresh_secret(other)
    if wrong != spent:
        with pytest.raises(ValueError, match="another token"):
            open_successor(wrong, sealed)
    with pytest.raises(ValueError, match="another token"):
        open_successor(spent, sealed[:-1] + bytes([sealed[-1] ^ 1]))
