"""One HTTP call: request, answer, and every failure as a KhalaError.

The only module that knows httpx's exceptions. Speaks protobuf both ways. Bearer secrets travel in
the Authorization header only, never in a URL, and no exception here carries one.
"""

from __future__ import annotations

import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar, cast
from urllib.parse import urlsplit

import attrs
import httpx
from google.protobuf.message import DecodeError, Message

from khala_client.errors import KhalaError, SettingsRefused, Unavailable, error_for
from khala_client.version import USER_AGENT
from khala_contracts import http_messages as m

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = [
    "PROTOBUF",
    "Redirection",
    "answer_bytes",
    "check_base_url",
    "open_http",
    "send",
    "send_to_redirect",
]

PROTOBUF: Final = "application/x-protobuf"

# Connecting is one round trip; reading waits for a commit (a statement's time-out on the server is
# below it). Longer: a dead path is noticed late. Shorter: slow commits count as unknown outcomes.
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0, pool=10.0)
_LIMITS: Final = httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=15.0)
# Answers of our servers are pages of at most 4 MiB; more is not ours, and would only fill memory.
_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
# Statuses that say "not now" in an answer that is not ours (a proxy's page).
_TROUBLE: Final[Mapping[int, str]] = {
    408: "unavailable",
    429: "rate_limited",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
_REFUSED: Final[Mapping[int, str]] = {401: "unauthenticated", 403: "forbidden", 404: "not_found"}

_Answer = TypeVar("_Answer", bound=Message)


def open_http() -> httpx.AsyncClient:
    """Return a client for ``send``; close it with ``aclose`` or ``async with``."""
    # Proxies of the environment are for the world outside; this machine is never behind one.
    direct = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
    return httpx.AsyncClient(
        timeout=_TIMEOUT,
        limits=_LIMITS,
        mounts=direct,
        headers={"User-Agent": USER_AGENT, "Accept": PROTOBUF},
    )


def check_base_url(url: str, *, name: str) -> str:
    """Return ``url`` without a trailing slash if it is one that a service can have.

    Raises:
        SettingsRefused: another scheme, no host, or a query, fragment or user in it.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"{name} is not an http(s) URL: {url!r}"
        raise SettingsRefused(message)
    if parts.query or parts.fragment or parts.username or parts.password:
        message = f"{name} must not carry a query, a fragment or a user name"
        raise SettingsRefused(message)
    return url.rstrip("/")


async def send(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    answer: type[_Answer],
    *,
    body: Message | None = None,
    bearer: str | None = None,
    idempotency_key: str | None = None,
    query: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
) -> _Answer:
    """Make one attempt of one call.

    Raises:
        Unavailable: no answer, or one that says to come back. What the call did is unknown.
        KhalaError: refused; its type says what to do.

    Cancellation: the connection is dropped; what the call did is unknown.
    """
    data = await answer_bytes(
        http,
        method,
        url,
        content=body.SerializeToString(deterministic=True) if body is not None else None,
        content_type=PROTOBUF,
        accept=PROTOBUF,
        bearer=bearer,
        idempotency_key=idempotency_key,
        query=query,
        cookies=cookies,
    )
    try:
        return answer.FromString(data)
    except DecodeError as error:
        raise Unavailable("the answer is not one of this service") from error


async def answer_bytes(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    content: bytes | None,
    content_type: str,
    accept: str,
    bearer: str | None = None,
    idempotency_key: str | None = None,
    query: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
) -> bytes:
    """Make one attempt and return the body of a success; as ``send`` otherwise."""
    headers = {"Accept": accept}
    if cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    if content is not None:
        headers["Content-Type"] = content_type
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    response, data = await _exchange(http, method, url, content=content, headers=headers, query=query)
    if response.is_success:
        return data
    raise _refusal(response, data)


@attrs.frozen
class Redirection:
    """Where an answer sends a browser, and the cookies that it gives it. Not printable: both may be secrets."""

    url: str = attrs.field(repr=False)
    cookies: Mapping[str, str] = attrs.field(repr=False)


async def send_to_redirect(
    http: httpx.AsyncClient, url: str, *, query: Mapping[str, str] | None = None
) -> Redirection | None:
    """Make one GET as a browser would; None if the answer sends it nowhere.

    Raises:
        Unavailable: no answer, or one that says to come back.
        KhalaError: refused.
    """
    response, data = await _exchange(
        http, "GET", url, content=None, headers={"Accept": PROTOBUF + ", text/html"}, query=query
    )
    if response.has_redirect_location:
        return Redirection(str(response.url.join(response.headers["Location"])), dict(response.cookies))
    if response.is_success:
        return None
    raise _refusal(response, data)


def _trouble_of(error: httpx.RequestError) -> str:
    """Return the phase that failed; a certificate that is not trusted will not be so in a moment either."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not trusted ({cause.verify_message}; SSL_CERT_FILE names other authorities)"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


async def _exchange(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    content: bytes | None,
    headers: Mapping[str, str],
    query: Mapping[str, str] | None,
) -> tuple[httpx.Response, bytes]:
    try:
        async with http.stream(method, url, content=content, headers=headers, params=query) as response:
            return response, await _read_bounded(response)
    except httpx.InvalidURL as error:
        message = f"not a URL: {error}"
        raise SettingsRefused(message) from error
    except httpx.RequestError as error:
        # Also time-outs, and bodies whose encoding is broken. The class names the phase (ConnectError, ReadTimeout); the text of some of
        # them is empty, and none of it comes from a server.
        where = urlsplit(url)
        raise Unavailable(
            f"{_trouble_of(error)} at {where.hostname}:{where.port or where.scheme}",
            details={
                "outcome": "not_sent"
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                else "unknown"
            },
        ) from error


async def _read_bounded(response: httpx.Response) -> bytes:
    data = bytearray()
    # Closed here, not by the garbage collector: that has no event loop to close it in.
    pieces = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
    async with aclosing(pieces):
        async for piece in pieces:
            data += piece
            if len(data) > _ANSWER_MAX_BYTES:
                raise KhalaError("internal", "the answer is larger than any of ours", retryable=False)
    return bytes(data)


def _refusal(response: httpx.Response, data: bytes) -> KhalaError:
    request_id = response.headers.get("X-Request-Id", "")
    if response.headers.get("Content-Type", "").split(";")[0].strip() == PROTOBUF:
        try:
            error = m.Error.FromString(data)
        except DecodeError:
            error = m.Error()
        if error.code:
            return error_for(
                error.code,
                error.message,
                retryable=error.retryable,
                retry_after_ms=error.retry_after_ms,
                details=dict(error.details),
                topic=error.topic or None,
                docs=error.docs,
                request_id=error.request_id or request_id,
            )
    status = response.status_code
    details = {"status": str(status)}
    if status in _TROUBLE:
        return Unavailable(code=_TROUBLE[status], details=details, request_id=request_id)
    code = _REFUSED.get(status, "internal")
    return error_for(code, retryable=False, details=details, request_id=request_id)
