"""One connection of a client of the one origin: requests, one after the other, each answered by its service.

HTTP is parsed on both sides; what may be forwarded, and how, is in origin_messages.py.

Invariants:
1. Of a body at most one piece (PIECE_MAX_BYTES) is held in each direction.
2. One request at a time; every wait has an end (OriginLimits).
3. A response that breaks off is never made to look whole.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

import h11
import trio

from khala.adapters.origin_messages import (
    Refused,
    forwarded_request,
    forwarded_response,
    has_body,
    is_upgrade,
    judge_request,
    refusal_events,
    switching_response,
)
from khala.adapters.origin_routes import HEAD_MAX_BYTES
from khala.adapters.origin_upstreams import PIECE_MAX_BYTES, WIRE_BUFFER_BYTES, UpstreamFailed
from khala.adapters.origin_wire import carry_both_ways, linger, wire_of
from khala_contracts import reason_codes
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala.adapters.origin_routes import OriginLimits, Route, RouteTable
    from khala.adapters.origin_upstreams import Upstream, Upstreams
    from khala.adapters.origin_wire import AnyStream

__all__ = ["RETRY_AFTER_MS", "ClientConnection"]

# Without a body, and harmless twice (RFC 9110 section 9.2.1).
_SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
# What a process that died needs to be there again.
RETRY_AFTER_MS: Final = 1_000
_READINESS_PATH: Final = b"/readyz"

_log = get_logger(__name__)


class ClientConnection:
    """One connection of a client."""

    def __init__(
        self,
        stream: AnyStream,
        *,
        address: str,
        scheme: str,
        table: RouteTable,
        upstreams: Mapping[str, Upstreams],
        limits: OriginLimits,
        leaving: trio.Event,
    ) -> None:
        """Serve ``stream``, on which ``address`` speaks ``scheme``; upstreams go by the prefix of their route.

        Once ``leaving`` is set nothing here is ready, whatever a service behind it says of itself.
        """
        self._stream = stream
        self._said_by_us = ((b"x-forwarded-for", address.encode()), (b"x-forwarded-proto", scheme.encode()))
        self._table = table
        self._upstreams = upstreams
        self._limits = limits
        self._leaving = leaving
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX_BYTES)
        # Of the request that is being answered; its deadline moves with every piece.
        self._answering = trio.CancelScope()
        self._is_head = False

    async def serve(self) -> None:
        """Answer requests until either side has had enough; closing the stream is the caller's.

        Raises:
            trio.BrokenResourceError: The client has gone.
        Cancellation: safe; what is under way breaks off.
        """
        try:
            while True:
                request = await self._read_request()
                if request is None or await self._answer(request):
                    return
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    break
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(Refused(error.error_status_hint, reason_codes.INVALID_ARGUMENT))
        if self._http.our_state in (h11.SEND_BODY, h11.ERROR):
            self._break_off()
        else:
            await linger(self._stream, linger_s=self._limits.linger_s)

    async def _read_request(self) -> h11.Request | None:
        """Return the next request; None if none comes, or not in time."""
        limits = self._limits
        has_begun = bool(self._http.trailing_data[0])
        with trio.move_on_after(limits.head_timeout_s if has_begun else limits.idle_timeout_s) as waiting:
            while True:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event if isinstance(event, h11.Request) else None
                self._http.receive_data(bytes(await self._stream.receive_some(PIECE_MAX_BYTES)))
                if not has_begun:
                    has_begun = True
                    waiting.deadline = trio.current_time() + limits.head_timeout_s
        return None

    # -- a request and its response ---------------------------------------------------------------

    async def _answer(self, request: h11.Request) -> bool:
        """Answer one request; return whether the connection has been a WebSocket, and is spent."""
        self._is_head = request.method == b"HEAD"
        try:
            route = self._table.find(request.target)
            judge_request(request, route)
            if self._leaving.is_set() and request.target.partition(b"?")[0] == _READINESS_PATH:
                raise Refused(503, reason_codes.DRAINING)
            if not has_body(request):
                assert isinstance(self._http.next_event(), h11.EndOfMessage)
            return await self._forward_again_if_needed(request, route)
        except UpstreamFailed as failure:
            _log.warning("origin_upstream_failed", route=route.prefix, cause=str(failure))
            await self._refuse(Refused(503, reason_codes.UNAVAILABLE, retry_after_ms=RETRY_AFTER_MS))
        except Refused as refused:
            await self._refuse(refused)
        return False

    async def _forward_again_if_needed(self, request: h11.Request, route: Route) -> bool:
        try:
            return await self._forward(request, route)
        except UpstreamFailed as failure:
            is_harmless_twice = request.method in _SAFE_METHODS and not has_body(request)
            # Race: the service closes a kept connection while the request is on its way, or a node stops listening
            # between the kernel's accepting a connection and its own.
            if not (failure.may_be_repeated and is_harmless_twice):
                raise
        return await self._forward(request, route, is_fresh=True)

    async def _forward(self, request: h11.Request, route: Route, *, is_fresh: bool = False) -> bool:
        """Raises UpstreamFailed if there is no response; nothing was sent to the client then."""
        upstreams, upgrade = self._upstreams[route.prefix], is_upgrade(request, route)
        with trio.CancelScope() as self._answering:
            self._moved()
            upstream = await upstreams.take(is_upgrade=upgrade, is_fresh=is_fresh)
            try:
                head = forwarded_request(request, self._said_by_us, is_upgrade=upgrade)
                if has_body(request):
                    await upstream.send(head)
                    switched = await self._exchange(upstream)
                else:
                    await upstream.send(head, h11.EndOfMessage())
                    switched = await self._carry_response(upstream)
                if switched is not None:
                    await self._become_wire(upstream, switched)
            finally:
                upstreams.give_back(upstream)
            return switched is not None
        raise UpstreamFailed("silent")

    async def _exchange(self, upstream: Upstream) -> h11.InformationalResponse | None:
        """Carry the body there and the response back, at the same time: a response may come early."""
        failures: list[Exception] = []
        switched: h11.InformationalResponse | None = None
        async with trio.open_nursery() as nursery:

            async def carry_body() -> None:
                try:
                    await self._carry_body(upstream)
                except h11.RemoteProtocolError as error:
                    # What came of the body is no request: the service must not take it for a whole one.
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(carry_body)
            try:
                switched = await self._carry_response(upstream)
            except UpstreamFailed as failure:
                failures.append(failure)
            nursery.cancel_scope.cancel()
        # Outside the nursery, which would wrap it in a group.
        if failures:
            raise failures[0]
        return switched

    async def _carry_body(self, upstream: Upstream) -> None:
        while True:
            wire, is_end = self._take_body(upstream)
            self._moved()
            try:
                await upstream.send_wire(wire)
            except UpstreamFailed:
                return  # it has answered already, or is missed when its answer is read
            if is_end:
                return
            self._http.receive_data(bytes(await self._stream.receive_some(PIECE_MAX_BYTES)))

    def _take_body(self, upstream: Upstream) -> tuple[bytes, bool]:
        """Return what has arrived of the body, as the service gets it, and whether that is its end.

        In one step with the end: a service that answers the last byte at once answers in time, not early.
        """
        wire: list[bytes] = []
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                return b"".join(wire), False
            if isinstance(event, h11.EndOfMessage):
                # Without the trailers: they could say what headers may not.
                wire.append(upstream.http.send(h11.EndOfMessage()) or b"")
                return b"".join(wire), True
            assert isinstance(event, h11.Data), event
            wire.append(upstream.http.send(h11.Data(event.data)) or b"")

    async def _carry_response(self, upstream: Upstream) -> h11.InformationalResponse | None:
        """Carry the response to the client, or return the one that turns the connection into a WebSocket.

        Raises:
            UpstreamFailed: There is none; nothing was sent to the client.
        """
        has_begun = False
        while True:
            try:
                event = await upstream.next_event()
            except UpstreamFailed:
                if not has_begun:
                    raise
                self._http.send_failed()
                return None
            self._moved()
            match event:
                case h11.InformationalResponse(status_code=101):
                    return event
                case h11.InformationalResponse(status_code=100):
                    if self._http.they_are_waiting_for_100_continue:
                        await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                case h11.InformationalResponse():
                    pass
                case h11.Response():
                    has_begun = True
                    # Answered before the body is there: nobody knows what follows on this connection.
                    is_early = self._http.their_state is h11.SEND_BODY
                    await self._send(forwarded_response(event, is_last=is_early))
                case h11.Data():
                    await self._send(h11.Data(event.data))
                case h11.EndOfMessage():
                    await self._send(h11.EndOfMessage())
                    return None
                case _:
                    if not has_begun:
                        raise UpstreamFailed("closed", may_be_repeated=upstream.may_be_repeated)
                    self._http.send_failed()
                    return None

    async def _become_wire(self, upstream: Upstream, switched: h11.InformationalResponse) -> None:
        self._answering.deadline = float("inf")
        answer = self._http.send(switching_response(switched)) or b""
        wire_of(self._stream).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WIRE_BUFFER_BYTES)
        await self._stream.send_all(answer + upstream.http.trailing_data[0])
        if early := self._http.trailing_data[0]:
            await upstream.stream.send_all(early)
        await carry_both_ways(self._stream, upstream.stream, linger_s=self._limits.linger_s)

    # -- pieces -----------------------------------------------------------------------------------

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)
            self._moved()

    def _moved(self) -> None:
        self._answering.deadline = trio.current_time() + self._limits.silence_s

    async def _refuse(self, refused: Refused) -> None:
        """Say why nothing was forwarded, if the client can still be told."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        response, body, end = refusal_events(refused)
        parts = (response, end) if self._is_head else (response, body, end)
        answer = b"".join(self._http.send(part) or b"" for part in parts)
        with trio.move_on_after(self._limits.linger_s):
            await self._stream.send_all(answer)

    def _break_off(self) -> None:
        """Have the socket reset when it is closed: an orderly end could pass for the end of the response."""
        wire_of(self._stream).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
