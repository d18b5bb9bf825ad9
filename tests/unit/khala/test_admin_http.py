"""The admin port: probes for everybody, failpoints for operators of a node in mode dev."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
import pytest

from khala.adapters.admin_http import make_admin_app
from khala_service import failpoints
from khala_service.metrics import MetricsRegistry
from khala_service.secret import Secret
from tests.unit.khala.test_configuration import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quart.typing import TestClientProtocol

    from khala.adapters.configuration import NodeConfig

TOKEN = "an-admin-token-of-a-test"
ROUTE = "/internal/v1/failpoints"
BEARER = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def _no_points_stay_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


def client_of(config: NodeConfig) -> TestClientProtocol:
    """Return a client of a node's admin port."""
    return make_admin_app(config, metrics=MetricsRegistry("node"), ready_checks={}).test_client()


def config_of(*, mode: Literal["production", "dev"] = "dev", has_token: bool = True) -> NodeConfig:
    """Return a configuration."""
    return attrs.evolve(load(), mode=mode, admin_token=Secret(TOKEN) if has_token else None)


async def test_points_are_armed() -> None:
    """An operator of a node in mode dev arms points, and is told what was hit."""
    client = client_of(config_of())
    answer = await client.post(ROUTE, data='{"arm": "node.topic=raise@3"}', headers=BEARER)
    assert answer.status_code == 200
    assert failpoints.is_armed("node.topic")
    failpoints.hit("node.topic")
    answer = await client.post(ROUTE, data='{"arm": ""}', headers=BEARER)
    assert (await answer.get_json())["hits"] == {"node.topic": 1}


@pytest.mark.parametrize(("mode", "has_token"), [("production", True), ("dev", False)])
async def test_elsewhere_there_is_no_such_route(mode: Literal["production", "dev"], has_token: bool) -> None:
    """ARC-14: in production, or without an admin token, the route does not exist."""
    client = client_of(config_of(mode=mode, has_token=has_token))
    answer = await client.post(ROUTE, data='{"arm": "node.topic=raise"}', headers=BEARER)
    assert answer.status_code == 404
    assert not failpoints.is_armed("node.topic")


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer another-token-of-a-test", TOKEN])
async def test_operators_only(authorization: str) -> None:
    """A missing and a wrong token look the same, and arm nothing."""
    headers = {**BEARER, "Authorization": authorization}
    answer = await client_of(config_of()).post(ROUTE, data='{"arm": "node.topic=raise"}', headers=headers)
    assert answer.status_code == 401
    assert not failpoints.is_armed("node.topic")


@pytest.mark.parametrize("body", ["", "[]", '{"arm": 1}', '{"arm": "x", "b": 1}', '{"arm": "nowhere=kill"}'])
async def test_wrong_bodies(body: str) -> None:
    """What is no specification is refused as the client's fault."""
    answer = await client_of(config_of()).post(ROUTE, data=body, headers=BEARER)
    assert answer.status_code == 400


async def test_probes_need_no_token() -> None:
    """Health, readiness and metrics are for probers."""
    client = client_of(config_of(mode="production", has_token=False))
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.get(path)).status_code == 200
