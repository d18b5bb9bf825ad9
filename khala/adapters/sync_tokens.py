"""Verifies sync tokens with control's public keys (EdDSA, pinned; JWKS by kid).

A library checks the signature over the two parts before it; header, claims and times are judged here, by one schema
with control's mint. Whatever is wrong, the client is told `token_invalid`; the cause is for the audit log.

The key ring is fetched once and again when a token names an unknown kid, at most every
``REFETCH_MIN_S``: an attacker who invents kids must not turn the node against control.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final, Protocol

import trio
from cryptography.exceptions import InvalidSignature
from jwt.algorithms import OKPAlgorithm

from khala.ports import ControlUnavailableError, TokenRefusedError
from khala_contracts import reason_codes, sync_claims
from khala_contracts.codec import WireError
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from khala.ports import Clock
    from khala_contracts.sync_claims import SyncClaims

ALGORITHM: Final = "EdDSA"
LEEWAY_S: Final = 30
# Larger than any token that we issue (256 topics of 200 bytes); parsing more is a gift to attackers.
TOKEN_MAX_BYTES: Final = 64 * 1024
REFETCH_MIN_S: Final = 5.0
_TYPE: Final = "JWT"
_HEADER_NAMES: Final = frozenset({"alg", "kid", "typ"})
_SYSTEM_CLOCK: Final = SystemClock()


class KeySource(Protocol):
    """Where control's public keys come from."""

    async def fetch_keys(self) -> list[dict[str, object]]:
        """Return the JSON Web Keys. Raises ControlUnavailableError."""


class JwksTokenVerifier:
    """Checks signature and claims of sync tokens; see TokenVerifier."""

    def __init__(self, source: KeySource, clock: Clock = _SYSTEM_CLOCK) -> None:
        """Fetch keys from ``source`` when the first token arrives."""
        self._source = source
        self._clock = clock
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._fetched_at = -float("inf")
        self._fetching = trio.Lock()
        # Header of the last token whose signature held, and its key's name: all tokens of a key have the same one.
        # At first a text that is none.
        self._judged_header = (".", "")

    async def verify(self, token: str) -> SyncClaims:
        """Return the claims of a token that is valid now; see TokenVerifier."""
        if len(token) > TOKEN_MAX_BYTES:
            raise _invalid("too_large")
        signed, _, signature = token.rpartition(".")
        header, separator, payload = signed.partition(".")
        if not separator or "." in payload:
            raise _invalid("malformed")
        known, kid = self._judged_header
        if header != known:
            kid = _judge_header_untrusted(header)
        key = await self._key(kid)
        try:
            key.verify(_decode_part_untrusted(signature), signed.encode("ascii"))
        except (InvalidSignature, UnicodeEncodeError) as exc:
            raise _invalid("signature") from exc
        self._judged_header = (header, kid)
        return _judge_claims_untrusted(_decode_part_untrusted(payload), now_s=self._clock.now())

    async def _key(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._keys:
            await self._refetch()
        key = self._keys.get(kid)
        if key is None:
            raise _invalid("kid_unknown")
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


def _judge_header_untrusted(part: str) -> str:
    """Return which key must have signed.

    The header chooses among our keys and nothing else: not the algorithm, not a key of its own (jwk, jku, x5c),
    not an extension (crit, b64, zip).
    """
    header = _load_object_untrusted(_decode_part_untrusted(part))
    if not header.keys() <= _HEADER_NAMES or header.get("typ", _TYPE) != _TYPE:
        raise _invalid("header")
    if header.get("alg") != ALGORITHM:
        raise _invalid("algorithm")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise _invalid("kid_missing")
    return kid


def _judge_claims_untrusted(payload: bytes, *, now_s: float) -> SyncClaims:
    """Return the claims of a payload whose signature holds; expired only if nothing else is wrong with it."""
    claims = _load_object_untrusted(payload)
    if claims.get("iss") != sync_claims.ISSUER:
        raise _invalid("issuer")
    if claims.get("aud") != sync_claims.AUDIENCE:
        raise _invalid("audience")
    try:
        parsed = sync_claims.from_claims_untrusted(claims)
    except WireError as exc:
        raise _invalid("claims") from exc
    begins_at_s = claims["nbf"]
    assert isinstance(begins_at_s, int), "part of the claims' shape"
    if max(parsed.issued_at_s, begins_at_s) > now_s + LEEWAY_S:
        raise _invalid("not_yet_valid")
    if now_s >= parsed.expires_at_s + LEEWAY_S:
        raise TokenRefusedError(reason_codes.TOKEN_EXPIRED, "expired")
    return parsed


def _decode_part_untrusted(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as exc:
        raise _invalid("malformed") from exc


def _load_object_untrusted(raw: bytes) -> Mapping[str, object]:
    """Return a JSON object in which no name is said twice: readers differ in which of the two they believe."""
    try:
        document = json.loads(raw, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as exc:
        raise _invalid("malformed") from exc
    if not isinstance(document, dict):
        raise _invalid("malformed")
    return document


def _without_repeats(members: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(members)
    if len(document) != len(members):
        raise ValueError("a name is said twice")
    return document


def _invalid(cause: str) -> TokenRefusedError:
    return TokenRefusedError(reason_codes.TOKEN_INVALID, cause)


def _parse_keys(jwks: list[dict[str, object]]) -> list[tuple[str, Ed25519PublicKey]]:
    keys: list[tuple[str, Ed25519PublicKey]] = []
    for jwk in jwks:
        kid = jwk.get("kid")
        if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519" and isinstance(kid, str):
            public = {name: value for name, value in jwk.items() if name != "d"}
            # OKPAlgorithm also knows private and X448 keys; the filter above leaves this kind.
            keys.append((kid, OKPAlgorithm.from_jwk(public)))  # type: ignore[arg-type]
    return keys
