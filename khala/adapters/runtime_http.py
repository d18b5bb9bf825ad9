"""Gives the node's reports to the runtime over HTTP, under the node's service credential."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from khala.actors.node_reporter import ReportRefusedError
from khala_contracts import http_messages as m
from khala_contracts.fairness import jain_index
from khala_service.adapters.http_client import open_service_client
from khala_service.errors import PeerRefused, Unavailable
from khala_service.logs import get_logger
from khala_service.metrics import read_version
from khala_service.readiness import OK, Degraded

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from khala.actors.node_reporter import FanoutReport
    from khala.core.counters import NodeCounters
    from khala.core.fanout_figures import FairnessSums, TopicFigures
    from khala.ports import Clock, Ids
    from khala_service.adapters.http_client import ServiceHttpClient
    from khala_service.readiness import Readiness
    from khala_service.secret import Secret

__all__ = ["HttpNodeReports", "failing_checks", "open_node_reports", "report_message"]

ROUTE: Final = "/internal/v1/nodes/"

_log = get_logger(__name__)


class HttpNodeReports:
    """NodeReports over the runtime's internal route."""

    def __init__(
        self,
        client: ServiceHttpClient,
        *,
        node_id: str,
        instance_id: str,
        build_id: str,
        started_at_ms: int,
    ) -> None:
        """Report as ``node_id``; the rest says which process of which software it is."""
        self._client = client
        self._identity = m.NodeReport(
            node_id=node_id, instance_id=instance_id, build_id=build_id, started_at=started_at_ms
        )
        self._trouble = ""

    async def send(self, report: FanoutReport) -> None:
        """Give a report; see NodeReports."""
        message = report_message(self._identity, report)
        try:
            await self._client.post(ROUTE + quote(message.node_id, safe=""), message, m.NodeReportAck)
        except Unavailable as exc:
            self._note(exc.reason)
            raise ReportRefusedError("unavailable") from exc
        except PeerRefused as exc:
            self._note(exc.code)
            raise ReportRefusedError("refused") from exc
        self._note("")

    def _note(self, trouble: str) -> None:
        """Log when it changes, not each time."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            _log.warning("node_reports_not_taken", reason=trouble)
        else:
            _log.info("node_reports_taken")


@asynccontextmanager
async def open_node_reports(
    runtime_url: str,
    *,
    credential: Secret,
    verify: ssl.SSLContext | bool,
    node_id: str,
    ids: Ids,
    clock: Clock,
) -> AsyncIterator[HttpNodeReports | None]:
    """Open the way to the runtime for the process that runs now; None without a ``runtime_url``."""
    if not runtime_url:
        yield None
        return
    async with open_service_client(
        runtime_url, peer="runtime", credential=credential, verify=verify
    ) as client:
        yield HttpNodeReports(
            client,
            node_id=node_id,
            instance_id=ids.new("nod"),
            build_id=read_version(),
            started_at_ms=round(clock.now() * 1000),
        )


async def failing_checks(readiness: Readiness) -> dict[str, str]:
    """Return the checks that keep the node from being ready, with their word."""
    answers = (await readiness.report()).checks
    return {
        name: str(word) for name, word in answers.items() if word != OK and not isinstance(word, Degraded)
    }


def report_message(identity: m.NodeReport, report: FanoutReport) -> m.NodeReport:
    """Return a report as its message."""
    message = m.NodeReport(
        draining=report.status.is_draining,
        leaving=report.status.is_leaving,
        not_ready=report.status.not_ready,
        uptime_ms=round(report.uptime_s * 1000),
        figures=_figures(report.counters, report.fairness),
        topics=[_topic(row) for row in report.topics],
    )
    message.MergeFrom(identity)
    return message


def _figures(counters: NodeCounters, fairness: FairnessSums) -> m.FanoutFigures:
    delivery, slow = counters.delivery, counters.slow_consumer_actions
    return m.FanoutFigures(
        connections=counters.connections_open,
        subscriptions=counters.subscriptions_open,
        topics_live=counters.topics_live,
        waiting_bytes=delivery.outbound_bytes,
        connections_blocked=delivery.connections_blocked,
        write_stall_max_ms=round(delivery.write_stall_max_s * 1000),
        lag_frames_max=max((row.live_lag_frames_max for row in delivery.by_class.values()), default=0),
        frames_appended=counters.frames_appended,
        deliveries=counters.deliveries,
        heals=counters.heals,
        records_forged=counters.records_forged,
        evictions=sum(counters.evictions.values()),
        slow_consumers=m.SlowConsumerActions(
            throttle=slow["throttle"],
            catch_up=slow["catch_up"],
            release=slow["release"],
            disconnect=slow["disconnect"],
        ),
        fairness=m.Fairness(
            index=jain_index(fairness.judged, fairness.total, fairness.squares),
            judged=fairness.judged,
            sum=fairness.total,
            sum_of_squares=fairness.squares,
        ),
    )


def _topic(row: TopicFigures) -> m.NodeTopic:
    return m.NodeTopic(
        topic=row.topic,
        topic_class=row.topic_class,
        head_seq=row.head_seq,
        subscribers=row.subscribers,
        replaying=row.replaying,
        frames_per_s=row.frames_per_s,
        lag_frames_max=row.lag_frames_max,
    )
