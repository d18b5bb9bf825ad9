"""Puts the routes of all subjects on one application."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quart import g

from khala_service.admin_routes import add_failpoint_route
from khala_service.http_edge import HttpProblem, make_app, respond
from khala_service.http_observer import RequestObserver
from khala_service.http_problems import error_message
from khala_service.openapi import add_openapi_route
from khala_service.request_context import current_request_id
from runtime.actors.command_path import CommandRefused
from runtime.adapters.http import openapi
from runtime.adapters.http.app_topics import add_app_topic_routes
from runtime.adapters.http.append_shortcut import AppendShortcut
from runtime.adapters.http.events import add_event_routes
from runtime.adapters.http.explain import add_explain_route
from runtime.adapters.http.nodes import add_node_routes
from runtime.adapters.http.projections import OperatorCheck, add_projection_routes
from runtime.adapters.http.requests import Authenticator
from runtime.adapters.http.runs import add_run_routes
from runtime.adapters.http.topics import add_topic_routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio
    from quart import Response
    from quart_trio import QuartTrio

    from khala_service.admin_routes import AdminToken
    from khala_service.http_edge import EdgePolicy, ReadyCheck
    from khala_service.metrics import MetricsRegistry
    from khala_service.service_auth import ServiceCredentials
    from runtime.actors.app_topic_commands import AppTopicCommands
    from runtime.actors.explainer import Explainer
    from runtime.actors.limit_audit import LimitAudit
    from runtime.actors.projection_repair import ProjectionRepair
    from runtime.actors.run_commands import RunCommands
    from runtime.actors.run_reads import RunReads
    from runtime.actors.run_transfers import RunTransfers
    from runtime.core.limits import RuntimeLimits
    from runtime.core.node_registry import NodeRegistry
    from runtime.ports import Clock, Ids, PrincipalResolver

__all__ = ["make_runtime_app"]


def make_runtime_app(
    *,
    resolver: PrincipalResolver,
    commands: RunCommands,
    transfers: RunTransfers,
    app_topics: AppTopicCommands,
    reads: RunReads,
    controls: ServiceCredentials,
    limits: RuntimeLimits,
    ids: Ids,
    repair: ProjectionRepair,
    explainer: Explainer,
    admin: AdminToken | None,
    has_failpoints: bool,
    draining: trio.Event,
    metrics: MetricsRegistry,
    ready_checks: Mapping[str, ReadyCheck],
    edge: EdgePolicy,
    limit_audit: LimitAudit,
    nodes: ServiceCredentials,
    registry: NodeRegistry,
    clock: Clock,
) -> QuartTrio:
    """Return the application.

    Args:
        resolver: Knows the bearers of credentials.
        commands: What writes runs.
        transfers: What gives runs another owner.
        app_topics: What writes app topics.
        reads: What reads.
        controls: Who may use the internal routes.
        limits: Sizes of bodies and pages.
        ids: Makes event ids.
        repair: Compares and rebuilds the read model.
        explainer: Knows what became of an event.
        admin: Opens the operators' routes; None: there are none.
        has_failpoints: Whether one of them arms failpoints.
        draining: Set when the service is asked to end: streams end with what they have committed.
        metrics: Rendered at /metrics.
        ready_checks: Shown at /readyz.
        edge: Pages and proxies on the other side.
        limit_audit: Told of refusals.
        nodes: Who may report as a node.
        registry: Knows the nodes that report.
        clock: Wall time.
    """

    def note(problem: HttpProblem) -> None:
        limit_audit.note(
            problem.reason,
            problem.details,
            principal=g.get("principal"),
            request_id=current_request_id(),
        )

    app = make_app("runtime", metrics=metrics, ready_checks=ready_checks, edge=edge, refused=note)

    @app.errorhandler(CommandRefused)
    async def refuse(refused: CommandRefused) -> Response:
        refusal = refused.refusal
        problem = HttpProblem(refusal.reason, refusal.details, retry_after_ms=refusal.retry_after_ms)
        note(problem)
        headers = {}
        if problem.retry_after_ms:
            headers["Retry-After"] = str(-(-problem.retry_after_ms // 1000))
        return respond(error_message(problem), problem.status, headers)

    observer = app.asgi_app
    assert isinstance(observer, RequestObserver), "make_app puts it around every application"
    observer.put_inside(partial(AppendShortcut, resolver=resolver, commands=commands, limits=limits, ids=ids))
    authenticator = Authenticator(resolver)
    add_run_routes(
        app,
        authenticator=authenticator,
        commands=commands,
        transfers=transfers,
        reads=reads,
        limits=limits,
    )
    add_event_routes(
        app,
        authenticator=authenticator,
        commands=commands,
        reads=reads,
        limits=limits,
        ids=ids,
        draining=draining,
        limit_audit=limit_audit,
    )
    add_app_topic_routes(
        app, authenticator=authenticator, commands=app_topics, reads=reads, limits=limits, ids=ids
    )
    add_topic_routes(app, authenticator=authenticator, reads=reads, controls=controls)
    operators = OperatorCheck(controls, admin)
    add_projection_routes(app, operators=operators, reads=reads, repair=repair, limits=limits)
    add_node_routes(app, registry, nodes=nodes, operators=operators, clock=clock)
    if admin is not None:
        add_explain_route(app, admin=admin, explainer=explainer)
    if admin is not None and has_failpoints:
        add_failpoint_route(app, admin)
    add_openapi_route(app, title=openapi.TITLE, routes=openapi.ROUTES, prefix="/v1")
    return app
