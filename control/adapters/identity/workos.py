"""WorkOS AuthKit. Implements `ports.IdentityProvider`.

AuthKit is not spoken to as OpenID Connect: its code is spent at `/user_management/authenticate`, which answers
with the user itself over TLS, for our client and our PKCE verifier. There is no nonce; state, binding cookie and
verifier do what it does. The subject is the WorkOS user id; organisations and roles that WorkOS may name are
not looked at, since memberships are control's own.
"""

import json
from typing import Final
from urllib.parse import urlencode

import httpx

from control.core.oidc import (
    LOGIN_MAX_CHARS,
    SUBJECT_MAX_BYTES,
    AssertedIdentity,
    FlowSecrets,
    IdentityRefused,
)
from khala_service.errors import Unavailable
from khala_service.logs import get_logger
from khala_service.secret import Secret

__all__ = ["WorkosProvider"]

ISSUER: Final = "workos"
BASE_URL: Final = "https://api.workos.com"
ANSWER_TIMEOUT_S: Final = 10.0
ANSWER_MAX_BYTES: Final = 512 * 1024
UNAVAILABLE: Final = "identity_unavailable"

_log = get_logger(__name__)


class WorkosProvider:
    """One AuthKit application."""

    def __init__(
        self, *, client_id: str, api_key: Secret, http: httpx.AsyncClient, base_url: str = BASE_URL
    ) -> None:
        self._client_id = client_id
        self._api_key = api_key
        self._http = http
        self._base_url = base_url.rstrip("/")

    async def authorization_url(self, secrets: FlowSecrets, *, redirect_uri: str, login_hint: str) -> str:
        """Return where to send the browser; see the port."""
        query = {
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "provider": "authkit",
            "state": secrets.state,
            "code_challenge": secrets.challenge,
            "code_challenge_method": "S256",
        }
        if login_hint:
            query["login_hint"] = login_hint
        return f"{self._base_url}/user_management/authorize?{urlencode(query)}"

    async def exchange(self, code: str, *, verifier: str, nonce: str, redirect_uri: str) -> AssertedIdentity:
        """Spend a code and return who it is for; see the port."""
        del nonce, redirect_uri
        body = {
            "client_id": self._client_id,
            "client_secret": self._api_key.reveal(),
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
        }
        try:
            response = await self._http.post(
                f"{self._base_url}/user_management/authenticate", json=body, timeout=ANSWER_TIMEOUT_S
            )
            document = json.loads(response.content) if len(response.content) <= ANSWER_MAX_BYTES else None
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("identity_provider_unreachable", error=type(error).__name__)
            raise Unavailable(UNAVAILABLE) from None
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            # Our own credential, not the person's code.
            _log.error("identity_provider_refused", cause="client_credential", status=response.status_code)
            raise Unavailable(UNAVAILABLE)
        if response.is_client_error:
            raise IdentityRefused("code_refused")
        user = document.get("user") if response.is_success and isinstance(document, dict) else None
        if not isinstance(user, dict):
            _log.warning("identity_provider_failed", status=response.status_code)
            raise Unavailable(UNAVAILABLE)
        return _identity(user)


def _identity(user: dict[str, object]) -> AssertedIdentity:
    subject, email = user.get("id"), user.get("email")
    if not (
        isinstance(subject, str) and subject.isprintable() and 1 <= len(subject.encode()) <= SUBJECT_MAX_BYTES
    ):
        raise IdentityRefused("user_id")
    login = email if isinstance(email, str) and email and email.isprintable() else subject
    return AssertedIdentity(ISSUER, subject, login[:LOGIN_MAX_CHARS])
