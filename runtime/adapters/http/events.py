"""Routes of a run's events: append one, a batch or a stream; read a page of history."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quart import Response, g, request

from khala_contracts.frames import SEQ_MAX
from khala_service.http_edge import respond
from khala_service.request_context import current_request_id
from runtime.adapters.http.append_shortcut import FAILED, Failed
from runtime.adapters.http.event_batches import read_batch
from runtime.adapters.http.event_inputs import RUN_CLASS
from runtime.adapters.http.event_stream import EventStream
from runtime.adapters.http.requests import Authenticator, caller, query_number
from runtime.adapters.http.run_messages import events_message
from runtime.adapters.http.stream_framing import framing_for
from runtime.core.responses import append_response

if TYPE_CHECKING:
    import trio
    from quart_trio import QuartTrio

    from runtime.actors.limit_audit import LimitAudit
    from runtime.actors.run_commands import RunCommands
    from runtime.actors.run_reads import RunReads
    from runtime.adapters.http.stream_framing import StreamFraming
    from runtime.core.limits import RuntimeLimits
    from runtime.ports import Ids

__all__ = ["add_event_routes"]


def add_event_routes(
    app: QuartTrio,
    *,
    authenticator: Authenticator,
    commands: RunCommands,
    reads: RunReads,
    limits: RuntimeLimits,
    ids: Ids,
    draining: trio.Event,
    limit_audit: LimitAudit,
) -> None:
    """Register the routes."""

    @app.post("/v1/runs/<run_id>/events")
    async def append_events(run_id: str) -> Response:
        framing = framing_for(request.mimetype, event_bytes_max=limits.stream_event_bytes_max)
        if framing is not None:
            return await append_stream(run_id, framing)
        failed: Failed | None = request.scope.get(FAILED)  # type: ignore[assignment]
        if failed is not None:
            g.principal = failed.principal
            raise failed.error
        sender = caller(await authenticator.principal(), key_bytes_max=limits.key_bytes_max)
        # Before the body: four megabytes for a run that one may not write are not read.
        await commands.authorize_append(sender.principal, run_id)
        batch = await read_batch(RUN_CLASS, ids=ids, limits=limits)
        appended = await commands.append(sender, run_id, batch.events, expected_seq=batch.expected_seq)
        return respond(append_response(appended))

    async def append_stream(run_id: str, framing: StreamFraming) -> Response:
        # Refused with a status of its own while that is still possible.
        credential = authenticator.credential()
        principal, request_id = await authenticator.bearer_of(credential), current_request_id()
        await commands.authorize_append(principal, run_id)
        stream = EventStream(
            framing,
            commands,
            run_id=run_id,
            request_id=request_id,
            authenticate=partial(authenticator.bearer_of, credential),
            limits=limits,
            ids=ids,
            draining=draining,
            refused=partial(limit_audit.note, principal=principal, request_id=request_id),
        )
        response = Response(stream.answers(request.body), content_type=framing.media_type)
        # No time-out: a recorded agent may think for an hour; a client that left cancels the request.
        response.timeout = None
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.get("/v1/runs/<run_id>/events")
    async def list_events(run_id: str) -> Response:
        principal = await authenticator.principal()
        after_seq = query_number("after_seq", default=0, least=0, most=SEQ_MAX)
        most = limits.page_events_max
        limit = query_number("limit", default=most, least=1, most=most)
        page = await reads.read_events(principal, run_id, after_seq=after_seq, limit=limit)
        return respond(events_message(page, after_seq=after_seq))
