"""Routes of app topics: append one event or a batch; read a page of history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts.frames import SEQ_MAX
from khala_service.http_edge import respond
from runtime.actors.app_topic_commands import APP_CLASS
from runtime.adapters.http.event_batches import read_batch
from runtime.adapters.http.requests import Authenticator, caller, query_number
from runtime.adapters.http.run_messages import events_message
from runtime.core.responses import append_response

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from runtime.actors.app_topic_commands import AppTopicCommands
    from runtime.actors.run_reads import RunReads
    from runtime.core.limits import RuntimeLimits
    from runtime.ports import Ids

__all__ = ["add_app_topic_routes"]


def add_app_topic_routes(
    app: QuartTrio,
    *,
    authenticator: Authenticator,
    commands: AppTopicCommands,
    reads: RunReads,
    limits: RuntimeLimits,
    ids: Ids,
) -> None:
    """Register the routes."""

    @app.post("/v1/app-topics/<org_id>/<name>/events")
    async def append_app_events(org_id: str, name: str) -> Response:
        sender = caller(await authenticator.principal(), key_bytes_max=limits.key_bytes_max)
        # Before the body: four megabytes for a topic that one may not write are not read.
        target = commands.authorize_append(sender.principal, org_id, name)
        batch = await read_batch(APP_CLASS, ids=ids, limits=limits)
        appended = await commands.append(sender, target, batch.events, expected_seq=batch.expected_seq)
        return respond(append_response(appended))

    @app.get("/v1/app-topics/<org_id>/<name>/events")
    async def list_app_events(org_id: str, name: str) -> Response:
        principal = await authenticator.principal()
        after_seq = query_number("after_seq", default=0, least=0, most=SEQ_MAX)
        most = limits.page_events_max
        limit = query_number("limit", default=most, least=1, most=most)
        page = await reads.read_app_events(principal, org_id, name, after_seq=after_seq, limit=limit)
        return respond(events_message(page, after_seq=after_seq))
