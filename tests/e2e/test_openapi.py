"""Every service says what it has, also behind one origin, and refuses in the form that it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.e2e.wire import open_api

if TYPE_CHECKING:
    import httpx

    from tests.e2e.system import System

pytestmark = pytest.mark.slow

Document = dict[str, Any]


def judge(document: Document, schema: Document) -> OAS31Validator:
    """Return what judges instances of a schema of the document, which may refer to others."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    name = schema["$ref"].partition("#")[2]
    return OAS31Validator(
        {"$ref": f"urn:served#{name}"}, registry=Registry().with_resource("urn:served", resource)
    )


def refusal_schema(document: Document) -> Document:
    """Return the schema of a refusal."""
    schema: Document = document["components"]["responses"]["error"]["content"]["application/json"]["schema"]
    return schema


async def test_every_service_says_what_it_has(system: System) -> None:
    """SPEC section 4: OpenAPI 3.1 at each service; answers and refusals are what it says."""
    ready = system.ready
    async with open_api(system) as api:

        async def fetch(url: str) -> httpx.Response:
            return await api.http.get(url, headers={"Accept": "application/json"})

        documents: dict[str, Document] = {}
        for name in ("control_url", "runtime_url", "admin_url"):
            answer = await fetch(f"{ready[name]}/openapi.json")
            assert answer.status_code == 200, answer.text
            documents[name] = answer.json()
            OpenAPIV31SpecValidator(documents[name]).validate()
            refused = await fetch(f"{ready[name]}/no/such/path")
            assert refused.status_code == 404
            judge(documents[name], refusal_schema(documents[name])).validate(refused.json())
        assert (await fetch(f"{ready['origin']}/api/openapi.json")).json() == documents["control_url"]
        assert (await fetch(f"{ready['origin']}/v1/openapi.json")).json() == documents["runtime_url"]
        ann = await api.sign_in("ann")
        await api.create_run(ann)
        for name, path in (
            ("control_url", "/api/auth/session"),
            ("control_url", "/api/orgs"),
            ("control_url", "/api/compat"),
            ("runtime_url", "/v1/runs"),
        ):
            operation = documents[name]["paths"][path]["get"]
            answer = await api.get(ready[name] + path, ann.access_token)
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            judge(documents[name], schema).validate(answer.json())
            unsigned = await api.get(ready[name] + path)
            assert (unsigned.status_code == 401) is bool(operation["security"])
