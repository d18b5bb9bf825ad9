"""code_pages.py: every error leads to a page that is there, at the origin that answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from khala_contracts.codec import (
    decode_server_message_json_untrusted,
    decode_server_message_untrusted,
    encode_server_control,
    encode_server_control_json,
)
from khala_contracts.reason_codes import REGISTRY, ReasonCode
from khala_contracts.server_messages import ErrorMessage
from khala_service.http_edge import HttpProblem, make_app
from khala_service.metrics import MetricsRegistry

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

CODES = pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)


def service(row: ReasonCode | None = None) -> QuartTrio:
    """Return a service with one route, which refuses for this reason."""
    app = make_app("edge", metrics=MetricsRegistry("edge", process_metrics=False), ready_checks={})

    @app.get("/v1/refuse")
    async def refuse() -> Response:
        assert row is not None
        raise HttpProblem(row)

    return app


@CODES
async def test_an_error_over_http_leads_to_its_page(row: ReasonCode) -> None:
    """`docs` is a path of the origin that answered; the page there is of this code."""
    client = service(row).test_client()
    refused = json.loads(await (await client.get("/v1/refuse")).get_data(as_text=False))
    assert refused["code"] == row.name
    page = await client.get(refused["docs"])
    assert (page.status_code, page.content_type) == (200, "text/html; charset=utf-8")
    assert f"<h1><code>{row.name}</code></h1>" in await page.get_data(as_text=True)


@CODES
async def test_an_error_over_the_websocket_leads_to_its_page(row: ReasonCode) -> None:
    """The same in both subprotocols."""
    client = service().test_client()
    message = ErrorMessage.of(row)
    for decoded in (
        decode_server_message_untrusted(encode_server_control(message)),
        decode_server_message_json_untrusted(encode_server_control_json(message)),
    ):
        assert isinstance(decoded, ErrorMessage)
        page = await client.get(decoded.docs)
        assert page.status_code == 200
        assert f"<h1><code>{row.name}</code></h1>" in await page.get_data(as_text=True)


async def test_a_page_is_asked_again_and_sent_once() -> None:
    """No-cache with an ETag: 304 while the build is the same; nothing may run in it."""
    client = service().test_client()
    first = await client.get("/docs/codes/forbidden")
    assert first.headers["Cache-Control"] == "no-cache"
    assert "default-src 'none'" in first.headers["Content-Security-Policy"]
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    again = await client.get("/docs/codes/forbidden", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, await again.get_data(as_text=True)) == (304, "")
    other = await client.get("/docs/codes/not_found")
    assert other.headers["ETag"] != first.headers["ETag"]


async def test_the_index_and_what_is_no_code() -> None:
    """All codes in one list; a code that is none is not_found, which leads to its own page."""
    client = service().test_client()
    index = await (await client.get("/docs/codes")).get_data(as_text=True)
    assert all(f'href="{row.docs}"' in index for row in REGISTRY.values())
    for name in ("nothing", "forbidden2", "stale_cursor", "%2e%2e"):
        missing = await client.get(f"/docs/codes/{name}")
        assert missing.status_code == 404, name
        assert json.loads(await missing.get_data(as_text=False))["docs"] == "/docs/codes/not_found"
