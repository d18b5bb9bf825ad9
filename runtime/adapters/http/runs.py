"""Routes of runs: create, read, list, transition, transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond
from runtime.actors.run_commands import Transition
from runtime.adapters.http.requests import Authenticator, caller, query_number, query_text
from runtime.adapters.http.run_messages import record_message
from runtime.core.run_fields import NewRunFields
from runtime.core.run_state_machine import RunState

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from runtime.actors.run_commands import RunCommands
    from runtime.actors.run_reads import RunReads
    from runtime.actors.run_transfers import RunTransfers
    from runtime.core.limits import RuntimeLimits

__all__ = ["add_run_routes"]

# Names, attributes, a reason and a result of 256 KiB, with room for JSON's escapes.
BODY_MAX_BYTES = 2 * 1024 * 1024


def add_run_routes(
    app: QuartTrio,
    *,
    authenticator: Authenticator,
    commands: RunCommands,
    transfers: RunTransfers,
    reads: RunReads,
    limits: RuntimeLimits,
) -> None:
    """Register the routes."""

    @app.post("/v1/runs")
    async def create_run() -> Response:
        sender = caller(await authenticator.principal(), key_bytes_max=limits.key_bytes_max)
        body = await read_body(m.CreateRunRequest, max_bytes=BODY_MAX_BYTES)
        fields = NewRunFields(body.name, body.agent, body.source, dict(body.attributes), body.org_id)
        answer = await commands.create(sender, fields)
        return respond(m.CreateRunResponse.FromString(answer), 201)

    @app.get("/v1/runs")
    async def list_runs() -> Response:
        principal = await authenticator.principal()
        limit = query_number("limit", default=50, least=1, most=limits.page_runs_max)
        page = await reads.list_runs(principal, before=query_text("page_token"), limit=limit)
        runs = [record_message(record) for record in page.runs]
        return respond(m.ListRunsResponse(runs=runs, next_page_token=page.next_before))

    @app.get("/v1/runs/<run_id>")
    async def get_run(run_id: str) -> Response:
        record = await reads.get_run(await authenticator.principal(), run_id)
        return respond(m.GetRunResponse(run=record_message(record)))

    @app.post("/v1/runs/<run_id>/transitions")
    async def transition_run(run_id: str) -> Response:
        sender = caller(await authenticator.principal(), key_bytes_max=limits.key_bytes_max)
        body = await read_body(m.TransitionRunRequest, max_bytes=BODY_MAX_BYTES)
        wanted = Transition(
            to_state=RunState(m.RUN_STATES.word(body.to_state, field="to_state")),
            reason=body.reason,
            exit_status=body.exit_status if body.HasField("exit_status") else None,
            result=body.result,
        )
        answer = await commands.transition(sender, run_id, wanted)
        return respond(m.TransitionRunResponse.FromString(answer))

    @app.post("/v1/runs/<run_id>/transfer")
    async def transfer_run(run_id: str) -> Response:
        sender = caller(await authenticator.principal(), key_bytes_max=limits.key_bytes_max)
        body = await read_body(m.TransferRunRequest)
        answer = await transfers.transfer(sender, run_id, body.owner_user_id)
        return respond(m.TransferRunResponse.FromString(answer))
