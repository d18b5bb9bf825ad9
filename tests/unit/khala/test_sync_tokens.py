"""Sync tokens at the node: what is signed by control is believed, everything else is told apart by its cause."""

from __future__ import annotations

import base64
import json

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from khala.adapters.sync_tokens import LEEWAY_S, TOKEN_MAX_BYTES, JwksTokenVerifier
from khala.ports import TokenRefusedError
from khala_contracts.sync_claims import to_claims
from tests.topic_log import WALL_S, claims_for, run_topic

CLAIMS = claims_for(run_topic(1), run_topic(2))


def encode(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@attrs.define
class Mint:
    """Control's side: two keys in one ring, and a wall clock."""

    keys: dict[str, Ed25519PrivateKey] = attrs.field(
        factory=lambda: {kid: Ed25519PrivateKey.generate() for kid in ("k1", "k2")}
    )
    wall_s: float = WALL_S + 1.0

    def now(self) -> float:
        """Return Unix seconds; see Clock."""
        return self.wall_s

    async def fetch_keys(self) -> list[dict[str, object]]:
        """Return the public keys; see KeySource."""
        return [
            {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid}
            for kid, key in self.keys.items()
        ]

    def sign(
        self, *, kid: str = "k1", by: str | None = None, payload: bytes | None = None, **header: object
    ) -> str:
        """Return a token whose header names ``kid``, signed by that key or by another."""
        head = encode(json.dumps({"alg": "EdDSA", "typ": "JWT", "kid": kid, **header}).encode())
        body = encode(payload if payload is not None else json.dumps(to_claims(CLAIMS)).encode())
        return f"{head}.{body}.{encode(self.keys[by or kid].sign(f'{head}.{body}'.encode()))}"


async def cause_of(verifier: JwksTokenVerifier, token: str) -> str:
    """Return why a token is refused."""
    with pytest.raises(TokenRefusedError) as caught:
        await verifier.verify(token)
    return caught.value.cause


async def test_what_control_signed_is_believed() -> None:
    """Tokens of every key of the ring, in any order, say what was signed."""
    mint = Mint()
    verifier = JwksTokenVerifier(mint, mint)
    for kid in ("k1", "k1", "k2", "k1"):
        assert await verifier.verify(mint.sign(kid=kid)) == CLAIMS


@pytest.mark.parametrize("is_warm", [False, True])
async def test_what_it_did_not_sign_is_refused(*, is_warm: bool) -> None:
    """The signature holds for these two parts and this key, also after a token with the same header was good."""
    mint = Mint()
    verifier = JwksTokenVerifier(mint, mint)
    token = mint.sign()
    if is_warm:
        await verifier.verify(token)
    head, body, signature = token.split(".")
    other = encode(json.dumps({**to_claims(CLAIMS), "user_id": f"usr_{7:026d}"}).encode())
    flipped = encode(bytes(64))
    for forged, cause in (
        (f"{head}.{other}.{signature}", "signature"),
        (f"{head}.{body}.{flipped}", "signature"),
        (f"{head}.{body}.", "signature"),
        (f"{head}.{body}.{signature}AAAA", "signature"),
        (mint.sign(by="k2"), "signature"),
        (mint.sign(kid="k2", by="k1"), "signature"),
        (f"{head}.{body}é.{signature}", "signature"),
        (f"{head}.{body}", "malformed"),
        (f"{head}.{body}.{signature}.{signature}", "malformed"),
        (f"{body}.{signature}", "malformed"),
        ("", "malformed"),
        ("..", "malformed"),
        (f"é.{body}.{signature}", "malformed"),
        ("x" * (TOKEN_MAX_BYTES + 1), "too_large"),
    ):
        assert await cause_of(verifier, forged) == cause, forged


async def test_a_header_chooses_a_key_and_nothing_else() -> None:
    """No other algorithm, no key of its own, no extension: also right after a good token."""
    mint = Mint()
    verifier = JwksTokenVerifier(mint, mint)
    await verifier.verify(mint.sign())
    for header, cause in (
        ({"alg": "none"}, "algorithm"),
        ({"alg": "HS256"}, "algorithm"),
        ({"jwk": {"kty": "OKP"}}, "header"),
        ({"crit": ["b64"], "b64": False}, "header"),
        ({"typ": "at+jwt"}, "header"),
        ({"kid": "k3"}, "kid_unknown"),
        ({"kid": 1}, "kid_missing"),
    ):
        assert await cause_of(verifier, mint.sign(**{"by": "k1", **header})) == cause  # type: ignore[arg-type]


async def test_a_payload_is_judged_behind_its_signature() -> None:
    """Names said twice, other issuers and times: refused although control signed them."""
    mint = Mint()
    verifier = JwksTokenVerifier(mint, mint)
    claims = to_claims(CLAIMS)
    twice = json.dumps(claims)[:-1] + ', "jti": "another"}'
    for payload, cause in (
        (twice.encode(), "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        (json.dumps({**claims, "iss": "somebody"}).encode(), "issuer"),
        (json.dumps({**claims, "aud": "others"}).encode(), "audience"),
        (json.dumps({**claims, "jti": ""}).encode(), "claims"),
    ):
        assert await cause_of(verifier, mint.sign(payload=payload)) == cause
    token = mint.sign()
    for wall_s, cause in (
        (CLAIMS.issued_at_s - LEEWAY_S - 0.5, "not_yet_valid"),
        (CLAIMS.expires_at_s + LEEWAY_S, "expired"),
    ):
        mint.wall_s = wall_s
        assert await cause_of(verifier, token) == cause
    mint.wall_s = CLAIMS.expires_at_s + LEEWAY_S - 0.5
    assert await verifier.verify(token) == CLAIMS
