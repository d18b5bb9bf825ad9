"""Which pages may use a browser's refresh cookie."""

import pytest
from quart import Quart

from control.adapters.http.sign_in import RefreshCookie
from control.core.refusals import Refused

OWN, LISTED = "http://127.0.0.1:8470", "http://localhost:8470"
COOKIE = RefreshCookie(OWN, (LISTED,))


async def _read(cookie: RefreshCookie, **headers: str) -> str:
    sent = {"Cookie": "khala_refresh=token", **headers}
    async with Quart("t").test_request_context("/api/auth/refresh", headers=sent):
        return cookie.read()


@pytest.mark.parametrize("origin", [OWN, LISTED])
async def test_our_own_pages_and_listed_ones_may(origin: str) -> None:
    """And who sends no origin: not a page of another site."""
    assert await _read(COOKIE, Origin=origin) == "token"
    assert await _read(COOKIE) == "token"


@pytest.mark.parametrize(
    "origin", ["null", "", "https://evil.example", "http://localhost", "http://localhost:8470.evil.example"]
)
async def test_a_page_of_another_origin_may_not(origin: str) -> None:
    """Whatever SameSite let through; without a list only our own."""
    with pytest.raises(Refused, match="forbidden"):
        await _read(COOKIE, Origin=origin)
    with pytest.raises(Refused, match="forbidden"):
        await _read(RefreshCookie(OWN), Origin=LISTED)
