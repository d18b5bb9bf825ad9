"""Every error of a running system leads to a page, at the one origin: control, runtime and WebSocket alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.sync.client import connect

from khala_contracts.reason_codes import REGISTRY

if TYPE_CHECKING:
    from tests.e2e.system import System

pytestmark = pytest.mark.slow


def test_every_error_leads_to_its_page(system: System) -> None:
    """The `docs` of a refusal is a path of the origin that was asked; the page there names the code."""
    origin = str(system.ready["origin"])
    paths = ("/api/auth/session", "/api/nowhere", "/v1/runs", "/v1/nowhere", "/v1/topics/x")
    with httpx.Client(base_url=origin, trust_env=False) as browser:
        refusals = [browser.get(path).json() for path in paths]
        socket_url = origin.replace("http", "ws", 1) + "/sync/v1/ws"
        hello = {
            "hello": {
                "token": "none", "device_id": "dev_0123456789abcdef", "client_build_id": "test",
                "protocol": {"min": 1, "max": 1}, "schema": {"min": 1, "max": 1},
            }
        }  # fmt: skip
        for message in (json.dumps(hello), "no message"):
            with connect(socket_url, subprotocols=["khala.v1.json"], proxy=None) as socket:  # type: ignore[list-item]
                socket.send(message)
                refusals.append(json.loads(socket.recv(timeout=20))["error"])
        for refusal in refusals:
            assert refusal["docs"] == f"/docs/codes/{refusal['code']}", refusal
            page = browser.get(refusal["docs"])
            assert page.status_code == 200
            assert f"<h1><code>{refusal['code']}</code></h1>" in page.text
        assert {refusal["code"] for refusal in refusals} >= {
            "unauthenticated",
            "not_found",
            "malformed_message",
        }
        for row in REGISTRY.values():
            page = browser.get(row.docs)
            assert (page.status_code, row.text in page.text.replace("&#x27;", "'")) == (200, True), row.name
            again = browser.get(row.docs, headers={"If-None-Match": page.headers["ETag"]})
            assert (again.status_code, page.headers["Cache-Control"]) == (304, "no-cache")
