"""What each WebSocket adapter makes of an upgrade request: whose it is, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
import trio

from khala.adapters.websocket_adapters import WebSocketAdapter
from khala.adapters.websocket_sansio import SansIoPeer
from khala.adapters.websocket_trio import TrioWebSocketPeer
from khala_service.client_address import TrustedProxies
from tests.actors.khala.simulated_transport import SimulatedTransport

if TYPE_CHECKING:
    from khala.core.origin_policy import UpgradeRequest

PROXY, CLIENT = "10.0.0.2", "203.0.113.7"


both_adapters = pytest.mark.parametrize("adapter", get_args(WebSocketAdapter))


async def _request(
    adapter: WebSocketAdapter, *headers: str, proxies: tuple[str, ...] = (), peer: str = PROXY
) -> UpgradeRequest:
    transport = SimulatedTransport(remote_address=peer)
    lines = (
        "GET /sync/v1/ws HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: khala.v1, khala.v1.json", *headers, "", "",
    )  # fmt: skip
    transport.feed("\r\n".join(lines).encode())
    trusted = TrustedProxies.of(proxies)
    if adapter == "websockets":
        return await SansIoPeer(
            transport, lambda _: None, message_max_bytes=1000, proxies=trusted
        ).receive_request()
    async with trio.open_nursery() as tasks:
        second = TrioWebSocketPeer(
            transport, lambda _: None, tasks.start_soon, message_max_bytes=1000, proxies=trusted
        )
        request = await second.receive_request()
        tasks.cancel_scope.cancel()
    return request


@both_adapters
@pytest.mark.parametrize(
    ("proxies", "said", "address"),
    [
        ((), (), PROXY),
        ((), (CLIENT,), PROXY),
        (("192.0.2.0/24",), (CLIENT,), PROXY),
        (("10.0.0.0/8",), (CLIENT,), CLIENT),
        (("10.0.0.0/8",), ("6.6.6.6", CLIENT), CLIENT),
        (("10.0.0.0/8",), (f"6.6.6.6, {CLIENT}",), CLIENT),
    ],
)
async def test_a_client_is_believed_only_through_a_proxy_of_ours(
    adapter: WebSocketAdapter, proxies: tuple[str, ...], said: tuple[str, ...], address: str
) -> None:
    """The transport's address, or what proxies that were named say of it."""
    request = await _request(adapter, *(f"X-Forwarded-For: {value}" for value in said), proxies=proxies)
    assert request.client_address == address


@both_adapters
@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ((), None),
        (("Origin: https://app.example",), "https://app.example"),
        (("Origin:",), ""),
        (
            ("Origin: https://app.example", "Origin: https://evil.example"),
            "https://app.example, https://evil.example",
        ),
    ],
)
async def test_the_origin_is_what_was_sent(
    adapter: WebSocketAdapter, headers: tuple[str, ...], origin: str | None
) -> None:
    """An empty one is one, and two are not the first of them: neither passes for a client without one."""
    assert (await _request(adapter, *headers)).origin == origin


@both_adapters
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ((), ""),
        (("trace-1.x_Y",), "trace-1.x_Y"),
        (("a" * 128,), "a" * 128),
        (("a" * 129,), ""),
        (("",), ""),
        (("a b",), ""),
        (("a", "b"), ""),
    ],
)
async def test_a_request_id_of_the_form_that_http_takes_over(
    adapter: WebSocketAdapter, given: tuple[str, ...], taken: str
) -> None:
    """It names what is audited of the connection; another form could be used to write into the log."""
    assert (await _request(adapter, *(f"X-Request-Id: {text}" for text in given))).request_id == taken
