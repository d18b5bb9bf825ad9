"""The development issuer: a real OpenID Connect provider of our own, for dev mode on loopback.

It believes whoever names a login. Codes are used once, live for a minute, and belong to the client, the
redirect URI and the PKCE challenge for which they were made; ID tokens are signed by a key that exists in this
process only. So the sign-in of development is the one of production, down to the last check, with another
provider behind it.
"""

import base64
import hashlib
import hmac
from typing import Final

import attrs
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control.core.sessions import check_login
from control.ports import Clock, Rng

__all__ = ["AuthorizeRequest", "CodeRefused", "DevelopmentIssuer"]

CODE_LIFETIME_S: Final = 60
ID_TOKEN_LIFETIME_S: Final = 300
# Nobody signs in faster by hand; more is a loop.
CODES_MAX: Final = 1_000
KID: Final = "dev-1"


class CodeRefused(Exception):
    """The request for an ID token does not match a code that was given out."""


@attrs.frozen
class AuthorizeRequest:
    """What a client asks a browser to bring."""

    client_id: str
    redirect_uri: str
    state: str
    nonce: str
    code_challenge: str


@attrs.frozen
class _Grant:
    request: AuthorizeRequest
    login: str
    expires_at_s: float


class DevelopmentIssuer:
    """Its codes and its key; nothing of it outlives the process."""

    def __init__(self, *, issuer: str, client_id: str, redirect_uri: str, clock: Clock, rng: Rng) -> None:
        self.issuer = issuer
        self._client_id = client_id
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._rng = rng
        self._key = Ed25519PrivateKey.from_private_bytes(rng.token_bytes(32))
        self._grants: dict[str, _Grant] = {}

    def is_known(self, request: AuthorizeRequest) -> bool:
        """Whether the client and its redirect URI are the registered ones, and it uses PKCE."""
        is_registered = (request.client_id, request.redirect_uri) == (self._client_id, self._redirect_uri)
        return is_registered and bool(request.state and request.nonce and request.code_challenge)

    def grant(self, request: AuthorizeRequest, login: str) -> str:
        """Return a code for a login.

        Raises:
            Refused: invalid_argument; not a login.
            CodeRefused: The request is not one of our client's.
        """
        if not self.is_known(request):
            raise CodeRefused
        check_login(login)
        now_s = self._clock.now()
        self._grants = {code: grant for code, grant in self._grants.items() if grant.expires_at_s > now_s}
        if len(self._grants) >= CODES_MAX:
            raise CodeRefused
        code = base64.urlsafe_b64encode(self._rng.token_bytes(32)).rstrip(b"=").decode()
        self._grants[code] = _Grant(request, login, now_s + CODE_LIFETIME_S)
        return code

    def exchange(self, code: str, *, client_id: str, redirect_uri: str, code_verifier: str) -> str:
        """Spend a code, whatever comes of it, and return the ID token.

        Raises:
            CodeRefused: Unknown, spent or expired, or for another client, place or verifier.
        """
        grant = self._grants.pop(code, None)
        now_s = self._clock.now()
        if grant is None or now_s >= grant.expires_at_s:
            raise CodeRefused
        request = grant.request
        digest = hashlib.sha256(code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_same = (client_id, redirect_uri) == (request.client_id, request.redirect_uri)
        if not (is_same and hmac.compare_digest(challenge, request.code_challenge)):
            raise CodeRefused
        claims = {
            "iss": self.issuer,
            "aud": request.client_id,
            "sub": grant.login,
            "preferred_username": grant.login,
            "nonce": request.nonce,
            "iat": int(now_s),
            "exp": int(now_s) + ID_TOKEN_LIFETIME_S,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": KID})

    def metadata(self) -> dict[str, object]:
        """Return the discovery document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email"],
        }

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key."""
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": KID, "x": x}]}
