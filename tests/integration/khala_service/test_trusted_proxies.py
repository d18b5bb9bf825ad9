"""Whose word about a client is believed, at a real socket."""

from __future__ import annotations

import io
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from quart import request

from khala_service.client_address import TrustedProxies
from khala_service.http_edge import EdgePolicy, make_app, serve
from khala_service.logs import configure_logging
from khala_service.metrics import MetricsRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SAID = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log lines of the test."""
    stream = io.StringIO()
    configure_logging("edge", level="info", stream=stream, human=False)
    yield stream
    configure_logging("edge")


@asynccontextmanager
async def serving(*proxies: str) -> AsyncIterator[httpx.AsyncClient]:
    """A service that says whom it sees."""
    edge = EdgePolicy(proxies=TrustedProxies.of(proxies))
    app = make_app("t", metrics=MetricsRegistry("t", process_metrics=False), ready_checks={}, edge=edge)

    @app.get("/seen")
    async def seen() -> dict[str, str | None]:
        return {"address": request.remote_addr, "scheme": request.scheme}

    async with trio.open_nursery() as nursery:
        start = partial(serve, app, host="127.0.0.1", port=0, shutdown=trio.Event())
        port = await nursery.start(start)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            yield http
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("proxies", "address", "scheme"),
    [
        ((), "127.0.0.1", "http"),
        (("10.0.0.0/8",), "127.0.0.1", "http"),
        (("127.0.0.1",), "203.0.113.7", "https"),
        (("127.0.0.0/8", "203.0.113.7"), "6.6.6.6", "https"),
    ],
)
async def test_a_client_is_believed_only_through_a_proxy_of_ours(
    proxies: tuple[str, ...], address: str, scheme: str, log: io.StringIO
) -> None:
    """Routes and the request log see the same: the word of our proxies, or else who is connected."""
    async with serving(*proxies) as http:
        seen = (await http.get("/seen", headers=SAID)).json()
    assert seen == {"address": address, "scheme": scheme}
    logged = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["client"] for line in logged if line["event"] == "request"] == [address]


@pytest.mark.parametrize("scheme", ["ftp", "https, http", ""])
async def test_another_scheme_is_not_taken_over(scheme: str) -> None:
    """Only http and https exist here."""
    async with serving("127.0.0.1") as http:
        seen = (await http.get("/seen", headers={"X-Forwarded-Proto": scheme})).json()
    assert seen == {"address": "127.0.0.1", "scheme": "http"}
