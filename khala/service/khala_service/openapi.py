"""``GET /openapi.json``: what a service answers, OpenAPI 3.1, made from the routes that it has.

Each service describes its routes in one table, next to them; the schemas of bodies come from the messages
themselves (openapi_schemas.py). Only routes that exist are in the document: those of operators and of the
development mode are there where they are. tests/contract/test_openapi.py holds table and routes together.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import TYPE_CHECKING, Final

import attrs
from google.protobuf.message import Message  # noqa: TC002  # attrs resolves it
from quart import Response

from khala_contracts import http_messages as m
from khala_service.http_bodies import JSON, PROTOBUF
from khala_service.openapi_schemas import describe_messages, descriptor_of, reference_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quart_trio import QuartTrio

__all__ = [
    "COMMON_ROUTES",
    "FAILPOINTS",
    "OPENAPI_ROUTE",
    "Access",
    "Described",
    "add_openapi_route",
    "make_document",
]

OPENAPI_ROUTE: Final = "/openapi.json"
# Of this document, not of the software: the stable paths are /v1 and /api.
_VERSION: Final = "1"
_PARAMETER: Final = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
_ERROR: Final = "error"


class Access(Enum):
    """What a caller presents; the values are names of security schemes."""

    PUBLIC = "public"
    BEARER = "bearer"
    SERVICE = "service_credential"
    ADMIN = "admin_token"


_SCHEMES: Final[dict[str, dict[str, str]]] = {
    Access.BEARER.value: {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token of a session, or a service key (khk_...).",
    },
    Access.SERVICE.value: {
        "type": "http",
        "scheme": "bearer",
        "description": "The credential by which one service of this system knows another.",
    },
    Access.ADMIN.value: {
        "type": "http",
        "scheme": "bearer",
        "description": "The operators' token.",
    },
}


@attrs.frozen
class Described:
    """One operation.

    Attributes:
        summary: What it does, in one line.
        access: What the caller presents.
        answer: The message that it answers with; None: no message of ours.
        body: The message that it takes; None: no body.
        media: What an answer that is no message may be, by media type.
        streams: Media types in which the body may be streamed, beside its whole forms.
        status: Status of a success.
        query: What each parameter of the query says.
        has_key: Whether it takes an Idempotency-Key.
        also: What the caller may present instead.
    """

    summary: str
    access: Access
    answer: type[Message] | None = None
    body: type[Message] | None = None
    media: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    status: int = 200
    query: Mapping[str, str] = attrs.field(factory=dict)
    has_key: bool = False
    also: Access | None = None


# (method, path as it is registered) -> what it is. Those of every service.
COMMON_ROUTES: Final[Mapping[tuple[str, str], Described]] = {
    ("GET", "/healthz"): Described("Whether the process is alive.", Access.PUBLIC, media=(JSON,)),
    ("GET", "/readyz"): Described("Whether it serves: each check and its word; 503 if not.", Access.PUBLIC, media=(JSON,)),
    ("GET", "/metrics"): Described("Metrics in the Prometheus text format.", Access.PUBLIC, media=("text/plain",)),
    ("GET", "/docs/codes"): Described("The reason codes.", Access.PUBLIC, media=("text/html",)),
    ("GET", "/docs/codes/<name>"): Described("What one reason code means and what to do.", Access.PUBLIC, media=("text/html",)),
    ("GET", OPENAPI_ROUTE): Described("This document.", Access.PUBLIC, media=(JSON,)),
    ("GET", "/v1" + OPENAPI_ROUTE): Described("This document, behind one origin.", Access.PUBLIC, media=(JSON,)),
    ("GET", "/api" + OPENAPI_ROUTE): Described("This document, behind one origin.", Access.PUBLIC, media=(JSON,)),
}  # fmt: skip
# Of services that have the route.
FAILPOINTS: Final = Described(
    "Arm places at which the process dies; mode dev only.", Access.ADMIN, media=(JSON,)
)


def add_openapi_route(
    app: QuartTrio, *, title: str, routes: Mapping[tuple[str, str], Described], prefix: str = ""
) -> None:
    """Register the route.

    Args:
        app: Gets it; every other route is registered already, or will be before the first request.
        title: Of the document.
        routes: The service's own table.
        prefix: Where the document is served as well, so that it is found behind one origin.
    """
    described = {**COMMON_ROUTES, **routes}

    async def show() -> Response:
        paths = ((method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ())
        document = make_document(title, {key: described[key] for key in paths if key in described})
        response = Response(json.dumps(document), content_type=JSON)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    for path in {"", prefix}:
        app.add_url_rule(path + OPENAPI_ROUTE, f"openapi{path}", show, methods=["GET"])


def make_document(title: str, routes: Mapping[tuple[str, str], Described]) -> dict[str, object]:
    """Return the document of these routes."""
    paths: dict[str, dict[str, object]] = {}
    for (method, rule), described in sorted(routes.items(), key=lambda item: (item[0][1], item[0][0])):
        path = _PARAMETER.sub(r"{\1}", rule)
        paths.setdefault(path, {})[method.lower()] = _operation(method, rule, described)
    bodies = [route.body for route in routes.values() if route.body is not None]
    answers = [route.answer for route in routes.values() if route.answer is not None]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": _VERSION,
            "description": "Bodies are protobuf messages, or the same in the strict JSON mapping: 64-bit integers are "
            "strings, bytes are base64, enums are names; unknown, repeated and null fields are refused.",
        },
        "paths": paths,
        "components": {
            "schemas": describe_messages(read=bodies, written=[*answers, m.Error]),
            "responses": {_ERROR: _error_response()},
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(method: str, rule: str, described: Described) -> dict[str, object]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(rule)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in described.query.items()
    ]
    if described.has_key:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same key and body get the original answer for 7 days.",
                "schema": {"type": "string"},
            }
        )
    operation: dict[str, object] = {
        "operationId": f"{method.lower()}{_PARAMETER.sub('by', rule).replace('/', '_')}",
        "summary": described.summary,
        "parameters": parameters,
        "responses": {
            str(described.status): _success(described),
            "default": {"$ref": f"#/components/responses/{_ERROR}"},
        },
        "security": [
            {access.value: []}
            for access in (described.access, described.also)
            if access not in (None, Access.PUBLIC)
        ],
    }
    if described.body is not None:
        content = _content(described.body)
        content.update({media: {} for media in described.streams})
        operation["requestBody"] = {"content": content}
    return operation


def _success(described: Described) -> dict[str, object]:
    response: dict[str, object] = {"description": "Done."}
    if described.status == 303:
        response["headers"] = {"Location": {"schema": {"type": "string"}}}
    content = {} if described.answer is None else _content(described.answer)
    content.update(_media(described.media))
    if described.answer is not None:
        content.update(_media(described.streams))
    if content:
        response["content"] = content
    return response


def _media(media_types: Iterable[str]) -> dict[str, dict[str, object]]:
    return {media: {"schema": {"type": "object"}} if media == JSON else {} for media in media_types}


def _content(message_cls: type[Message]) -> dict[str, dict[str, object]]:
    descriptor = descriptor_of(message_cls)
    return {
        JSON: {"schema": reference_to(descriptor)},
        PROTOBUF: {"x-protobuf-message": descriptor.full_name},
    }


def _error_response() -> dict[str, object]:
    return {"description": "Refused; `code` is a reason code.", "content": _content(m.Error)}
