"""Signing a program in: as a development user, or through the person's browser (RFC 8252).

Development: a program walks the way that a browser walks at the development issuer, which believes any name.

Browser: the program listens on a port of 127.0.0.1, makes a verifier, and has the person's browser open
``BrowserSignIn.url``. The browser comes back to that port with a code, which is worth nothing without the
verifier (RFC 7636). Listening and opening are the caller's: nothing here is of an event loop.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

import attrs

from khala_client.errors import KhalaError, error_for
from khala_client.http_calls import check_base_url, send, send_to_redirect
from khala_client.resources import SessionTokens
from khala_contracts import http_messages as m

if TYPE_CHECKING:
    import httpx

    from khala_contracts.sync_claims import Surface

__all__ = ["BrowserSignIn", "sign_in_at_development_issuer"]

START_PATH: Final = "/api/auth/start"
DEVELOPMENT_ISSUER_PATH: Final = "/dev/issuer/authorize"
_VERIFIER_BYTES: Final = 32


async def sign_in_at_development_issuer(
    http: httpx.AsyncClient, control_url: str, *, login: str, device_id: str, surface: Surface
) -> SessionTokens:
    """Return the session of a development user; the same login is always the same user.

    Raises:
        KhalaError: ``not_found`` if people sign in elsewhere, or nowhere; ``invalid_argument`` for what is no
            login.
        Unavailable: It did not answer.
    """
    query = {"device_id": device_id, "surface": surface.value, "login_hint": login}
    started = await send_to_redirect(http, control_url + START_PATH, query=query)
    if started is not None and urlsplit(started.url).path == START_PATH:
        # Under another name of this machine: cookies belong to a name.
        started = await send_to_redirect(http, started.url)
    if started is None or urlsplit(started.url).path != DEVELOPMENT_ISSUER_PATH:
        # Another provider's page; what it would say to a program is not ours to try.
        raise KhalaError("not_found", "this system has no development sign-in", retryable=False)
    granted = await send_to_redirect(http, started.url)
    if granted is None:
        raise error_for("invalid_argument", details={"field": "login"}, retryable=False)
    tokens = await send(http, "GET", granted.url, m.SessionTokens, cookies=started.cookies)
    return SessionTokens.of(tokens)


@attrs.frozen
class BrowserSignIn:
    """One sign-in through a browser, from its beginning to its session.

    Attributes:
        control_url: Base URL of control.
        device_id: Of the profile that signs in.
        port: Where the program listens on 127.0.0.1.
        verifier: Only this program has it.
    """

    control_url: str
    device_id: str
    port: int
    surface: Surface
    verifier: str = attrs.field(repr=False, factory=lambda: secrets.token_urlsafe(_VERIFIER_BYTES))

    @property
    def url(self) -> str:
        """What the person's browser must open."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query = {
            "device_id": self.device_id,
            "surface": self.surface.value,
            "loopback_port": str(self.port),
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        }
        base_url = check_base_url(self.control_url, name="control_url")
        return f"{base_url}{START_PATH}?{urlencode(query)}"

    async def exchange(self, http: httpx.AsyncClient, code: str) -> SessionTokens:
        """Return the session for a code that came to the port.

        Raises:
            KhalaError: ``unauthenticated``; it was another sign-in's, or too old. The right one may still come.
            Unavailable: It did not answer; the code may be spent.
        """
        request = m.ExchangeCodeRequest(code=code, code_verifier=self.verifier)
        base_url = check_base_url(self.control_url, name="control_url")
        url = f"{base_url}/api/auth/exchange"
        return SessionTokens.of(await send(http, "POST", url, m.SessionTokens, body=request))
