"""The node's admin port: health, readiness, metrics, and routes for operators.

Operators present the admin token; a node without one has no such route, and failpoints exist in mode dev
only (``khala_service/admin_routes.py``). What the metrics show: adapters/metrics.py.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from khala.adapters.explain_http import EXPLAIN_ROUTE
from khala_service.admin_routes import FAILPOINTS_ROUTE, AdminToken, add_failpoint_route
from khala_service.http_bodies import JSON
from khala_service.http_edge import make_app
from khala_service.openapi import FAILPOINTS, Access, Described, add_openapi_route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart_trio import QuartTrio

    from khala.adapters.configuration import NodeConfig
    from khala_service.metrics import MetricsRegistry
    from khala_service.readiness import ReadyCheck

__all__ = ["ROUTES", "make_admin_app"]

# In words, for /openapi.json. tests/contract/test_openapi.py: every route is here.
ROUTES: Final[Mapping[tuple[str, str], Described]] = MappingProxyType(
    {
        ("GET", EXPLAIN_ROUTE): Described(
            "Say what this node knows of a frame.",
            Access.ADMIN,
            media=(JSON,),
            query={"topic": "Its topic.", "seq": "Its position."},
        ),
        ("POST", FAILPOINTS_ROUTE): FAILPOINTS,
    }
)


def make_admin_app(
    config: NodeConfig, *, metrics: MetricsRegistry, ready_checks: Mapping[str, ReadyCheck]
) -> QuartTrio:
    """Return the application of a node's admin port.

    Args:
        config: Says which routes of operators there are.
        metrics: Rendered at /metrics.
        ready_checks: Shown at /readyz.
    """
    app = make_app("node", metrics=metrics, ready_checks=ready_checks)
    if config.admin_token is not None and config.mode == "dev":
        add_failpoint_route(app, AdminToken(config.admin_token))
    add_openapi_route(app, title="Khala node", routes=ROUTES)
    return app
