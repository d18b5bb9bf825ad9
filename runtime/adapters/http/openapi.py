"""The runtime's routes in words, for /openapi.json. tests/contract/test_openapi.py: every route is here."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from khala_contracts import http_messages as m
from khala_service.admin_routes import FAILPOINTS_ROUTE
from khala_service.http_bodies import JSON
from khala_service.openapi import FAILPOINTS, Access, Described
from runtime.adapters.http.stream_framing import NDJSON, PROTOBUF_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROUTES", "TITLE"]

TITLE: Final = "Khala runtime"
_PAGE: Final = {
    "after_seq": "Position after which the page starts; 0 from the beginning.",
    "limit": "Most events.",
}
_TOKEN: Final = {"page_token": "Of the previous page; absent for the first.", "limit": "Most runs."}

ROUTES: Final[Mapping[tuple[str, str], Described]] = MappingProxyType({
    ("POST", "/v1/runs"): Described(
        "Make a running run.", Access.BEARER, m.CreateRunResponse, m.CreateRunRequest, status=201, has_key=True
    ),
    ("GET", "/v1/runs"): Described("List runs, newest first.", Access.BEARER, m.ListRunsResponse, query=_TOKEN),
    ("GET", "/v1/runs/<run_id>"): Described("Read a run.", Access.BEARER, m.GetRunResponse),
    ("POST", "/v1/runs/<run_id>/events"): Described(
        "Append events: a batch as one decision, or a stream with a key per event and an ack per chunk.",
        Access.BEARER, m.AppendEventsResponse, m.AppendEventsRequest, streams=(NDJSON, PROTOBUF_STREAM), has_key=True,
    ),
    ("GET", "/v1/runs/<run_id>/events"): Described(
        "Read a page of a run's history.", Access.BEARER, m.ListEventsResponse, query=_PAGE
    ),
    ("POST", "/v1/runs/<run_id>/transitions"): Described(
        "Move a run to another state.", Access.BEARER, m.TransitionRunResponse, m.TransitionRunRequest, has_key=True
    ),
    ("POST", "/v1/runs/<run_id>/transfer"): Described(
        "Give a run to another member of its org.",
        Access.BEARER, m.TransferRunResponse, m.TransferRunRequest, has_key=True,
    ),
    ("POST", "/v1/app-topics/<org_id>/<name>/events"): Described(
        "Append events to an app topic, as one decision.",
        Access.BEARER, m.AppendEventsResponse, m.AppendEventsRequest, has_key=True,
    ),
    ("GET", "/v1/app-topics/<org_id>/<name>/events"): Described(
        "Read a page of an app topic's history.", Access.BEARER, m.ListEventsResponse, query=_PAGE
    ),
    ("GET", "/v1/topics/<topic>"): Described("Read where a topic stands.", Access.BEARER, m.TopicInfo),
    ("POST", "/internal/v1/topics/owners"): Described(
        "Read who owns topics.", Access.SERVICE, m.TopicOwnersResponse, m.TopicOwnersRequest
    ),
    ("GET", "/internal/v1/khala/topics/<topic>/messages"): Described(
        "Read a page of a topic's journal as nodes replay it.", Access.ADMIN, m.TopicMessagesResponse,
        also=Access.SERVICE, query={**_PAGE, "lineage": "Of the position.", "chain": "Of the position, hexadecimal."},
    ),
    ("GET", "/internal/v1/projections/drift"): Described(
        "Compare a page of the read model of runs with a fold of their events.",
        Access.ADMIN, m.ProjectionDriftResponse, also=Access.SERVICE, query=_TOKEN,
    ),
    ("POST", "/internal/v1/projections/rebuild"): Described(
        "Build a page of the read model of runs again.",
        Access.ADMIN, m.RebuildProjectionsResponse, also=Access.SERVICE, query=_TOKEN,
    ),
    ("POST", "/internal/v1/nodes/<node_id>"): Described(
        "Report how a node does.", Access.SERVICE, m.NodeReportAck, m.NodeReport
    ),
    ("GET", "/internal/v1/khala/fanout/metrics"): Described(
        "Read how fan-out does over all nodes; fields: nodes.proto.", Access.ADMIN, m.FanoutMetricsResponse,
        also=Access.SERVICE,
        query={
            "topic_limit": "Most topics, from 1 on; above 100 taken for 100. Default 20.",
            "window_s": "Seconds that the trend looks back, 10..3600. Default 600.",
        },
    ),
    ("POST", FAILPOINTS_ROUTE): FAILPOINTS,
    ("GET", "/internal/v1/explain"): Described(
        "Say what became of an event.", Access.ADMIN, media=(JSON,),
        query={"topic": "Its topic.", "seq": "Its position."},
    ),
})  # fmt: skip
