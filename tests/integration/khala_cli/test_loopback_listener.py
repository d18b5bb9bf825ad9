"""loopback_listener.py: what comes to the port, and what it is told. A real loopback socket."""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest
import trio

from khala.cli.loopback_listener import REQUEST_MAX_BYTES, open_loopback_listener


async def answer(code: str) -> str | None:
    """Know one code."""
    return "Signed in as <ann>." if code == "right" else None


async def test_the_right_code_gets_its_page_and_others_a_404() -> None:
    """Wrong codes, other paths and methods, several codes: nothing ends the wait for the right one."""
    async with open_loopback_listener(answer) as port, httpx.AsyncClient(trust_env=False) as browser:
        url = f"http://127.0.0.1:{port}"
        for wrong in (
            "/callback?code=wrong",
            "/callback",
            "/favicon.ico",
            "/callback?code=a&code=right",
            "/?code=right",
        ):
            assert (await browser.get(url + wrong)).status_code == 404, wrong
        assert (await browser.post(f"{url}/callback?code=right")).status_code == 404
        page = await browser.get(f"{url}/callback?code=right")
        assert page.status_code == 200
        assert "Signed in as &lt;ann&gt;." in page.text
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * REQUEST_MAX_BYTES]
)
async def test_whatever_else_connects_harms_nobody(data: bytes) -> None:
    """Silence, TLS and an endless header: the connection ends, the next one is answered."""
    async with open_loopback_listener(answer) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            if data:
                await stream.send_all(data)
            await stream.send_eof()
            with trio.fail_after(20), suppress(trio.BrokenResourceError):
                async for _ in stream:
                    pass
        async with httpx.AsyncClient(trust_env=False) as browser:
            assert (await browser.get(f"http://127.0.0.1:{port}/callback?code=right")).status_code == 200


async def test_the_port_is_gone_with_the_block() -> None:
    """Nobody can bring anything any more."""
    async with open_loopback_listener(answer) as port:
        pass
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)
