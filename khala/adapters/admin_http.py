"""The node's admin port: health, readiness, metrics, and routes for operators.

Operators present the admin token; a node without one has no such route, and failpoints exist in mode dev
only (``khala_service/admin_routes.py``). What the metrics show: adapters/metrics.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_service.admin_routes import AdminToken, add_failpoint_route
from khala_service.http_edge import make_app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart_trio import QuartTrio

    from khala.adapters.configuration import NodeConfig
    from khala_service.metrics import MetricsRegistry
    from khala_service.readiness import ReadyCheck

__all__ = ["make_admin_app"]


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
    return app
