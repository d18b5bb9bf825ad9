"""Operators' routes: who gets in, and the one that arms failpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khala_service import failpoints
from khala_service.admin_routes import (
    ADMIN_TOKEN_MIN_BYTES,
    FAILPOINTS_ROUTE,
    AdminToken,
    add_failpoint_route,
    check_admin_token,
)
from khala_service.secret import Secret
from tests.unit.khala_service.http_app import make_edge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quart.typing import TestClientProtocol

TOKEN = "t" * ADMIN_TOKEN_MIN_BYTES
POINT = "runtime.committed"


@pytest.fixture
def client() -> Iterator[TestClientProtocol]:
    """A client of an application with the route."""
    edge = make_edge()
    add_failpoint_route(edge.app, AdminToken(Secret(TOKEN)))
    yield edge.app.test_client()
    failpoints.disarm()


async def test_arming(client: TestClientProtocol) -> None:
    """The answer says what is armed now and what was passed so far."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = await client.post(FAILPOINTS_ROUTE, json={"arm": f"{POINT}=raise@2"}, headers=headers)
    assert (answer.status_code, await answer.get_json()) == (200, {"armed": f"{POINT}=raise@2", "hits": {}})
    failpoints.hit(POINT)
    answer = await client.post(FAILPOINTS_ROUTE, json={"arm": ""}, headers=headers)
    assert await answer.get_json() == {"armed": "", "hits": {POINT: 1}}
    assert failpoints.is_armed(POINT)


@pytest.mark.parametrize("header", [None, "", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é"])
async def test_strangers(client: TestClientProtocol, header: str | None) -> None:
    """Missing and wrong tokens look the same, before the body is looked at."""
    headers = {} if header is None else {"Authorization": header}
    answer = await client.post(FAILPOINTS_ROUTE, data=b"{", headers=headers)
    assert answer.status_code == 401
    assert (await answer.get_json())["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_message"),
        (b"[]", 400, "malformed_message"),
        (b"{}", 400, "malformed_message"),
        (b'{"arm": 1}', 400, "malformed_message"),
        (b'{"arm": "", "arm": ""}', 400, "malformed_message"),
        (b'{"arm": "", "disarm": true}', 400, "malformed_message"),
        (b'{"arm": "x=kill"}', 400, "invalid_argument"),
        (b'{"arm": "' + b"x" * 20_000 + b'"}', 413, "payload_too_large"),
    ],
)
async def test_wrong_bodies(client: TestClientProtocol, body: bytes, status: int, code: str) -> None:
    """Exactly one specification; nothing is armed by anything else."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = await client.post(FAILPOINTS_ROUTE, data=body, headers=headers)
    assert (answer.status_code, (await answer.get_json())["code"]) == (status, code)
    assert not any(map(failpoints.is_armed, failpoints.FAILPOINTS))


def test_the_length_of_the_token() -> None:
    """A token of ADMIN_TOKEN_MIN_BYTES is one; a shorter or an empty one would open to everybody."""
    check_admin_token(None)
    check_admin_token(Secret(TOKEN))
    for short in (TOKEN[:-1], ""):
        with pytest.raises(ValueError, match=r"^admin_token: expected at least 16 bytes$"):
            check_admin_token(Secret(short))
