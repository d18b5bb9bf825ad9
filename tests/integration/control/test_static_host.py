"""CT-07: the live page over real HTTP, with the headers of each class of file."""

import gzip
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from control.adapters.http.static_host import add_static_routes, read_static_files
from khala_service.http_edge import make_app, serve
from khala_service.metrics import MetricsRegistry

ORIGIN = "http://127.0.0.1:8470"
# What Chromium sends for a page, a script, a style sheet and a picture.
BROWSER_ACCEPTS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "*/*",
    "text/css,*/*;q=0.1",
    "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
)


@asynccontextmanager
async def host() -> AsyncIterator[httpx.AsyncClient]:
    """The page of this tree, served; the client sends no header of its own."""
    app = make_app("t", metrics=MetricsRegistry("t", process_metrics=False), ready_checks={})
    add_static_routes(app, read_static_files(), origin=ORIGIN)
    async with trio.open_nursery() as nursery:
        start = partial(serve, app, host="127.0.0.1", port=0, shutdown=trio.Event())
        port = await nursery.start(start)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(
            base_url=url, trust_env=False, headers={"Accept-Encoding": ""}
        ) as client:
            yield client
        nursery.cancel_scope.cancel()


def assets_in(page: str) -> list[str]:
    """Return the paths of the files that a page loads."""
    found: list[str] = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page)
    return found


