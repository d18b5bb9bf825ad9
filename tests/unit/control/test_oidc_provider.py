"""The OpenID Connect adapter towards a provider that refuses: the person's code, or our own credential."""

import json

import attrs
import httpx
import pytest

from control.adapters.identity.oidc import OidcProvider
from control.core.oidc import IdentityRefused
from khala_service.errors import Unavailable
from khala_service.secret import Secret

ISSUER = "https://id.example"


@attrs.define
class RefusingProvider(httpx.AsyncBaseTransport):
    """Publishes its documents and refuses every code."""

    status: int
    error: str

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer by path."""
        match request.url.path:
            case "/.well-known/openid-configuration":
                names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
                return httpx.Response(200, json={"issuer": ISSUER, **{n: f"{ISSUER}/{n}" for n in names}})
            case "/jwks_uri":
                return httpx.Response(200, json={"keys": []})
            case _:
                body = json.dumps({"error": self.error}) if self.error else "<html>"
                return httpx.Response(self.status, text=body)


class StoppedClock:
    """Wall time that does not matter here."""

    def now(self) -> float:
        """Return one moment."""
        return 1_800_000_000.0


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (400, "invalid_grant", IdentityRefused),
        (401, "invalid_grant", IdentityRefused),
        (400, "invalid_client", Unavailable),
        (401, "invalid_client", Unavailable),
        (400, "", Unavailable),
        (503, "temporarily_unavailable", Unavailable),
    ],
)
async def test_whose_mistake_it_is(status: int, error: str, outcome: type[Exception]) -> None:
    """RFC 6749 section 5.2: only what concerns the code is said to the person."""
    async with httpx.AsyncClient(transport=RefusingProvider(status, error)) as http:
        provider = OidcProvider(
            issuer=ISSUER, client_id="khala", client_secret=Secret("s"), http=http, clock=StoppedClock()
        )
        with pytest.raises(outcome):
            await provider.exchange("code", verifier="v", nonce="n", redirect_uri="https://x/callback")
