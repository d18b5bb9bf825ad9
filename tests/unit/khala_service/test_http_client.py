"""One service calling another: the real edge on the other side, and peers that misbehave."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_service.adapters.http_client import (
    ANSWER_MAX_BYTES,
    ServiceHttpClient,
    open_service_client,
)
from khala_service.errors import PeerRefused, Unavailable
from khala_service.request_context import set_request_id
from khala_service.secret import Secret
from tests.unit.khala_service.http_app import make_edge


@pytest.fixture
async def client() -> AsyncIterator[ServiceHttpClient]:
    """A client of the test application, in memory."""
    transport = httpx.ASGITransport(app=make_edge().app)  # type: ignore[arg-type]  # its own event types
    async with open_service_client("http://peer", peer="control", transport=transport) as made:
        yield made


async def test_messages_travel_both_ways(client: ServiceHttpClient) -> None:
    """Binary out, binary back."""
    answer = await client.post("/v1/echo/dev_1", m.DevSignInRequest(login="ann"), m.DevSignInRequest)
    assert (answer.login, answer.device_id) == ("ann", "dev_1")


async def test_the_request_id_goes_along(client: ServiceHttpClient) -> None:
    """CT-08: one id through all services."""
    set_request_id("r-17")
    assert (await client.get("/v1/id", m.DevSignInRequest)).login == "r-17"


async def test_a_refusal_keeps_its_code(client: ServiceHttpClient) -> None:
    """The peer's decision is not ours to retry."""
    with pytest.raises(PeerRefused) as caught:
        await client.get("/nowhere", m.DevSignInRequest)
    refused = caught.value
    assert (refused.peer, refused.code, refused.http_status) == ("control", "not_found", 404)


@pytest.mark.parametrize(
    ("how", "reason", "retry_after_s", "outcome_unknown"),
    [
        ("unavailable", "control_unavailable", 0.25, True),
        ("problem", "control_rate_limited", 1.001, False),
    ],
)
async def test_trouble_of_the_peer(
    client: ServiceHttpClient, how: str, reason: str, retry_after_s: float, outcome_unknown: bool
) -> None:
    """Trouble carries the peer's own retry time, and whether it knows what it did."""
    with pytest.raises(Unavailable) as caught:
        await client.get(f"/v1/fail/{how}", m.DevSignInRequest)
    assert caught.value.reason == reason
    assert caught.value.retry_after_s == pytest.approx(retry_after_s)
    assert caught.value.outcome_unknown == outcome_unknown


Handler = Callable[[httpx.Request], httpx.Response]


async def _ask(handler: Handler, credential: Secret | None = None) -> m.DevSignInRequest:
    async with open_service_client(
        "http://peer", peer="runtime", credential=credential, transport=httpx.MockTransport(handler)
    ) as client:
        return await client.post("/x", m.DevSignInRequest(login="a"), m.DevSignInRequest)


async def test_what_is_sent() -> None:
    """The service credential, the form of the body; nothing in the URL."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=codec.encode_message(m.DevSignInRequest(login="b")))

    assert (await _ask(answer, Secret("khs_x"))).login == "b"
    (request,) = seen
    assert request.headers["Authorization"] == "Bearer khs_x"
    assert request.headers["Content-Type"] == "application/x-protobuf"
    assert str(request.url) == "http://peer/x"
    await _ask(answer)
    assert "Authorization" not in seen[1].headers


def _raising(error: type[httpx.TransportError]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error("canary", request=request)

    return handler


def _answering(status: int, content: bytes) -> Handler:
    return lambda _request: httpx.Response(status, content=content)


@pytest.mark.parametrize(
    ("handler", "reason", "outcome_unknown"),
    [
        (_raising(httpx.ConnectError), "runtime_unreachable", False),
        (_raising(httpx.ConnectTimeout), "runtime_unreachable", False),
        (_raising(httpx.PoolTimeout), "runtime_unreachable", False),
        (_raising(httpx.ReadTimeout), "runtime_timeout", True),
        (_raising(httpx.ReadError), "runtime_connection_lost", True),
        (_raising(httpx.RemoteProtocolError), "runtime_connection_lost", True),
        (_answering(200, b"\x0a\xff"), "runtime_answer_unusable", True),
        (_answering(200, b"\x00" * (ANSWER_MAX_BYTES + 1)), "runtime_answer_unusable", True),
        (_answering(404, b"<html>"), "runtime_answer_unusable", True),
        (_answering(302, b""), "runtime_answer_unusable", True),
        (_answering(502, b"<html>"), "runtime_unavailable", True),
    ],
)
async def test_peers_that_misbehave(handler: Handler, reason: str, outcome_unknown: bool) -> None:
    """Every ending becomes Unavailable; unknown unless the request certainly was not read."""
    with pytest.raises(Unavailable) as caught:
        await _ask(handler)
    assert caught.value.reason == reason
    assert caught.value.outcome_unknown == outcome_unknown
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (lambda _request: httpx.Response(200), ""),
        (lambda _request: httpx.Response(503), "runtime_unhealthy"),
        (lambda _request: httpx.Response(302, headers={"Location": "/"}), "runtime_unhealthy"),
    ],
)
async def test_ping(handler: Handler, reason: str) -> None:
    """A peer is alive if it says so itself."""
    async with open_service_client(
        "http://peer", peer="runtime", transport=httpx.MockTransport(handler)
    ) as client:
        if not reason:
            await client.ping()
            return
        with pytest.raises(Unavailable, match=reason):
            await client.ping()


async def test_ping_of_nobody() -> None:
    """A peer that is not there is unreachable, and nothing about it is unknown."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with open_service_client(
        "http://peer", peer="runtime", transport=httpx.MockTransport(refuse)
    ) as client:
        with pytest.raises(Unavailable, match="runtime_unreachable") as caught:
            await client.ping()
    assert not caught.value.outcome_unknown
