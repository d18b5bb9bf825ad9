"""Verifies sync tokens with control's public keys (EdDSA, pinned; JWKS by kid).

The key ring is fetched once and again when a token names an unknown kid, at most every
``REFETCH_MIN_S``: an attacker who invents kids must not turn the node against control.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import jwt
import trio
from jwt.algorithms import OKPAlgorithm

from khala.ports import ControlUnavailableError, TokenRefusedError
from khala_contracts import reason_codes, sync_claims
from khala_contracts.codec import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from khala_contracts.sync_claims import SyncClaims

ALGORITHM: Final = "EdDSA"
LEEWAY_S: Final = 30
# Larger than any token that we issue (256 topics of 200 bytes); parsing more is a gift to attackers.
TOKEN_MAX_BYTES: Final = 64 * 1024
REFETCH_MIN_S: Final = 5.0


class KeySource(Protocol):
    """Where control's public keys come from."""

    async def fetch_keys(self) -> list[dict[str, object]]:
        """Return the JSON Web Keys. Raises ControlUnavailableError."""


class JwksTokenVerifier:
    """Checks signature and claims of sync tokens; see TokenVerifier."""

    def __init__(self, source: KeySource) -> None:
        """Fetch keys from ``source`` when the first token arrives."""
        self._source = source
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._fetched_at = -float("inf")
        self._fetching = trio.Lock()

    async def verify(self, token: str) -> SyncClaims:
        """Return the claims of a token that is valid now; see TokenVerifier."""
        if len(token) > TOKEN_MAX_BYTES:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "larger than any of ours")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as exc:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "not a token") from exc
        if header.get("alg") != ALGORITHM:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "algorithm")
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "no kid")
        key = await self._key(kid)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=sync_claims.AUDIENCE,
                issuer=sync_claims.ISSUER,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "nbf", "aud", "iss", "jti"]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise TokenRefusedError(reason_codes.TOKEN_EXPIRED, "expired") from exc
        except jwt.InvalidTokenError as exc:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, type(exc).__name__) from exc
        try:
            return sync_claims.from_claims_untrusted(claims)
        except WireError as exc:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "claims") from exc

    async def _key(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._keys:
            await self._refetch()
        key = self._keys.get(kid)
        if key is None:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "unknown kid")
        return key

    async def _refetch(self) -> None:
        async with self._fetching:
            if trio.current_time() - self._fetched_at < REFETCH_MIN_S:
                return
            self._keys = dict(_parse_keys(await self._source.fetch_keys()))
            self._fetched_at = trio.current_time()

    async def check(self) -> str | None:
        """Return None if at least one key is known, else why not."""
        if not self._keys:
            try:
                await self._refetch()
            except ControlUnavailableError:
                return "control_unreachable"
        return None if self._keys else "no_signing_keys"


def _parse_keys(jwks: list[dict[str, object]]) -> list[tuple[str, Ed25519PublicKey]]:
    keys: list[tuple[str, Ed25519PublicKey]] = []
    for jwk in jwks:
        kid = jwk.get("kid")
        if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519" and isinstance(kid, str):
            public = {name: value for name, value in jwk.items() if name != "d"}
            # OKPAlgorithm also knows private and X448 keys; the filter above leaves this kind.
            keys.append((kid, OKPAlgorithm.from_jwk(public)))  # type: ignore[arg-type]
    return keys
