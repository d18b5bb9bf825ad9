"""The shortest way of a binary append: past the web framework, which costs more than the append itself.

An ASGI layer inside ``RequestObserver``, so request id, metrics and log line are as for every request. It takes
``POST /v1/runs/{id}/events`` with a protobuf body of a stated, moderate size, in order: credential, rights, body,
append, answer. Whatever is not the plain case goes on to the framework's route, untouched or replayed:

    another method, path, media type, a page's Origin, a chunked or large body    as it came
    a client that leaves before the end of its body, fields that we do not know    replayed
    whatever was refused or failed                                                replayed, with its error

So every refusal is worded in one place, the route's, and nothing is tried twice, least of all an append: a
replayed request that has failed already carries its `Failed` under ``FAILED``, and the route raises that error
before it asks anybody anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_contracts import codec, reason_codes
from khala_contracts import http_messages as m
from khala_service.http_bodies import BODY_TIMEOUT_S, PROTOBUF, body_too_slow, count_unknown
from khala_service.http_observer import ROUTE_KEY
from khala_service.http_problems import HttpProblem
from khala_service.request_context import current_request_id
from khala_service.service_auth import bearer_credential
from runtime.actors.command_path import Caller
from runtime.adapters.http.event_batches import check_batch
from runtime.adapters.http.event_inputs import RUN_CLASS
from runtime.adapters.http.requests import IDEMPOTENCY_KEY_HEADER, check_key
from runtime.core.responses import append_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_service.http_connection import Event, Receive, Scope, Send
    from khala_service.http_observer import AsgiApp
    from runtime.actors.run_commands import RunCommands
    from runtime.adapters.http.event_batches import EventBatch
    from runtime.core.limits import RuntimeLimits
    from runtime.core.outcomes import Appended
    from runtime.core.principals import Principal
    from runtime.ports import Ids, PrincipalResolver

__all__ = ["BODY_MAX_BYTES", "FAILED", "AppendShortcut", "Failed"]

# Key of the scope under which the route finds how the request has failed.
FAILED: Final = "khala.append_failed"
# Larger bodies are read by the framework's route, piece by piece; here they are kept to be replayed.
BODY_MAX_BYTES: Final = 256 * 1024
_ROUTE: Final = "/v1/runs/<run_id>/events"
_PATH: Final = re.compile(r"/v1/runs/([^/]+)/events", re.ASCII)
_SIZE: Final = re.compile(rb"[0-9]{1,6}")
_PROTOBUF: Final = PROTOBUF.encode()
_ACCEPTED: Final = frozenset({_PROTOBUF, b"*/*"})
_KEY_HEADER: Final = IDEMPOTENCY_KEY_HEADER.lower().encode()
# Whoever sends one of these wants something that the framework knows.
_UNUSUAL: Final = frozenset({b"origin", b"transfer-encoding", b"content-encoding", b"expect"})


class _ForTheRoute(Exception):
    """Not the plain case."""


@attrs.frozen
class Failed:
    """Why a request has failed already, and whose it is, as far as that was found out."""

    error: Exception
    principal: Principal | None


@attrs.define(eq=False)
class _Replay:
    """What was received of a request, and will be received again."""

    receive: Receive
    events: list[Event] = attrs.field(factory=list)

    async def take(self) -> Event:
        """Receive, and keep it."""
        event = await self.receive()
        self.events.append(event)
        return event

    async def again(self) -> Event:
        """Receive what was kept, then what comes."""
        return self.events.pop(0) if self.events else await self.receive()


class AppendShortcut:
    """Wraps the framework's application."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        resolver: PrincipalResolver,
        commands: RunCommands,
        limits: RuntimeLimits,
        ids: Ids,
    ) -> None:
        self._app = app
        self._resolver = resolver
        self._commands = commands
        self._limits = limits
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope.

        Cancellation: as the route; an append that was submitted is carried out all the same.
        """
        run_id, headers = _plain_append(scope, min(BODY_MAX_BYTES, self._limits.append_bytes_max))
        if not run_id:
            await self._app(scope, receive, send)
            return
        replay = _Replay(receive)
        try:
            appended = await self._append(scope, run_id, headers, replay)
        except _ForTheRoute:
            await self._app(scope, replay.again, send)
            return
        scope[ROUTE_KEY] = _ROUTE
        content = codec.encode_message(append_response(appended))
        await send({"type": "http.response.start", "status": 200, "headers": _answer_headers(len(content))})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    async def _append(
        self, scope: Scope, run_id: str, headers: Mapping[bytes, bytes], replay: _Replay
    ) -> Appended:
        """Carry out the append.

        Raises:
            _ForTheRoute: The route must answer; nothing was appended, or the scope says why not.
        """
        principal = None
        try:
            principal = await self._principal(headers)
            caller = self._caller(principal, headers)
            await self._commands.authorize_append(principal, run_id)
            batch = await self._read(replay)
            return await self._commands.append(caller, run_id, batch.events, expected_seq=batch.expected_seq)
        except _ForTheRoute:
            raise
        except Exception as error:
            # Asking again would double the wait for whoever is away, and could hide that this outcome is unknown.
            scope[FAILED] = Failed(error, principal)
            raise _ForTheRoute from error

    async def _principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        credential = bearer_credential(headers.get(b"authorization", b"").decode("latin-1"))
        principal = None if credential is None else await self._resolver.resolve(credential)
        if principal is None:
            raise HttpProblem(reason_codes.UNAUTHENTICATED)
        return principal

    def _caller(self, principal: Principal, headers: Mapping[bytes, bytes]) -> Caller:
        key = headers.get(_KEY_HEADER)
        text = None if key is None else key.decode("latin-1")
        if text is not None:
            check_key(text, IDEMPOTENCY_KEY_HEADER, key_bytes_max=self._limits.key_bytes_max)
        return Caller(principal, text, current_request_id())

    async def _read(self, replay: _Replay) -> EventBatch:
        parts: list[bytes] = []
        has_more = True
        with trio.move_on_after(BODY_TIMEOUT_S):
            while has_more:
                event = await replay.take()
                if event["type"] != "http.request":
                    raise _ForTheRoute
                parts.append(event.get("body", b""))
                has_more = event.get("more_body", False)
        if has_more:
            raise body_too_slow()
        body = codec.decode_message_untrusted(m.AppendEventsRequest, b"".join(parts))
        if count_unknown(body):
            raise _ForTheRoute
        return check_batch(body, RUN_CLASS, ids=self._ids, limits=self._limits)


def _plain_append(scope: Scope, body_max_bytes: int) -> tuple[str, Mapping[bytes, bytes]]:
    """Return the run and the headers of a plain append; "" for every other request."""
    other: tuple[str, Mapping[bytes, bytes]] = "", {}
    if scope["type"] != "http" or scope["method"] != "POST":
        return other
    match = _PATH.fullmatch(scope["path"])
    if match is None:
        return other
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        lower = name.lower()
        if lower in headers or lower in _UNUSUAL:
            return other
        headers[lower] = value
    size = headers.get(b"content-length", b"")
    is_plain = (
        headers.get(b"content-type") == _PROTOBUF
        and headers.get(b"accept", _PROTOBUF) in _ACCEPTED
        and _SIZE.fullmatch(size) is not None
        and int(size) <= body_max_bytes
    )
    return (match[1], headers) if is_plain else other


def _answer_headers(size: int) -> list[tuple[bytes, bytes]]:
    """Return the headers that the framework's answer would have."""
    return [
        (b"content-type", _PROTOBUF),
        (b"content-length", b"%d" % size),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"vary", b"Origin"),
    ]
