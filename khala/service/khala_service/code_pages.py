"""Serves the page of every reason code, at the place that an error's ``docs`` names on its own origin."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from quart import Response, request

from khala_contracts.reason_code_pages import CONTENT_POLICY, index_html, page_html
from khala_contracts.reason_codes import DOCS_PATH, NOT_FOUND, REGISTRY
from khala_service.http_problems import HttpProblem

if TYPE_CHECKING:
    from quart_trio import QuartTrio

__all__ = ["add_code_pages"]

# A page changes with the build: asked again each time, sent again only then.
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_code_pages(app: QuartTrio) -> None:
    """Register the pages and their index; they need no credential and say nothing of this system."""

    @app.get(DOCS_PATH)
    async def list_codes() -> Response:
        return await _page(index_html())

    @app.get(f"{DOCS_PATH}/<name>")
    async def explain_code(name: str) -> Response:
        row = REGISTRY.get(name)
        if row is None:
            raise HttpProblem(NOT_FOUND)
        return await _page(page_html(row))


async def _page(text: str) -> Response:
    data = text.encode()
    response = Response(data, content_type="text/html; charset=utf-8", headers=_HEADERS)
    response.set_etag(hashlib.sha256(data).hexdigest()[:32])
    conditional = await response.make_conditional(request)
    assert isinstance(conditional, Response)
    return conditional
