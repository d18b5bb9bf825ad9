"""An NKey, or a credentials file with one, as NATS logins take them instead of a password. Pure but for signing.

An NKey is an Ed25519 key as text: base32 of a prefix, the key and a CRC-16. A credentials file, as ``nsc`` writes
it, holds a JWT of the account, and the seed of the key that it was given to. The server sends a nonce; the
signature of it proves the key, which never leaves the process. nats-py would need one more package for this.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final, Self

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from khala_service.secret import Secret

__all__ = ["NatsKey"]

# Prefixes are chosen by NATS so that the text begins with these letters: SU for a user's seed, U for his key.
_SEED_PREFIX: Final = 18 << 3
_USER_PREFIX: Final = 20 << 3
_KEY_BYTES: Final = 32
_CRC_BYTES: Final = 2
_SEED: Final = re.compile(r"SU[A-Z2-7]{56}", re.ASCII)
_BLOCK: Final = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END \1-{3,}", re.ASCII)
_JWT_BLOCK: Final = "NATS USER JWT"
_SEED_BLOCK: Final = "USER NKEY SEED"


@attrs.frozen
class NatsKey:
    """A user's key, and the JWT that was issued for it, if there is one."""

    _private: Ed25519PrivateKey = attrs.field(repr=False)
    jwt: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, text: Secret) -> Self:
        """Return the key of a credentials file or of a bare seed.

        Raises:
            ValueError: It is neither; the message says what is missing and quotes nothing.
        """
        content = text.reveal().strip()
        if _SEED.fullmatch(content):
            return cls(_parse_seed(content))
        blocks = dict(_BLOCK.findall(content))
        for name in (_JWT_BLOCK, _SEED_BLOCK):
            if name not in blocks:
                raise ValueError(f"neither an NKey seed of a user nor a credentials file: no {name}")
        return cls(_parse_seed(blocks[_SEED_BLOCK]), blocks[_JWT_BLOCK])

    @property
    def public(self) -> str:
        """The key as NATS names users: ``U`` and 55 more characters."""
        return _encode(bytes([_USER_PREFIX]) + self._private.public_key().public_bytes_raw())

    def sign(self, nonce: str) -> str:
        """Return the signature of a server's nonce, in base64."""
        return base64.b64encode(self._private.sign(nonce.encode())).decode()


def _parse_seed(text: str) -> Ed25519PrivateKey:
    """Return the private key of a seed.

    Raises:
        ValueError: It is damaged, or not of a user.
    """
    if not _SEED.fullmatch(text):
        raise ValueError("an NKey seed of a user begins with SU and has 58 characters")
    data = base64.b32decode(text + "=" * (-len(text) % 8))
    content, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if binascii.crc_hqx(content, 0).to_bytes(_CRC_BYTES, "little") != crc:
        raise ValueError("an NKey seed with a wrong check sum")
    # The first two bytes hold two prefixes of five bits each: that it is a seed, and whose.
    if (content[0] & 0xF8, (content[0] & 0x07) << 5 | content[1] >> 3) != (_SEED_PREFIX, _USER_PREFIX):
        raise ValueError("an NKey seed that is not a user's")
    return Ed25519PrivateKey.from_private_bytes(content[2 : 2 + _KEY_BYTES])


def _encode(content: bytes) -> str:
    crc = binascii.crc_hqx(content, 0).to_bytes(_CRC_BYTES, "little")
    return base64.b32encode(content + crc).decode().rstrip("=")
