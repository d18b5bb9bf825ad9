"""Forms of the secrets that control hands out, and how they are kept.

Refresh tokens are ``khr_<52>``, service keys ``khk_<26 of the key id>_<52>``, where 52 characters of
lower-case Crockford base32 carry 256 random bits. Only the SHA-256 of the whole text is stored: with
256 bits of entropy there is nothing to guess, so neither salt nor stretching adds anything (NIST
SP 800-63B section 5.1.1.2 asks for them for memorised secrets). Randomness is an argument.

For the grace of a refresh the successor is kept sealed with the token that it replaced as the key: who
presents that token again can be given the same successor, and nobody else can read it, the database
included.
"""

import hashlib
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

SECRET_BYTES: Final = 32
SEAL_NONCE_BYTES: Final = 12
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SECRET_CHARS: Final = 52

_REFRESH: Final = re.compile(r"khr_[0-9a-hjkmnp-tv-z]{52}", re.ASCII)
_KEY: Final = re.compile(r"khk_([0-7][0-9a-hjkmnp-tv-z]{25})_[0-9a-hjkmnp-tv-z]{52}", re.ASCII)
KEY_SECRET_PREFIX: Final = "khk_"  # noqa: S105  # how every key begins, not a key


def format_refresh_secret(random_bytes: bytes) -> str:
    """Return a refresh token made of 32 random bytes."""
    return f"khr_{_base32(random_bytes)}"


def format_key_secret(key_id: str, random_bytes: bytes) -> str:
    """Return the secret of a service key: names its key, so that looking it up needs no scan."""
    return f"{KEY_SECRET_PREFIX}{key_id.removeprefix('key_')}_{_base32(random_bytes)}"


def is_refresh_secret(text: str) -> bool:
    """Return whether the text has the form of a refresh token."""
    return _REFRESH.fullmatch(text) is not None


def parse_key_secret(text: str) -> str | None:
    """Return the key id that a service key secret names, None if the text is not one."""
    match = _KEY.fullmatch(text)
    return None if match is None else f"key_{match[1]}"


def hash_secret(secret: str) -> bytes:
    """Return the 32 bytes under which a refresh token or service key secret is stored."""
    return hashlib.sha256(secret.encode()).digest()


def seal_successor(presented: str, successor: str, nonce: bytes) -> bytes:
    """Return the successor of a refresh token, readable only with the presented token.

    Args:
        presented: The token that is being spent.
        successor: What replaces it.
        nonce: SEAL_NONCE_BYTES random bytes; two racing rotations seal under the same key.
    """
    return nonce + _seal_cipher(presented).encrypt(nonce, successor.encode(), None)


def open_successor(presented: str, sealed: bytes) -> str:
    """Return what `seal_successor` sealed.

    Raises:
        ValueError: It was sealed for another token.
    """
    nonce, rest = sealed[:SEAL_NONCE_BYTES], sealed[SEAL_NONCE_BYTES:]
    try:
        return _seal_cipher(presented).decrypt(nonce, rest, None).decode()
    except InvalidTag:
        raise ValueError("sealed for another token") from None


def _seal_cipher(presented: str) -> ChaCha20Poly1305:
    # Not hash_secret: that is what the database has.
    return ChaCha20Poly1305(hashlib.sha256(b"khala.refresh_successor.v1\x00" + presented.encode()).digest())


def _base32(random_bytes: bytes) -> str:
    if len(random_bytes) != SECRET_BYTES:
        raise ValueError(f"a secret needs {SECRET_BYTES} random bytes")
    number = int.from_bytes(random_bytes, "big")
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(_SECRET_CHARS)))
