"""OpenAPI: tables and routes agree, documents are valid, and their schemas are what the wire really has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from google.protobuf import struct_pb2
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import control.adapters.http.openapi as control_table
import runtime.adapters.http.openapi as runtime_table
from control.adapters.http.application import Commands, make_control_app
from khala.adapters import admin_http as node_table
from khala.adapters.admin_http import make_admin_app
from khala.adapters.explain_http import add_explain_route
from khala_contracts import http_messages as m
from khala_contracts import reason_codes, strict_json
from khala_contracts.errors import WireError
from khala_service.admin_routes import AdminToken, add_failpoint_route
from khala_service.http_edge import EdgePolicy
from khala_service.http_problems import HttpProblem, error_message
from khala_service.metrics import MetricsRegistry
from khala_service.openapi import COMMON_ROUTES, Access, Described, make_document
from khala_service.openapi_schemas import describe_messages
from khala_service.secret import Secret
from khala_service.service_auth import ServiceCredentials
from runtime.adapters.http.application import make_runtime_app
from runtime.core.limits import RuntimeLimits
from tests.contract.fixture_files import load, message_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart_trio import QuartTrio

Document = dict[str, Any]
ADMIN = AdminToken(Secret("t" * 32))
# What no route touches before it is called.
NOTHING = cast("Any", None)


class NoKeys:
    """A ring of nothing; the route of public keys encodes it at once."""

    def public_jwks(self) -> dict[str, object]:
        return {"keys": []}


def registry() -> MetricsRegistry:
    """Return metrics that nobody reads."""
    return MetricsRegistry("test", process_metrics=False)


def control_app() -> QuartTrio:
    """Return control with all its routes."""
    return make_control_app(
        Commands(*(NOTHING,) * 6),
        ring=cast("Any", NoKeys()),
        compat=m.CompatResponse(),
        nodes=ServiceCredentials({}),
        runtimes=ServiceCredentials({}),
        admin=ADMIN,
        metrics=registry(),
        ready_checks={},
        flow=cast("Any", object()),
        issuer=cast("Any", object()),
        origin="http://localhost:8470",
        clock=NOTHING,
        edge=EdgePolicy(),
    )


def runtime_app(*, admin: AdminToken | None = ADMIN) -> QuartTrio:
    """Return a runtime with all its routes."""
    return make_runtime_app(
        resolver=NOTHING,
        commands=NOTHING,
        transfers=NOTHING,
        app_topics=NOTHING,
        reads=NOTHING,
        controls=ServiceCredentials({}),
        limits=RuntimeLimits(),
        ids=NOTHING,
        repair=NOTHING,
        explainer=NOTHING,
        admin=admin,
        has_failpoints=True,
        draining=trio.Event(),
        metrics=registry(),
        ready_checks={},
        edge=EdgePolicy(),
        limit_audit=NOTHING,
        nodes=ServiceCredentials({}),
        registry=NOTHING,
        clock=NOTHING,
    )


def node_app() -> QuartTrio:
    """Return the admin port of a node with all its routes."""

    class Config:
        admin_token = None
        mode = "prod"

    app = make_admin_app(cast("Any", Config()), metrics=registry(), ready_checks={})
    add_failpoint_route(app, ADMIN)
    add_explain_route(app, ADMIN, node_id="nod_1", topics=NOTHING, clock=NOTHING)
    return app


SERVICES = {
    "control": (control_app, control_table.ROUTES, "/api"),
    "runtime": (runtime_app, runtime_table.ROUTES, "/v1"),
    "node": (node_app, node_table.ROUTES, ""),
}


def routes_of(app: QuartTrio) -> set[tuple[str, str]]:
    """Return every route of an application; HEAD and OPTIONS come with them."""
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & methods
    }


async def served(app: QuartTrio, path: str = "/openapi.json") -> Document:
    """Return the document that an application serves."""
    response = await app.test_client().get(path)
    assert (response.status_code, response.content_type) == (200, "application/json")
    document: Document = json.loads(await response.get_data())
    return document


def schema_of(document: Document, name: str) -> OAS31Validator:
    """Return what judges instances of a schema of the document."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    return OAS31Validator(
        {"$ref": f"urn:document#/components/schemas/{name}"},
        registry=Registry().with_resource("urn:document", resource),
    )


@pytest.mark.parametrize("name", SERVICES)
def test_every_route_is_described_and_nothing_else(name: str) -> None:
    """SPEC section 4: one table a service; a route without its line, or a line without its route, fails here."""
    make, table, prefix = SERVICES[name]
    common = {key for key in COMMON_ROUTES if key[1].count("/openapi.json") == 0}
    openapi = {("GET", "/openapi.json"), ("GET", f"{prefix}/openapi.json")}
    assert routes_of(make()) == set(table) | common | openapi
    assert not set(table) & set(COMMON_ROUTES)