async def test_headers_of_each_class() -> None:
    """Kept a year below /assets/, asked for again elsewhere; type, policy and sniffing as in the table."""
    async with host() as client:
        page = await client.get("/")
        script, style, picture = (
            next(path for path in assets_in(page.text) if path.endswith(ending))
            for ending in (".js", ".css", ".svg")
        )
        table = {
            "/": ("text/html; charset=utf-8", "no-cache"),
            "/manifest.json": ("application/json", "no-cache"),
            "/sw.js": ("text/javascript; charset=utf-8", "no-cache"),
            "/khala-client.js": ("text/javascript; charset=utf-8", "no-cache"),
            script: ("text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
            style: ("text/css; charset=utf-8", "public, max-age=31536000, immutable"),
            picture: ("image/svg+xml", "public, max-age=31536000, immutable"),
        }
        for path, (media_type, caching) in table.items():
            answer = await client.head(path)
            assert answer.status_code == 200, path
            assert answer.headers["Content-Type"] == media_type, path
            assert answer.headers["Cache-Control"] == caching, path
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["Referrer-Policy"] == "no-referrer", path
            assert re.fullmatch(r'"[0-9a-f]{32}"', answer.headers["ETag"]), path
            assert ("Access-Control-Allow-Origin" in answer.headers) == (path == "/khala-client.js"), path


async def test_the_policy_of_the_page() -> None:
    """No inline code, no text as markup, no frames around us, no other host but our own socket."""
    async with host() as client:
        policy = (await client.get("/")).headers["Content-Security-Policy"]
        parts = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
        assert parts["default-src"] == ["'none'"]
        assert parts["script-src"] == parts["style-src"] == ["'self'"]
        assert parts["connect-src"] == ["'self'", "ws://127.0.0.1:8470"]
        assert parts["frame-ancestors"] == parts["base-uri"] == ["'none'"]
        assert parts["require-trusted-types-for"] == ["'script'"]
        assert "unsafe" not in policy


async def test_the_manifest_names_the_bytes() -> None:
    """Every file of the manifest is served with the hash that it states, below its own hash's name."""
    async with host() as client:
        manifest = (await client.get("/manifest.json")).json()
        assert manifest["protocol"] == manifest["schema"] == [1, 1]
        page = (await client.get("/")).text
        assert f'data-build="{manifest["client_build_id"]}"' in page
        assert set(assets_in(page)) <= set(manifest["files"])
        for path, facts in manifest["files"].items():
            body = (await client.get("/" if path == "/index.html" else path)).content
            assert hashlib.sha256(body).hexdigest() == facts["sha256"], path
            assert len(body) == facts["bytes"], path
            if path.startswith("/assets/"):
                assert f".{facts['sha256'][:16]}." in path


async def test_what_is_not_there() -> None:
    """An unknown hash is not found and never the page; nor is anything outside, however it is written."""
    async with host() as client:
        for path in (
            "/assets/app.0000000000000000.js",
            "/assets/",
            "/index.html",
            "/assets/index.html",
            "/none",
        ):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.json()["code"] == "not_found", path
        port = client.base_url.port
        for path in (
            "/assets/../../etc/passwd",
            "/assets/%2e%2e/%2e%2e/etc/passwd",
            "/assets/..%2f..%2fetc%2fpasswd",
            "/assets//etc/passwd",
            "/assets/..\\..\\etc\\passwd",
            "/../manifest.json",
        ):
            assert await trio.to_thread.run_sync(_status_of, port, path) == 404, path


def _status_of(port: int | None, path: str) -> int:
    """Send a path exactly as it is written, as `curl --path-as-is` does."""
    with socket.create_connection(("127.0.0.1", port or 0), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


async def test_what_a_browser_accepts_is_served() -> None:
    """The refusal of event streams does not hit a browser's own words."""
    async with host() as client:
        for accepted in BROWSER_ACCEPTS:
            answer = await client.get("/", headers={"Accept": accepted})
            assert answer.status_code == 200, accepted


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip, deflate, br, zstd", "br"), ("gzip;q=0.5", "gzip"), ("br;q=0, gzip", "gzip"), ("identity", None)],
)
async def test_precompressed(accepted: str, encoding: str | None) -> None:
    """The encoding that was accepted, made at build time; same bytes inside, another validator."""
    async with host() as client:
        page = (await client.get("/")).text
        path = next(path for path in assets_in(page) if path.endswith(".js"))
        plain = await client.get(path)
        answer = await client.get(path, headers={"Accept-Encoding": accepted})
        assert answer.headers.get("Content-Encoding") == encoding
        assert "Accept-Encoding" in answer.headers["Vary"]
        if encoding is None:
            assert answer.content == plain.content
            return
        assert answer.headers["ETag"] != plain.headers["ETag"]
        async with client.stream("GET", path, headers={"Accept-Encoding": accepted}) as raw:
            body = b"".join([piece async for piece in raw.aiter_raw()])
        assert len(body) < len(plain.content)
        if encoding == "gzip":
            assert gzip.decompress(body) == plain.content


async def test_not_modified() -> None:
    """A validator that fits saves the body, keeps the caching, and fits one encoding only."""
    async with host() as client:
        for path in ("/", "/khala-client.js", "/manifest.json"):
            first = await client.get(path, headers={"Accept-Encoding": "br"})
            asked = {"Accept-Encoding": "br", "If-None-Match": first.headers["ETag"]}
            again = await client.get(path, headers=asked)
            assert again.status_code == 304, path
            assert again.content == b""
            assert again.headers["ETag"] == first.headers["ETag"]
            assert again.headers["Cache-Control"] == "no-cache"
            assert "Accept-Encoding" in again.headers["Vary"]
            other = await client.get(path, headers={**asked, "Accept-Encoding": "gzip"})
            assert other.status_code == 200, path


async def test_one_name_of_this_machine() -> None:
    """A browser that says localhost is sent to the origin's own name, where its cookies will be; others are not."""
    async with host() as client:
        sent = await client.get("/", headers={"Host": "localhost:8470"})
        assert (sent.status_code, sent.headers["Location"]) == (307, f"{ORIGIN}/")
        assert sent.headers["Cache-Control"] == "no-store"
        for name in ("127.0.0.1:1", "khala.example"):
            assert (await client.get("/", headers={"Host": name})).status_code == 200
        assert (await client.get("/manifest.json", headers={"Host": "localhost:8470"})).status_code == 200


async def test_the_worker_leaves() -> None:
    """No service worker of ours stays: the one at /sw.js only removes itself."""
    async with host() as client:
        body = (await client.get("/sw.js")).text
        assert "unregister" in body
        assert "fetch" not in body
        assert json.loads((await client.get("/manifest.json")).text)["files"]["/sw.js"]["bytes"] == len(body)
