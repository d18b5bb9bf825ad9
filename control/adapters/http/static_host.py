"""Serves the live page: `/`, `/manifest.json`, `/assets/*`, `/sw.js`, and the library as `/khala-client.js`.

The files are part of the package and are read once, at the start; a path that is none of them is not found,
whatever it looks like, so nothing else of the machine can be asked for. `core/static_files.py` has the rules
of caching. `/khala-client.js` is for pages of other origins too; everything else is for our own.
"""

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final
from urllib.parse import urlsplit

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import NotFound

from control.core.static_files import ASSETS, IDENTITY, INDEX, StaticFile, choose_encoding, make_files

__all__ = ["add_static_routes", "is_other_name", "read_static_files"]

CLIENT: Final = "/khala-client.js"
DIST: Final = resources.files("control") / "web_shell" / "dist"
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PLAIN: Final = ("/manifest.json", "/sw.js", CLIENT)


def read_static_files(folder: Traversable = DIST) -> Mapping[str, StaticFile]:
    """Return the files of a build.

    Raises:
        StaticFilesBroken: They are not one build, or there is none.
    """
    return make_files(dict(_walk(folder, "")) if folder.is_dir() else {})


def _walk(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = f"{path}/{entry.name}"
        found += _walk(entry, name) if entry.is_dir() else [(name, entry.read_bytes())]
    return found


def add_static_routes(app: QuartTrio, files: Mapping[str, StaticFile], *, origin: str) -> None:
    """Register the routes.

    Args:
        app: Gets them.
        files: What is served, and nothing else.
        origin: Where browsers reach this application, and the stream beside it.
    """
    policy = _content_policy(origin)

    async def send(path: str) -> Response:
        file = files.get(path)
        if file is None:
            raise NotFound
        return await _respond(file, policy)

    @app.get("/")
    async def show_page() -> Response:
        if is_other_name(request.host, origin):
            # Cookies and IndexedDB belong to a name: a sign-in that began under the other one could not end.
            return Response(b"", 307, {"Location": f"{origin}/", "Cache-Control": "no-store"})
        return await send(INDEX)

    @app.get(f"{ASSETS}<path:name>")
    async def send_asset(name: str) -> Response:
        return await send(ASSETS + name)

    async def send_plain() -> Response:
        return await send(request.path)

    for path in _PLAIN:
        app.add_url_rule(path, endpoint=f"static {path}", view_func=send_plain, methods=["GET"])


async def _respond(file: StaticFile, policy: str) -> Response:
    accepted = {coding.lower(): quality for coding, quality in request.accept_encodings}
    encoding = choose_encoding(file, accepted)
    response = Response(file.bodies[encoding], content_type=file.media_type)
    headers = response.headers
    headers["Cache-Control"] = file.cache_control
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "cross-origin" if file.path == CLIENT else "same-origin"
    if len(file.bodies) > 1:
        response.vary.add("Accept-Encoding")
    if encoding != IDENTITY:
        headers["Content-Encoding"] = encoding
    if file.path == INDEX:
        headers["Content-Security-Policy"] = policy
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if file.path == CLIENT:
        headers["Access-Control-Allow-Origin"] = "*"
    response.set_etag(file.tag_of(encoding))
    return await response.make_conditional(request)


def is_other_name(host: str, origin: str) -> bool:
    """Return whether a browser on this machine calls us by another of its names than the origin has."""
    try:
        asked = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    ours = urlsplit(origin).hostname
    return asked != ours and asked in _LOOPBACK_NAMES and ours in _LOOPBACK_NAMES


def _content_policy(origin: str) -> str:
    """Return what the page may load and talk to: files and services of its own origin, no text as code."""
    parts = urlsplit(origin)
    # Old browsers do not count the WebSocket of the page's own origin as 'self'.
    socket = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