@pytest.mark.parametrize("name", SERVICES)
async def test_what_is_served_is_valid(name: str) -> None:
    """OpenAPI 3.1; the same document behind one origin; every operation has an id of its own."""
    make, table, prefix = SERVICES[name]
    app = make()
    document = await served(app)
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert await served(app, f"{prefix}/openapi.json") == document
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(routes_of(app))
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"].endswith(".") for operation in operations)
    for (method, rule), described in table.items():
        path = rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
        operation = document["paths"][path][method.lower()]
        assert bool(operation["security"]) is (described.access is not Access.PUBLIC)
        assert ("requestBody" in operation) is (described.body is not None)


async def test_only_what_exists_is_served() -> None:
    """A runtime without operators says nothing of their routes."""
    document = await served(runtime_app(admin=None))
    assert "/internal/v1/explain" not in document["paths"]
    assert "/v1/runs" in document["paths"]


@pytest.mark.parametrize("fixture", ["runtime-orchestration-v1.json", "control-auth-session-v1.json"])
def test_bodies_of_the_wire_fit_their_schemas(fixture: str) -> None:
    """Every golden body, as a body that we write; what is left out of it is missed."""
    for body in cast("list[Document]", load(fixture)["bodies"]):
        message = message_classes()[body["message"]]
        schemas = describe_messages(read=(), written=[message])
        judge = schema_of({"components": {"schemas": schemas}}, body["message"])
        judge.validate(body["body"])
        # What the printer always writes, also of an empty message.
        for required in strict_json.message_to_mapping(message()):
            partial = {key: value for key, value in body["body"].items() if key != required}
            assert not judge.is_valid(partial), (body["name"], required)


@pytest.mark.parametrize(
    ("message", "body", "is_valid"),
    [
        (m.AppendEventsRequest, {"events": [{"kind": "thought", "data": {"text": "a"}}]}, True),
        (m.AppendEventsRequest, {"events": [{"kind": "thought", "payload_bytes": "CgFh"}]}, True),
        (m.AppendEventsRequest, {}, True),
        (m.AppendEventsRequest, {"expected_seq": "9007199254740993"}, True),
        (m.AppendEventsRequest, {"expected_seq": 5}, True),
        (m.AppendEventsRequest, {"expected_seq": "five"}, False),
        (m.AppendEventsRequest, {"expected_seq": 1.5}, False),
        (m.AppendEventsRequest, {"events": [{"kind": "a", "data": {}, "payload_bytes": ""}]}, False),
        (m.AppendEventsRequest, {"events": [{"kind": None}]}, False),
        (m.AppendEventsRequest, {"event": []}, False),
        (m.TransitionRunRequest, {"to_state": "RUN_STATE_PAUSED", "exit_status": -1}, True),
        (m.TransitionRunRequest, {"to_state": "paused"}, False),
        (m.TransitionRunRequest, {"exit_status": 2**31}, False),
        (m.CreateRunRequest, {"attributes": {"a": "b"}}, True),
        (m.CreateRunRequest, {"attributes": {"a": 1}}, False),
        (struct_pb2.Struct, {"anything": [None]}, True),
    ],
)
def test_what_we_read_is_what_the_schema_takes(
    message: Any, body: Mapping[str, object], is_valid: bool
) -> None:
    """The schema and the strict JSON mapping give one answer."""
    schemas = describe_messages(read=[message], written=())
    if schemas:
        judge = schema_of({"components": {"schemas": schemas}}, message.DESCRIPTOR.full_name)
        assert judge.is_valid(body) is is_valid
    try:
        strict_json.parse_strict(json.dumps(body), message)
    except WireError:
        assert not is_valid
    else:
        assert is_valid


@pytest.mark.parametrize(
    "reason", [row for row in reason_codes.REGISTRY.values() if row.http_status], ids=lambda r: r.name
)
def test_every_refusal_fits_the_error_schema(reason: reason_codes.ReasonCode) -> None:
    """SPEC section 4: one form of error, whatever the code."""
    document = make_document("test", {("GET", "/a"): Described("A.", Access.PUBLIC)})
    judge = schema_of(document, "openagents.sync.v1.Error")
    problem = HttpProblem(reason, {"field": "events[1].kind"}, retry_after_ms=5)
    body = strict_json.message_to_mapping(error_message(problem))
    judge.validate(body)
    assert {"code", "message", "retryable", "retry_after_ms", "docs", "details", "request_id"} <= body.keys()
    assert not judge.is_valid({**body, "retryable": "no"})
