"""Sync tokens signed with control's own key, or almost: each is wrong in one thing only.

The key is read from the file of the running system, which no attacker has; so what is refused is
refused for the one thing that the test changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any, Self

import attrs
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from khala_service.identifiers import SystemIds
from tests.e2e.wire import secret_of

if TYPE_CHECKING:
    from tests.e2e.system import System

Claims = dict[str, Any]
_IDS = SystemIds()


def encode_part(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@attrs.frozen
class Forge:
    """A genuine token's claims, and the key that signed it."""

    claims: Claims
    private: Ed25519PrivateKey = attrs.field(repr=False)
    kid: str

    @classmethod
    def of(cls, system: System, genuine_token: str) -> Self:
        """Take the claims of a minted token, which is left unspent."""
        key = json.loads(secret_of(system, "control_signing_keys.json"))[0]
        private = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(key["d"] + "=="))
        claims = jwt.decode(genuine_token, options={"verify_signature": False})
        return cls(claims, private, key["kid"])

    @property
    def header(self) -> Claims:
        """The header that control writes."""
        return {"alg": "EdDSA", "typ": "JWT", "kid": self.kid}

    def token(self, header: object = None, /, **changed: object) -> str:
        """Return a signed token with a jti of its own and some claims changed; None leaves one out."""
        claims = {**self.claims, "jti": _IDS.new("jti"), **changed}
        kept = {name: value for name, value in claims.items() if value is not None}
        return self.raw(self.header if header is None else header, json.dumps(kept).encode())

    def raw(self, header: object, payload: bytes) -> str:
        """Sign any header and payload."""
        head = encode_part(header if isinstance(header, bytes) else json.dumps(header).encode())
        signed = f"{head}.{encode_part(payload)}"
        return f"{signed}.{encode_part(self.private.sign(signed.encode()))}"

    def by_hmac(self, key: bytes) -> str:
        """Return a token signed by HS256 with bytes that everybody knows."""
        signed = self.token({**self.header, "alg": "HS256"}).rpartition(".")[0]
        return f"{signed}.{encode_part(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"

    def expiring_in(self, seconds: float, **changed: object) -> str:
        """Return a token that ends then; negative: it has ended."""
        now = time.time()
        return self.token(iat=int(now) - 400, exp=int(now + seconds), **changed)
