"""OpenID Connect, authorisation code with PKCE: what is sent, what is remembered, what is believed. Pure.

Between the start of a sign-in and its callback four secrets exist: ``state`` (in the URL; names the pending
row), ``nonce`` (comes back inside the ID token), ``verifier`` (proves to the provider that the callback is
ours, RFC 7636) and ``binding`` (a cookie; proves that the callback comes from the browser that started, so that
nobody can be signed in as somebody else by a link).
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

import attrs

from control.core.refusals import invalid_argument

__all__ = [
    "FLOW_SECRET_BYTES",
    "PENDING_LIFETIME_S",
    "AssertedIdentity",
    "FlowSecrets",
    "IdentityRefused",
    "PendingSignIn",
    "authorization_query",
    "check_return_to",
    "judge_id_token",
]

SECRET_BYTES: Final = 32
FLOW_SECRET_BYTES: Final = 4 * SECRET_BYTES
# A person reads mail for a second factor. Longer: a stolen link stays useful.
PENDING_LIFETIME_S: Final = 600
# SPEC section 2, clocks.
LEEWAY_S: Final = 30
# An ID token is made in the answer to our own request, seconds ago.
ID_TOKEN_AGE_MAX_S: Final = 300
RETURN_TO_MAX_CHARS: Final = 512
SUBJECT_MAX_BYTES: Final = 255
LOGIN_MAX_CHARS: Final = 64


class IdentityRefused(Exception):
    """The provider, or somebody who pretends to be it, asserted nothing that we believe.

    Attributes:
        cause: Lower-case words for the audit log.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@attrs.frozen
class AssertedIdentity:
    """Who somebody is at an issuer. ``(issuer, subject)`` is the identity; the login is for people."""

    issuer: str
    subject: str
    login: str


@attrs.frozen(repr=False)
class FlowSecrets:
    """The secrets of one sign-in. Not printable."""

    state: str
    nonce: str
    verifier: str
    binding: str

    @classmethod
    def from_random(cls, random_bytes: bytes) -> "FlowSecrets":
        """Return secrets made of FLOW_SECRET_BYTES random bytes."""
        if len(random_bytes) != FLOW_SECRET_BYTES:
            raise ValueError(f"a sign-in needs {FLOW_SECRET_BYTES} random bytes")
        parts = (random_bytes[i : i + SECRET_BYTES] for i in range(0, FLOW_SECRET_BYTES, SECRET_BYTES))
        return cls(*(_base64url(part) for part in parts))

    @property
    def challenge(self) -> str:
        """Return the S256 challenge of the verifier."""
        return _base64url(hashlib.sha256(self.verifier.encode()).digest())


@attrs.frozen
class PendingSignIn:
    """What is remembered between start and callback."""

    nonce: str = attrs.field(repr=False)
    verifier: str = attrs.field(repr=False)
    binding_hash: bytes = attrs.field(repr=False)
    device_id: str
    surface: str
    return_to: str
    expires_at_ms: int
    # Of a command's sign-in: its port on 127.0.0.1 and its challenge; None for a browser's own.
    loopback_port: int | None = None
    loopback_challenge: str | None = attrs.field(default=None, repr=False)


def authorization_query(
    secrets: FlowSecrets, *, client_id: str, redirect_uri: str, scope: str, extra: Mapping[str, str]
) -> str:
    """Return the query of the provider's authorisation URL."""
    return urlencode(
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": secrets.state,
            "nonce": secrets.nonce,
            "code_challenge": secrets.challenge,
            "code_challenge_method": "S256",
            **extra,
        }
    )


def check_return_to(path: str) -> str:
    """Return the place on our own origin to which a sign-in returns; "/" if none was named.

    Raises:
        Refused: invalid_argument; anything that a browser could take for another origin.
    """
    if not path:
        return "/"
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    is_plain = path.isascii() and path.isprintable() and "\\" not in path and len(path) <= RETURN_TO_MAX_CHARS
    if not (is_ours and is_plain):
        raise invalid_argument("return_to", "a path on this origin, at most 512 characters")
    return path


def judge_id_token(
    claims: Mapping[str, object], *, issuer: str, client_id: str, nonce: str, now_s: float
) -> AssertedIdentity:
    """Return who the claims of an ID token, whose signature was verified, say that somebody is.

    OpenID Connect Core section 3.1.3.7. Everything but the identity is discarded.

    Raises:
        IdentityRefused: Another issuer, audience or nonce, or not valid now.
    """
    if claims.get("iss") != issuer:
        raise IdentityRefused("id_token_issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise IdentityRefused("id_token_audience")
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != client_id:
        raise IdentityRefused("id_token_authorized_party")
    if claims.get("nonce") != nonce:
        raise IdentityRefused("id_token_nonce")
    issued_at_s, expires_at_s = _number(claims, "iat"), _number(claims, "exp")
    if not issued_at_s - LEEWAY_S <= now_s < expires_at_s + LEEWAY_S:
        raise IdentityRefused("id_token_time")
    if now_s - issued_at_s > ID_TOKEN_AGE_MAX_S:
        raise IdentityRefused("id_token_old")
    subject = claims.get("sub")
    if not (
        isinstance(subject, str) and subject.isprintable() and 1 <= len(subject.encode()) <= SUBJECT_MAX_BYTES
    ):
        raise IdentityRefused("id_token_subject")
    return AssertedIdentity(issuer, subject, _login(claims, subject))


def _number(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise IdentityRefused(f"id_token_{name}")
    return value


def _login(claims: Mapping[str, object], subject: str) -> str:
    """Return a name for people; no right depends on it."""
    for name in ("preferred_username", "email", "name"):
        value = claims.get(name)
        if isinstance(value, str) and value and value.isprintable():
            return value[:LOGIN_MAX_CHARS]
    return subject[:LOGIN_MAX_CHARS]


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
