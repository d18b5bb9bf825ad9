"""Puts the routes of all subjects on one application."""

from collections.abc import Mapping

import attrs
from quart import Response
from quart_trio import QuartTrio

from control.actors.key_commands import KeyCommands
from control.actors.node_audit import NodeAudit
from control.actors.org_commands import OrgCommands
from control.actors.revocation_commands import RevocationCommands
from control.actors.session_commands import SessionCommands
from control.actors.sign_in_flow import SignInFlow
from control.actors.sync_token_commands import SyncTokenCommands
from control.adapters.http import openapi
from control.adapters.http.audit import add_audit_routes
from control.adapters.http.development_issuer import add_development_issuer_routes
from control.adapters.http.internal import add_internal_routes
from control.adapters.http.keys import add_key_routes
from control.adapters.http.orgs import add_org_routes
from control.adapters.http.public import add_public_routes
from control.adapters.http.requests import BODY_MAX_BYTES
from control.adapters.http.revocations import add_revocation_routes
from control.adapters.http.sessions import add_session_routes
from control.adapters.http.sign_in import RefreshCookie, add_sign_in_routes
from control.adapters.http.static_host import add_static_routes, read_static_files
from control.adapters.http.sync_tokens import add_sync_token_routes
from control.adapters.identity.development import DevelopmentIssuer
from control.adapters.signing_keys import KeyRing
from control.core.refusals import Refused
from control.ports import Clock
from khala_contracts import http_messages as m
from khala_service.admin_routes import AdminToken
from khala_service.http_edge import EdgePolicy, HttpProblem, ReadyCheck, make_app, respond
from khala_service.http_problems import error_message
from khala_service.metrics import MetricsRegistry
from khala_service.openapi import add_openapi_route
from khala_service.service_auth import ServiceCredentials


@attrs.frozen
class Commands:
    """Everything that routes can ask for."""

    sessions: SessionCommands
    revocations: RevocationCommands
    orgs: OrgCommands
    keys: KeyCommands
    sync_tokens: SyncTokenCommands
    audit: NodeAudit


def make_control_app(
    commands: Commands,
    *,
    ring: KeyRing,
    compat: m.CompatResponse,
    nodes: ServiceCredentials,
    runtimes: ServiceCredentials,
    admin: AdminToken | None,
    metrics: MetricsRegistry,
    ready_checks: Mapping[str, ReadyCheck],
    flow: SignInFlow | None,
    issuer: DevelopmentIssuer | None,
    origin: str,
    clock: Clock,
    edge: EdgePolicy,
) -> QuartTrio:
    """Return the application.

    Args:
        commands: What routes can ask for.
        ring: Published at /.well-known/jwks.json.
        compat: Said at /api/compat.
        nodes: Who may use the nodes' internal routes.
        runtimes: Who may use the runtime's.
        admin: Opens the operators' routes; None: there are none.
        metrics: Rendered at /metrics.
        ready_checks: Named checks of /readyz.
        flow: Sign-in through a provider; None: its routes do not exist.
        issuer: The development issuer; None: its routes do not exist.
        origin: Where browsers reach this application.
        clock: Wall time.
        edge: Pages and proxies on the other side.
    """
    app = make_app(
        "control", metrics=metrics, ready_checks=ready_checks, body_max_bytes=BODY_MAX_BYTES, edge=edge
    )

    @app.errorhandler(Refused)
    async def refuse(refused: Refused) -> Response:
        problem = HttpProblem(refused.code, refused.details)
        headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
        return respond(error_message(problem), problem.status, headers)

    add_public_routes(app, ring=ring, compat=compat)
    add_static_routes(app, read_static_files(), origin=origin)
    cookie = RefreshCookie(origin, edge.cors_origins)
    add_session_routes(app, commands.sessions, cookie=cookie, clock=clock)
    if flow is not None:
        add_sign_in_routes(app, flow, cookie)
    if issuer is not None:
        add_development_issuer_routes(app, issuer)
    add_org_routes(app, commands.orgs)
    add_revocation_routes(app, commands.revocations, nodes=nodes)
    add_key_routes(app, commands.keys)
    add_sync_token_routes(app, commands.sync_tokens)
    add_audit_routes(app, commands.audit, nodes=nodes, runtimes=runtimes, admin=admin)
    add_internal_routes(
        app,
        sessions=commands.sessions,
        sync_tokens=commands.sync_tokens,
        orgs=commands.orgs,
        nodes=nodes,
        runtimes=runtimes,
    )
    add_openapi_route(app, title=openapi.TITLE, routes=openapi.ROUTES, prefix="/api")
    return app
