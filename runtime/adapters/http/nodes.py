"""Routes about nodes: they report here, and operators read how fan-out does over all of them.

    POST /internal/v1/nodes/{node_id}             by the nodes' credential: a NodeReport
    GET  /internal/v1/khala/fanout/metrics        by the admin token, or control's credential
         ?topic_limit=20&window_s=600

``topic_limit`` is a whole number from 1 on, above TOPIC_LIMIT_MAX taken for TOPIC_LIMIT_MAX; 0, a sign or a word is
``invalid_argument``. ``window_s`` is 10..3600. What the fields mean: proto/openagents/runtime/v1/nodes.proto.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

import trio
from quart import Response, request

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.frames import SEQ_MAX
from khala_contracts.topics import TopicInvalid, parse_topic
from khala_service.http_edge import read_body, respond
from khala_service.http_problems import HttpProblem
from runtime.adapters.http.requests import query_number
from runtime.core.fanout_trend import KEPT_S
from runtime.core.node_registry import NODES_MAX, SILENT_AFTER_S, RegistryFull
from runtime.core.node_reports import REPORT_TOPICS_MAX, FanoutFigures, NodeReport, TopicReport

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from khala_service.service_auth import ServiceCredentials
    from runtime.adapters.http.projections import OperatorCheck
    from runtime.core.fanout_trend import FanoutChanges, FanoutTrend
    from runtime.core.node_registry import FanoutTotals, NodeRegistry, NodeStanding, TopicStanding
    from runtime.ports import Clock

__all__ = ["METRICS_ROUTE", "TOPIC_LIMIT_MAX", "add_node_routes", "metrics_message", "read_report"]

METRICS_ROUTE: Final = "/internal/v1/khala/fanout/metrics"
TOPIC_LIMIT_DEFAULT: Final = 20
TOPIC_LIMIT_MAX: Final = 100
WINDOW_DEFAULT_S: Final = 600
WINDOW_MIN_S: Final = 10
_TEXT_MAX_CHARS: Final = 128
_CHECKS_MAX: Final = 32
# Seconds, counters and bytes alike; a sum over NODES_MAX nodes still fits 64 bits.
_COUNT_MAX: Final = SEQ_MAX // NODES_MAX


def add_node_routes(
    app: QuartTrio,
    registry: NodeRegistry,
    *,
    nodes: ServiceCredentials,
    operators: OperatorCheck,
    clock: Clock,
) -> None:
    """Register the routes; a runtime that knows no credential of nodes takes no report."""

    @app.post("/internal/v1/nodes/<node_id>")
    async def report(node_id: str) -> Response:
        nodes.require(request.headers.get("Authorization"))
        taken = read_report(node_id, await read_body(m.NodeReport))
        try:
            registry.take(taken, trio.current_time())
        except RegistryFull:
            raise HttpProblem(
                reason_codes.LIMIT_EXCEEDED, {"limit": "nodes_max", "value": str(NODES_MAX)}
            ) from None
        return respond(m.NodeReportAck(silent_after_ms=round(SILENT_AFTER_S * 1000)))

    @app.get(METRICS_ROUTE)
    async def fanout_metrics() -> Response:
        operators.require()
        limit = query_number("topic_limit", default=TOPIC_LIMIT_DEFAULT, least=1, most=SEQ_MAX)
        window_s = query_number("window_s", default=WINDOW_DEFAULT_S, least=WINDOW_MIN_S, most=KEPT_S)
        topic_limit = min(limit, TOPIC_LIMIT_MAX)
        return respond(
            metrics_message(
                registry,
                topic_limit=topic_limit,
                window_s=window_s,
                generated_at_ms=round(clock.now() * 1000),
                now=trio.current_time(),
            )
        )


def read_report(node_id: str, body: m.NodeReport) -> NodeReport:
    """Return what a node said.

    Raises:
        HttpProblem: invalid_argument with the field; nodes are ours, and one that says nonsense is broken.
    """
    if body.node_id != node_id:
        raise _invalid("node_id", "the one of the path")
    for name in ("node_id", "instance_id", "build_id"):
        if not 0 < len(getattr(body, name)) <= _TEXT_MAX_CHARS:
            raise _invalid(name, f"1..{_TEXT_MAX_CHARS} characters")
    if len(body.not_ready) > _CHECKS_MAX or any(
        len(text) > _TEXT_MAX_CHARS for check in body.not_ready.items() for text in check
    ):
        raise _invalid("not_ready", f"at most {_CHECKS_MAX} checks of {_TEXT_MAX_CHARS} characters")
    if len(body.topics) > REPORT_TOPICS_MAX:
        raise _invalid("topics", f"at most {REPORT_TOPICS_MAX}")
    return NodeReport(
        node_id=body.node_id,
        instance_id=body.instance_id,
        build_id=body.build_id,
        started_at_ms=body.started_at,
        uptime_ms=_count(body.uptime_ms, "uptime_ms"),
        is_draining=body.draining,
        is_leaving=body.leaving,
        not_ready=dict(body.not_ready),
        figures=_read_figures(body.figures),
        topics=tuple(_read_topic(topic) for topic in body.topics),
    )


# By field of FanoutFigures: the message in which it is, and its name there.
_SLOW: Final = ("throttle", "catch_up", "release", "disconnect")
_PLAIN: Final = (
    "connections", "subscriptions", "topics_live", "waiting_bytes", "connections_blocked", "write_stall_max_ms",
    "lag_frames_max", "frames_appended", "deliveries", "heals", "records_forged", "evictions",
)  # fmt: skip


def _read_figures(body: m.FanoutFigures) -> FanoutFigures:
    plain = {name: _count(getattr(body, name), f"figures.{name}") for name in _PLAIN}
    slow = {
        name: _count(getattr(body.slow_consumers, name), f"figures.slow_consumers.{name}") for name in _SLOW
    }
    return FanoutFigures(
        **plain,
        **slow,
        judged=_count(body.fairness.judged, "figures.fairness.judged"),
        fairness_sum=_measure(body.fairness.sum, "figures.fairness.sum"),
        fairness_squares=_measure(body.fairness.sum_of_squares, "figures.fairness.sum_of_squares"),
    )


def _read_topic(body: m.NodeTopic) -> TopicReport:
    try:
        parsed = parse_topic(body.topic)
    except TopicInvalid:
        raise _invalid("topics.topic", "a topic") from None
    return TopicReport(
        topic=parsed.name,
        topic_class=parsed.topic_class.name,
        head_seq=_count(body.head_seq, "topics.head_seq", most=SEQ_MAX),
        subscribers=_count(body.subscribers, "topics.subscribers"),
        replaying=_count(body.replaying, "topics.replaying"),
        frames_per_s=_measure(body.frames_per_s, "topics.frames_per_s"),
        lag_frames_max=_count(body.lag_frames_max, "topics.lag_frames_max", most=SEQ_MAX),
    )


def _count(value: int, field: str, *, most: int = _COUNT_MAX) -> int:
    if not 0 <= value <= most:
        raise _invalid(field, f"0..{most}")
    return value


def _measure(value: float, field: str) -> float:
    if not isfinite(value) or value < 0:
        raise _invalid(field, "a finite number from 0 on")
    return value


def _invalid(field: str, problem: str) -> HttpProblem:
    return HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": field, "problem": problem})


def metrics_message(
    registry: NodeRegistry, *, topic_limit: int, window_s: int, generated_at_ms: int, now: float
) -> m.FanoutMetricsResponse:
    """Return what operators are answered."""
    return m.FanoutMetricsResponse(
        generated_at=generated_at_ms,
        topic_limit=topic_limit,
        nodes=[_node(standing) for standing in registry.standings(now)],
        totals=_totals(registry.totals(now)),
        topics=[_topic(standing) for standing in registry.topics(topic_limit, now)],
        trend=_trend(registry.trend(window_s, now)),
    )


def _node(standing: NodeStanding) -> m.NodeStanding:
    report = standing.report
    return m.NodeStanding(
        node_id=report.node_id,
        instance_id=report.instance_id,
        build_id=report.build_id,
        started_at=report.started_at_ms,
        report_age_ms=round(standing.age_s * 1000),
        silent=standing.is_silent,
        ready=report.is_ready,
        draining=report.is_draining,
        not_ready=report.not_ready,
        figures=_figures(report.figures),
    )


def _totals(totals: FanoutTotals) -> m.FanoutTotals:
    return m.FanoutTotals(
        nodes=totals.nodes,
        nodes_ready=totals.nodes_ready,
        nodes_draining=totals.nodes_draining,
        nodes_silent=totals.nodes_silent,
        figures=_figures(totals.figures),
    )


def _figures(figures: FanoutFigures) -> m.FanoutFigures:
    return m.FanoutFigures(
        **{name: getattr(figures, name) for name in _PLAIN},
        slow_consumers=m.SlowConsumerActions(**{name: getattr(figures, name) for name in _SLOW}),
        fairness=m.Fairness(
            index=figures.fairness,
            judged=figures.judged,
            sum=figures.fairness_sum,
            sum_of_squares=figures.fairness_squares,
        ),
    )


def _topic(standing: TopicStanding) -> m.TopicStanding:
    return m.TopicStanding(
        topic=standing.topic,
        topic_class=standing.topic_class,
        nodes=standing.nodes,
        subscribers=standing.subscribers,
        replaying=standing.replaying,
        head_seq=standing.head_seq,
        frames_per_s=standing.frames_per_s,
        lag_frames_max=standing.lag_frames_max,
        rate_rank=standing.rate_rank,
        lag_rank=standing.lag_rank,
    )


def _trend(trend: FanoutTrend) -> m.FanoutTrend:
    return m.FanoutTrend(
        window_s=trend.window_s,
        covered_s=trend.covered_s,
        fairness=trend.fairness,
        fairness_min=trend.fairness_min,
        before=_changes(trend.before),
        after=_changes(trend.after),
    )


def _changes(changes: FanoutChanges) -> m.FanoutChanges:
    return m.FanoutChanges(
        throttle=changes.throttle,
        catch_up=changes.catch_up,
        release=changes.release,
        disconnect=changes.disconnect,
        evictions=changes.evictions,
    )
