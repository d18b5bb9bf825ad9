"""Any OpenID Connect provider, by discovery. Implements `ports.IdentityProvider`.

Documents of the provider (discovery, keys) are kept for KEPT_S; a key id that is not among them has them
fetched again, at most once a minute. Signatures by public keys only: a provider that signs with a shared
secret, or not at all, is refused.
"""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs
import httpx
import jwt
import trio

from control.core.oidc import (
    AssertedIdentity,
    FlowSecrets,
    IdentityRefused,
    authorization_query,
    judge_id_token,
)
from control.ports import Clock
from khala_service.errors import Unavailable
from khala_service.logs import get_logger
from khala_service.secret import Secret

__all__ = ["OidcProvider"]

SCOPE: Final = "openid profile email"
ALGORITHMS: Final = ("RS256", "ES256", "PS256", "EdDSA")
# Longer: a key that the provider withdrew is believed that much longer.
KEPT_S: Final = 3_600.0
REFETCH_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 10.0
DOCUMENT_MAX_BYTES: Final = 512 * 1024
UNAVAILABLE: Final = "identity_unavailable"

_log = get_logger(__name__)


class OidcProvider:
    """One issuer, and what it published."""

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        client_secret: Secret | None,
        http: httpx.AsyncClient,
        clock: Clock,
        known_as: str = "",
    ) -> None:
        """Use one issuer.

        Args:
            issuer: Its URL, under which it publishes its documents.
            client_id: Ours there.
            client_secret: Ours there; None for a public client.
            http: For its documents and its codes.
            clock: Wall time.
            known_as: Under which identities of it are kept; empty: its URL. Only the development issuer
                has another, since its URL has a port, and who is who must not depend on that.
        """
        self._issuer = issuer
        self._known_as = known_as or issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._http = http
        self._clock = clock
        self._lock = trio.Lock()
        self._metadata: Mapping[str, object] = {}
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = -float("inf")

    async def authorization_url(self, secrets: FlowSecrets, *, redirect_uri: str, login_hint: str) -> str:
        """Return where to send the browser; see the port."""
        await self._ensure_documents()
        extra = {"login_hint": login_hint} if login_hint else {}
        query = authorization_query(
            secrets, client_id=self._client_id, redirect_uri=redirect_uri, scope=SCOPE, extra=extra
        )
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    async def exchange(self, code: str, *, verifier: str, nonce: str, redirect_uri: str) -> AssertedIdentity:
        """Spend a code and return who it is for; see the port."""
        await self._ensure_documents()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "code_verifier": verifier,
        }
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret.reveal()
        answer = await self._call("POST", self._endpoint("token_endpoint"), form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise IdentityRefused("no_id_token")
        claims = await self._verified_claims(token)
        identity = judge_id_token(
            claims, issuer=self._issuer, client_id=self._client_id, nonce=nonce, now_s=self._clock.now()
        )
        return attrs.evolve(identity, issuer=self._known_as)

    async def _verified_claims(self, token: str) -> Mapping[str, object]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise IdentityRefused("id_token_malformed") from None
        kid = header.get("kid", "")
        if kid not in self._keys and trio.current_time() - self._fetched_at >= REFETCH_S:
            await self._fetch_documents()
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None or header.get("alg") not in ALGORITHMS or header.get("alg") != key.algorithm_name:
            raise IdentityRefused("id_token_key")
        try:
            claims: Mapping[str, object] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],
                # Judged by core/oidc.py, in one place for every provider.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                },
            )
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise IdentityRefused("id_token_signature") from None
        return claims

    async def _ensure_documents(self) -> None:
        async with self._lock:
            if trio.current_time() - self._fetched_at >= KEPT_S:
                await self._fetch_documents()

    async def _fetch_documents(self) -> None:
        issuer = self._issuer.rstrip("/")
        metadata = await self._call("GET", f"{issuer}/.well-known/openid-configuration")
        if metadata.get("issuer") != self._issuer:
            _log.error("identity_provider_refused", cause="issuer_differs", issuer=self._issuer)
            raise Unavailable(UNAVAILABLE)
        self._metadata = metadata
        document = await self._call("GET", self._endpoint("jwks_uri"))
        keys: dict[str, jwt.PyJWK] = {}
        listed = document.get("keys")
        for entry in listed if isinstance(listed, list) else []:
            try:
                key = jwt.PyJWK(entry)
            except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
                continue  # of a kind that we do not know; another may be ours
            if key.algorithm_name in ALGORITHMS and entry.get("use", "sig") == "sig":
                keys[key.key_id or ""] = key
        self._keys = keys
        self._fetched_at = trio.current_time()

    def _endpoint(self, name: str) -> str:
        value = self._metadata.get(name)
        if not isinstance(value, str) or not value.startswith(("https://", "http://")):
            _log.error("identity_provider_refused", cause="no_endpoint", endpoint=name)
            raise Unavailable(UNAVAILABLE)
        return value

    async def _call(self, method: str, url: str, form: Mapping[str, str] | None = None) -> dict[str, object]:
        """Return a JSON object of the provider.

        Raises:
            IdentityRefused: It refused the code.
            Unavailable: identity_unavailable; it does not answer, or not with an object.
        """
        try:
            response = await self._http.request(
                method, url, data=form, headers={"Accept": "application/json"}, timeout=ANSWER_TIMEOUT_S
            )
            document = json.loads(response.content) if len(response.content) <= DOCUMENT_MAX_BYTES else None
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("identity_provider_unreachable", error=type(error).__name__)
            raise Unavailable(UNAVAILABLE) from None
        if form is not None and response.is_client_error:
            if isinstance(document, dict) and document.get("error") == "invalid_client":
                # Our own credential, not the person's code.
                _log.error(
                    "identity_provider_refused", cause="client_credential", status=response.status_code
                )
                raise Unavailable(UNAVAILABLE)
            raise IdentityRefused("code_refused")
        if not response.is_success or not isinstance(document, dict):
            _log.warning("identity_provider_failed", status=response.status_code)
            raise Unavailable(UNAVAILABLE)
        return document
