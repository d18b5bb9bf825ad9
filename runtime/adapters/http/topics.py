"""Routes of topics: their position for readers, their owners for control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import Response, request

from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond
from runtime.adapters.http.run_messages import owners_message, topic_message

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from khala_service.service_auth import ServiceCredentials
    from runtime.actors.run_reads import RunReads
    from runtime.adapters.http.requests import Authenticator

__all__ = ["add_topic_routes"]


def add_topic_routes(
    app: QuartTrio, *, authenticator: Authenticator, reads: RunReads, controls: ServiceCredentials
) -> None:
    """Register the routes; the internal one is open to control's credential only."""

    @app.get("/v1/topics/<topic>")
    async def get_topic(topic: str) -> Response:
        record = await reads.get_topic(await authenticator.principal(), topic)
        return respond(topic_message(record))

    @app.post("/internal/v1/topics/owners")
    async def topic_owners() -> Response:
        controls.require(request.headers.get("Authorization"))
        names = list((await read_body(m.TopicOwnersRequest)).topics)
        return respond(owners_message(names, await reads.owners(names)))
