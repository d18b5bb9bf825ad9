"""What the one origin makes of a request and a response: judged, cleaned, addressed. Pure.

A request that two parsers could read differently, or that asks for more than our services offer, is refused
here and reaches none of them. What is forwarded is written anew from what was understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h11

from khala.adapters.origin_routes import HEAD_MAX_BYTES
from khala_contracts import reason_codes
from khala_contracts.strict_json import print_json
from khala_service.http_problems import HttpProblem, error_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala.adapters.origin_routes import Route
    from khala_contracts.reason_codes import ReasonCode

__all__ = [
    "Refused",
    "forwarded_request",
    "forwarded_response",
    "has_body",
    "is_upgrade",
    "judge_request",
    "refusal_events",
    "switching_response",
]

# Of one hop only (RFC 9110 section 7.6.1), besides those that a Connection header names.
_HOP_HEADERS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"}
)
# Claims about the way here, which only a proxy may make: on this way that is us.
_CLAIMS: Final = frozenset({b"forwarded", b"x-real-ip"})
_CLAIM_PREFIX: Final = b"x-forwarded-"
# A tunnel to anywhere, and an echo of what others must not see.
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})


class Refused(Exception):
    """The request is not forwarded; this is the answer, and the end of the connection."""

    def __init__(self, status: int, reason: ReasonCode, *, retry_after_ms: int = 0) -> None:
        super().__init__(reason.name)
        self.status = status
        self.reason = reason
        self.retry_after_ms = retry_after_ms


def judge_request(request: h11.Request, route: Route) -> None:
    """Return if the request may go to a service of this route.

    Raises:
        Refused: 400 if it could be read in two ways, 404 if nobody outside may ask there, 405, 431.
    """
    headers = request.headers
    if _head_bytes(request) > HEAD_MAX_BYTES:
        raise Refused(431, reason_codes.INVALID_ARGUMENT)
    if request.method in _REFUSED_METHODS:
        raise Refused(405, reason_codes.METHOD_NOT_ALLOWED)
    is_chunked = any(name == b"transfer-encoding" for name, _ in headers)
    is_ambiguous = (
        # Another form of target: some servers believe the host in it, some the header.
        not request.target.startswith(b"/")
        # h11 asks for one in HTTP/1.1; we pass everything on as that.
        or not any(name == b"host" for name, _ in headers)
        # RFC 9112 section 6.1: the classic way to hide a second request in the body of a first.
        or (is_chunked and request.http_version < b"1.1")
        or (is_chunked and any(name == b"content-length" for name, _ in headers))
        # What follows an upgrade is not HTTP; a body before it would be read as one or the other.
        or (is_upgrade(request, route) and has_body(request))
    )
    if is_ambiguous:
        raise Refused(400, reason_codes.INVALID_ARGUMENT)
    if not route.ports:
        raise Refused(404, reason_codes.NOT_FOUND)


def has_body(request: h11.Request) -> bool:
    """Return whether a body follows the headers."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )


def is_upgrade(request: h11.Request, route: Route) -> bool:
    """Return whether the connection is to become a WebSocket, where that is possible."""
    return (
        route.is_upgradable
        and request.method == b"GET"
        and request.http_version >= b"1.1"
        and b"websocket" in _tokens(request.headers, b"upgrade")
        and b"upgrade" in _tokens(request.headers, b"connection")
    )


def forwarded_request(
    request: h11.Request, said_by_us: Iterable[tuple[bytes, bytes]], *, is_upgrade: bool
) -> h11.Request:
    """Return the request as the service gets it."""
    upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")] if is_upgrade else []
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=[*_end_to_end(request.headers), *said_by_us, *upgrade],
    )


def forwarded_response(response: h11.Response, *, is_last: bool) -> h11.Response:
    """Return the response as the client gets it; after the last one the connection ends."""
    end = [(b"connection", b"close")] if is_last else []
    return h11.Response(
        status_code=response.status_code,
        reason=response.reason,
        headers=[*_end_to_end(response.headers), *end],
    )


def switching_response(response: h11.InformationalResponse) -> h11.InformationalResponse:
    """Return the 101 of a node as the client gets it."""
    upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return h11.InformationalResponse(
        status_code=101, reason=b"Switching Protocols", headers=[*_end_to_end(response.headers), *upgrade]
    )


def refusal_events(refused: Refused) -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    """Return an answer of our own, with the Error body that the services give, too."""
    problem = HttpProblem(refused.reason, retry_after_ms=refused.retry_after_ms)
    body = print_json(error_message(problem)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if refused.retry_after_ms:
        headers.append((b"retry-after", b"%d" % -(-refused.retry_after_ms // 1_000)))
    response = h11.Response(status_code=refused.status, headers=headers)
    return response, h11.Data(body), h11.EndOfMessage()


def _end_to_end(headers: h11.Headers) -> list[tuple[bytes, bytes]]:  # type: ignore[name-defined]  # no export
    named = _tokens(headers, b"connection")
    return [
        (name, value)
        for name, value in headers
        if name not in _HOP_HEADERS
        and name not in named
        and name not in _CLAIMS
        and not name.startswith(_CLAIM_PREFIX)
    ]


def _tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower() for found, value in headers if found == name for token in value.split(b",")
    )


def _head_bytes(request: h11.Request) -> int:
    line = len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n")
    return (
        line + sum(len(name) + len(value) + len(b": \r\n") for name, value in request.headers) + len(b"\r\n")
    )
