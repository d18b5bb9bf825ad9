"""Internal routes of operators: the journal as nodes replay it, drift and rebuild of the read model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from quart import request

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.codec import decode_entries
from khala_contracts.frames import SEQ_MAX
from khala_contracts.topics import Lineage
from khala_service.http_edge import HttpProblem, respond
from runtime.adapters.http.requests import query_number, query_text
from runtime.adapters.http.run_messages import topic_message
from runtime.core.message_pages import PageCursor, chain_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quart import Response
    from quart_trio import QuartTrio

    from khala_service.admin_routes import AdminToken
    from khala_service.service_auth import ServiceCredentials
    from runtime.actors.projection_repair import Difference, ProjectionRepair
    from runtime.actors.run_reads import RunReads
    from runtime.core.limits import RuntimeLimits
    from runtime.ports import MessagePage

__all__ = ["OperatorCheck", "add_projection_routes"]

REPAIR_RUNS_DEFAULT: Final = 200
REPAIR_RUNS_MAX: Final = 10_000
# What a page names; the count beside it is whole.
NAMED_MAX: Final = 100
_CHAIN: Final = re.compile(rf"[0-9a-f]{{{2 * CHAIN_BYTES}}}", re.ASCII)


class OperatorCheck:
    """Lets in who has a service credential or the admin token, and nobody else."""

    def __init__(self, controls: ServiceCredentials, admin: AdminToken | None) -> None:
        self._controls = controls
        self._admin = admin

    def require(self) -> None:
        """Return if the current request may use operators' routes.

        Raises:
            HttpProblem: unauthenticated; the same for every credential that does not open them.
        """
        if self._controls.caller_of(request.headers.get("Authorization")) is not None:
            return
        if self._admin is None:
            raise HttpProblem(reason_codes.UNAUTHENTICATED)
        self._admin.require()


def add_projection_routes(
    app: QuartTrio,
    *,
    operators: OperatorCheck,
    reads: RunReads,
    repair: ProjectionRepair,
    limits: RuntimeLimits,
) -> None:
    """Register the routes."""

    @app.get("/internal/v1/khala/topics/<topic>/messages")
    async def topic_messages(topic: str) -> Response:
        operators.require()
        cursor = PageCursor(
            query_number("after_seq", default=0, least=0, most=SEQ_MAX), _query_lineage(), _query_chain()
        )
        limit = query_number("limit", default=limits.page_events_max, least=1, most=limits.page_events_max)
        return respond(_messages(cursor, await reads.read_messages(topic, cursor, limit=limit)))

    @app.get("/internal/v1/projections/drift")
    async def projection_drift() -> Response:
        operators.require()
        report = await repair.drift(after=query_text("page_token"), limit=_query_runs())
        return respond(
            m.ProjectionDriftResponse(
                checked=report.checked,
                differences=_differences(report.differences),
                difference_count=len(report.differences),
                stored_hash=report.stored_hash,
                folded_hash=report.folded_hash,
                next_page_token=report.next_after,
            )
        )

    @app.post("/internal/v1/projections/rebuild")
    async def rebuild_projections() -> Response:
        operators.require()
        report = await repair.rebuild(after=query_text("page_token"), limit=_query_runs())
        return respond(
            m.RebuildProjectionsResponse(
                rebuilt=report.rebuilt,
                changed=report.changed,
                summaries=report.summaries,
                failures=_differences(report.failures),
                failure_count=len(report.failures),
                hash=report.hash,
                next_page_token=report.next_after,
            )
        )


def _query_runs() -> int:
    return query_number("limit", default=REPAIR_RUNS_DEFAULT, least=1, most=REPAIR_RUNS_MAX)


def _query_lineage() -> Lineage | None:
    text = query_text("lineage")
    return Lineage(text) if text else None


def _query_chain() -> bytes | None:
    text = query_text("chain")
    if text and _CHAIN.fullmatch(text) is None:
        problem = f"{2 * CHAIN_BYTES} hexadecimal digits"
        raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": "chain", "problem": problem})
    return bytes.fromhex(text) if text else None


def _differences(found: Sequence[Difference]) -> list[m.ProjectionDifference]:
    return [m.ProjectionDifference(run_id=item.run_id, problem=item.problem) for item in found[:NAMED_MAX]]


def _messages(cursor: PageCursor, page: MessagePage) -> m.TopicMessagesResponse:
    topic = page.topic
    chain_before = chain_at(cursor.seq, page.start)
    return m.TopicMessagesResponse(
        observation=topic_message(topic),
        frames=[
            m.KhalaFrame(
                topic=frame.topic,
                seq=frame.seq,
                kind=frame.kind,
                payload_bytes=frame.payload,
                schema_version=frame.schema_version,
            )
            for frame in decode_entries(page.entries)
        ],
        watermark=m.Watermark(
            topic=topic.topic,
            lineage=topic.lineage,
            seq=page.last_seq,
            chain=page.last_chain if page.entries else chain_before,
        ),
        chain_before=chain_before,
    )
