"""sign_in.py: what a program asks for to sign somebody in, and what it believes of the answers."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from khala_client.errors import KhalaError, ReauthRequired, SettingsRefused
from khala_client.http_calls import PROTOBUF
from khala_client.sign_in import BrowserSignIn, sign_in_at_development_issuer
from khala_contracts import http_messages as m
from khala_contracts.sync_claims import Surface

ISSUER = "http://127.0.0.1:8471/dev/issuer/authorize?state=s"
CALLBACK = "http://127.0.0.1:8471/api/auth/callback?code=c&state=s"
TOKENS = m.SessionTokens(access_token="a", refresh_token="r", session=m.Session(session_id="ses_1"))


def client(answers: dict[str, httpx.Response], asked: list[httpx.Request]) -> httpx.AsyncClient:
    """Return a client whose requests are answered by path."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answers[request.url.path]

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def to(url: str) -> httpx.Response:
    """Return a redirection with the cookie of a browser."""
    return httpx.Response(303, headers={"Location": url, "Set-Cookie": "khala_sign_in=bound; Path=/api"})


def tokens() -> httpx.Response:
    """Return a session."""
    return httpx.Response(200, content=TOKENS.SerializeToString(), headers={"Content-Type": PROTOBUF})


async def _dev(answers: dict[str, httpx.Response], asked: list[httpx.Request]) -> str:
    async with client(answers, asked) as http:
        signed_in = await sign_in_at_development_issuer(
            http, "http://127.0.0.1:8471", login="ann", device_id="dev_1", surface=Surface.DESKTOP
        )
    return signed_in.session.session_id


async def test_a_program_walks_as_a_browser_does() -> None:
    """Start, issuer, callback with the cookie of the start; the name and the device are in the start."""
    asked: list[httpx.Request] = []
    answers = {
        "/api/auth/start": to(ISSUER),
        "/dev/issuer/authorize": to(CALLBACK),
        "/api/auth/callback": tokens(),
    }
    assert await _dev(answers, asked) == "ses_1"
    assert [request.url.path for request in asked] == list(answers)
    assert dict(asked[0].url.params) == {"device_id": "dev_1", "surface": "desktop", "login_hint": "ann"}
    assert "khala_sign_in=bound" in asked[2].headers["Cookie"]


@pytest.mark.parametrize("place", ["https://login.example/authorize?x=1", "http://127.0.0.1:8471/elsewhere"])
async def test_another_provider_is_not_tried(place: str) -> None:
    """Where people sign in at a provider, --dev ends there: no page of it is asked for."""
    asked: list[httpx.Request] = []
    with pytest.raises(KhalaError, match="no development sign-in") as refused:
        await _dev({"/api/auth/start": to(place)}, asked)
    assert refused.value.code == "not_found"
    assert len(asked) == 1


async def test_what_is_no_login_is_said() -> None:
    """The issuer shows its form again instead of leading on."""
    form = httpx.Response(200, text="<form>", headers={"Content-Type": "text/html"})
    with pytest.raises(KhalaError) as refused:
        await _dev({"/api/auth/start": to(ISSUER), "/dev/issuer/authorize": form}, [])
    assert (refused.value.code, refused.value.details) == ("invalid_argument", {"field": "login"})


async def test_a_browser_sign_in_keeps_its_verifier() -> None:
    """The URL has port, device and challenge; the verifier is only in the exchange, in no URL and no repr."""
    sign_in = BrowserSignIn("https://khala.example/", "dev_1", 54321, Surface.DESKTOP)
    query = parse_qs(urlsplit(sign_in.url).query)
    digest = hashlib.sha256(sign_in.verifier.encode()).digest()
    assert query == {
        "device_id": ["dev_1"],
        "surface": ["desktop"],
        "loopback_port": ["54321"],
        "code_challenge": [base64.urlsafe_b64encode(digest).rstrip(b"=").decode()],
    }
    assert sign_in.url.startswith("https://khala.example/api/auth/start?")
    assert sign_in.verifier not in sign_in.url + repr(sign_in)
    assert BrowserSignIn("https://khala.example", "dev_1", 1, Surface.DESKTOP).verifier != sign_in.verifier
    asked: list[httpx.Request] = []
    async with client({"/api/auth/exchange": tokens()}, asked) as http:
        await sign_in.exchange(http, "the-code")
    sent = m.ExchangeCodeRequest.FromString(asked[0].content)
    assert (sent.code, sent.code_verifier, asked[0].url.query) == ("the-code", sign_in.verifier, b"")


async def test_a_code_of_another_sign_in_is_refused_as_such() -> None:
    """The caller can tell it from trouble, and goes on waiting."""
    error = m.Error(code="unauthenticated", message="m").SerializeToString()
    answer = httpx.Response(401, content=error, headers={"Content-Type": PROTOBUF})
    async with client({"/api/auth/exchange": answer}, []) as http:
        with pytest.raises(ReauthRequired):
            await BrowserSignIn("https://k", "dev_1", 1, Surface.DESKTOP).exchange(http, "c")


def test_a_url_that_is_none_is_refused() -> None:
    """Before a browser is opened."""
    with pytest.raises(SettingsRefused):
        _ = BrowserSignIn("ftp://khala.example", "dev_1", 1, Surface.DESKTOP).url
