"""Puts the routes of all subjects on one application."""

from collections.abc import Mapping

import attrs
from quart import Response
from quart_trio import QuartTrio

from control.actors.key_commands import KeyCommands
from control.actors.session_commands import SessionCommands
from control.actors.sync_token_commands import SyncTokenCommands
from control.adapters.http.internal import add_internal_routes
from control.adapters.http.keys import add_key_routes
from control.adapters.http.public import add_public_routes
from control.adapters.http.requests import BODY_MAX_BYTES
from control.adapters.http.sessions import add_dev_routes, add_session_routes
from control.adapters.http.sync_tokens import add_sync_token_routes
from control.adapters.signing_keys import KeyRing
from control.core.refusals import Refused
from khala_contracts import http_messages as m
from khala_service.http_edge import HttpProblem, ReadyCheck, make_app, respond
from khala_service.http_problems import error_message
from khala_service.metrics import MetricsRegistry
from khala_service.service_auth import ServiceCredentials


@attrs.frozen
class Commands:
    """Everything that routes can ask for."""

    sessions: SessionCommands
    keys: KeyCommands
    sync_tokens: SyncTokenCommands


def make_control_app(
    commands: Commands,
    *,
    ring: KeyRing,
    compat: m.CompatResponse,
    nodes: ServiceCredentials,
    runtimes: ServiceCredentials,
    metrics: MetricsRegistry,
    ready_checks: Mapping[str, ReadyCheck],
    is_dev: bool,
) -> QuartTrio:
    """Return the application; the development sign-in route exists in it iff `is_dev`."""
    app = make_app("control", metrics=metrics, ready_checks=ready_checks, body_max_bytes=BODY_MAX_BYTES)

    @app.errorhandler(Refused)
    async def refuse(refused: Refused) -> Response:
        problem = HttpProblem(refused.code, refused.details)
        headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
        return respond(error_message(problem), problem.status, headers)

    add_public_routes(app, ring=ring, compat=compat)
    add_session_routes(app, commands.sessions)
    if is_dev:
        add_dev_routes(app, commands.sessions)
    add_key_routes(app, commands.keys)
    add_sync_token_routes(app, commands.sync_tokens)
    add_internal_routes(
        app,
        sessions=commands.sessions,
        sync_tokens=commands.sync_tokens,
        nodes=nodes,
        runtimes=runtimes,
    )
    return app
