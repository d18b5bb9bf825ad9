"""Appends a streamed body, chunk by chunk, with an acknowledgement for each committed chunk.

One task, the request's own: it reads what has arrived, commits it and answers, and what arrives
meanwhile is the next chunk. So a slow commit makes larger chunks, a slow sender small ones, and a
client that does not read its acknowledgements is itself not read from: it must read while it writes.

A chunk holds at most ``stream_chunk_events_max`` events. The first event that is refused ends the
stream with a StreamError that names it by its index; what was acknowledged before stays. Rights are
looked at again for each chunk, because a stream may live for hours. A service that is asked to end
commits and acknowledges what has arrived, and says `draining`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_service.errors import Unavailable
from khala_service.http_edge import HttpProblem
from runtime.actors.command_path import Caller, CommandRefused
from runtime.adapters.http.event_inputs import read_event
from runtime.adapters.http.requests import check_key
from runtime.core.outcomes import Appended, Refused
from runtime.core.responses import add_acks

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from khala_contracts.reason_codes import ReasonCode
    from runtime.actors.run_commands import RunCommands
    from runtime.adapters.http.stream_framing import StreamFraming
    from runtime.core.events import EventColumns
    from runtime.core.limits import RuntimeLimits
    from runtime.core.principals import Principal
    from runtime.ports import Ids

__all__ = ["EventStream"]

# A successor, or another process behind the same address, takes the rest.
_DRAINING: Final = Refused(reason_codes.DRAINING, {}, retry_after_ms=1_000)
_Keyed = tuple[str, "EventColumns"]


class _Drained(Exception):
    """Ends the wait for more of a body."""


class EventStream:
    """One streamed append."""

    def __init__(
        self,
        framing: StreamFraming,
        commands: RunCommands,
        *,
        run_id: str,
        request_id: str,
        authenticate: Callable[[], Awaitable[Principal]],
        limits: RuntimeLimits,
        ids: Ids,
        draining: trio.Event,
        refused: Callable[[ReasonCode, Mapping[str, str]], None],
    ) -> None:
        self._refused = refused
        self._framing = framing
        self._commands = commands
        self._run_id = run_id
        self._request_id = request_id
        self._authenticate = authenticate
        self._limits = limits
        self._ids = ids
        self._draining = draining
        # Events acknowledged so far; the index of the next one.
        self._index = 0

    async def answers(self, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield the framed acknowledgements of a body; the last one may say what ended the stream.

        Cancellation: what was handed to the appender is committed all the same; a client that did
        not get its acknowledgement sends the events again with their keys.
        """
        pieces = body.__aiter__()
        is_last = False
        while not is_last:
            try:
                piece = await self._next_piece(pieces)
            except _Drained:
                # What has arrived whole is committed and acknowledged; the rest is to be sent again.
                yield self._framing.frame(self._failed(_DRAINING))
                return
            is_last = piece is None
            self._framing.feed(piece or b"")
            events = self._events(is_last=is_last)
            while True:
                chunk, error = self._next_chunk(events)
                if chunk:
                    answer, is_whole = await self._commit(chunk)
                    yield answer
                    if not is_whole:
                        return
                if error is not None:
                    yield self._framing.frame(self._failed(_refusal_of(error)))
                    return
                if not chunk:
                    break

    async def _next_piece(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece of the body, None at its end.

        Raises:
            _Drained: The service is asked to end, and nothing more of the body has arrived.
        """
        piece: bytes | None = None
        has_ended = False
        async with trio.open_nursery() as nursery:

            async def stop_waiting() -> None:
                await self._draining.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop_waiting)
            try:
                piece = await pieces.__anext__()
            except StopAsyncIteration:
                has_ended = True
            nursery.cancel_scope.cancel()
        if piece is None and not has_ended:
            raise _Drained
        return piece

    def _events(self, *, is_last: bool) -> Iterator[_Keyed]:
        """Yield the complete events of what was fed.

        Raises:
            WireError, HttpProblem: the event at this place is wrong.
        """
        for item in self._framing.take(m.EventInput, is_last=is_last):
            if item.idempotency_key:
                check_key(item.idempotency_key, "idempotency_key", key_bytes_max=self._limits.key_bytes_max)
            yield item.idempotency_key, read_event(item, ids=self._ids)

    def _next_chunk(self, events: Iterator[_Keyed]) -> tuple[list[_Keyed], Exception | None]:
        """Return the next events, and what is wrong with the one after them."""
        chunk: list[_Keyed] = []
        size_bytes = 0
        try:
            for key, event in events:
                chunk.append((key, event))
                size_bytes += event.size_bytes
                if (
                    len(chunk) >= self._limits.stream_chunk_events_max
                    or size_bytes >= self._limits.stream_chunk_bytes_max
                ):
                    break
        except (WireError, HttpProblem) as error:
            return chunk, error
        return chunk, None

    async def _commit(self, chunk: list[_Keyed]) -> tuple[bytes, bool]:
        """Append a chunk; return its answer, and whether all of it was appended."""
        try:
            principal = await self._authenticate()
            run = await self._commands.authorize_append(principal, self._run_id)
            caller = Caller(principal, None, self._request_id)
            outcomes = await self._commands.append_keyed(caller, run, chunk)
        except (CommandRefused, HttpProblem, Unavailable) as error:
            return self._framing.frame(self._failed(_refusal_of(error))), False
        committed = m.AppendEventsResponse()
        refusal: Refused | None = None
        for outcome in outcomes:
            if isinstance(outcome, Appended):
                for part in outcome.parts:
                    add_acks(committed, part)
            elif isinstance(outcome, Refused):
                refusal = outcome
                break
        self._index += len(committed.acks)
        answer = b""
        if committed.acks:
            answer = self._framing.frame(m.AppendStreamAck(committed=committed))
        if refusal is not None:
            answer += self._framing.frame(self._failed(refusal))
        return answer, refusal is None

    def _failed(self, refusal: Refused) -> m.AppendStreamAck:
        reason = refusal.reason
        self._refused(reason, refusal.details)
        return m.AppendStreamAck(
            failed=m.StreamError(
                code=reason.name,
                message=reason.text,
                event_index=self._index,
                retryable=reason.retryable,
                retry_after_ms=refusal.retry_after_ms,
                details=refusal.details,
            )
        )


def _refusal_of(error: Exception) -> Refused:
    match error:
        case CommandRefused(refusal=refusal):
            return refusal
        case WireError():
            return Refused(error.reason, error.details)
        case HttpProblem():
            return Refused(error.reason, error.details, error.retry_after_ms)
        case Unavailable():
            retry_after_ms = max(1, round(error.retry_after_s * 1000))
            return Refused(reason_codes.UNAVAILABLE, error.details, retry_after_ms)
        case _:
            raise error
