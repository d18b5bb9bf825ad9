"""``khala up`` behind its one port: everything is reached there, and SEC-07 at the sockets of a whole system."""

from __future__ import annotations

import base64
import json
import secrets
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from khala_contracts.codec import FramesMessage, ReplayComplete, Subscribed
from tests.e2e.system import System, running_system, wait_until
from tests.e2e.wire import Api, follow, open_api, open_wire, thought

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "https://app.example"
WS_PATH = "/sync/v1/ws"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system that lets one more page in."""
    folder = tmp_path_factory.mktemp("origin")
    config = folder / "khala.toml"
    lists = f'cors_origins = ["{PAGE}"]\n'
    config.write_text("".join(f"[{section}]\n{lists}" for section in ("control", "runtime", "node")))
    with running_system(folder, KHALA_CONFIG=str(config)) as started:
        yield started


def _base(system: System) -> tuple[str, int]:
    url = urlsplit(system.ready["origin"])
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


def _upgrade(address: tuple[str, int], *headers: str) -> str:
    """Return the status line that answers an upgrade request, by a socket that knows nothing of WebSockets."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    lines = (
        f"GET {WS_PATH} HTTP/1.1", f"Host: {address[0]}:{address[1]}", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Protocol: khala.v1", *headers, "", "",
    )  # fmt: skip
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return connection.makefile("rb").readline().decode().strip()


def _node(system: System) -> tuple[str, int]:
    url = urlsplit(system.ready["sync_url"])
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


def _denied(system: System) -> float:
    text = httpx.get(f"{system.ready['admin_url']}/metrics", trust_env=False).text
    name = 'khala_node_handshakes_rejected_total{status="403"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


async def test_everything_is_reached_at_one_port(system: System) -> None:
    """The page, control, the runtime, and a WebSocket that streams: one host and port from sign-in to frame."""
    origin = system.ready["origin"]
    assert origin == f"http://127.0.0.1:{system.port_base}"
    async with open_api(system) as apart:
        api = Api(apart.http, origin, origin)
        assert (await api.get("/")).headers["Content-Type"].startswith("text/html")
        ann = await api.sign_in("ann")
        topic = await api.create_run(ann)
        await api.append(ann, topic, *(thought(number) for number in range(100)))
        token = await api.mint(ann, topic)
        behind_one_port = System(
            system.folder, ready={"sync_url": f"ws://127.0.0.1:{system.port_base}{WS_PATH}"}
        )
        async with open_wire(behind_one_port) as wire:
            await wire.greet(token, ann.device_id)
            await wire.send(follow(topic))
            head = await wire.expect(Subscribed)
            seqs: list[int] = []
            while True:
                message = await wire.receive()
                if isinstance(message, ReplayComplete):
                    break
                assert isinstance(message, FramesMessage), message
                seqs += [frame.seq for frame in message.frames]
            assert seqs == list(range(1, 102))
            assert head.head_seq == 101
            await api.append(ann, topic, thought("live"))
            assert [frame.seq for frame in (await wire.expect(FramesMessage)).frames] == [102]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.com",
        "https://evil-app.example",
        "null",
        "https://APP.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "https://app.example:8443",
        "http://app.example",
        "https://app.example/",
        "http://127.0.0.1",
        "http://localhost:1",
        "",
    ],
)
def test_a_page_of_another_origin_gets_no_socket(system: System, origin: str) -> None:
    """SEC-07: 403 before any 101, at the node as at the one origin, and each is counted."""
    before = _denied(system)
    for address in (_node(system), _base(system)):
        assert _upgrade(address, f"Origin: {origin}") == "HTTP/1.1 403 Forbidden"
    assert _denied(system) == before + 2


def test_two_origins_are_none(system: System) -> None:
    """A listed one beside another does not help."""
    assert _upgrade(_node(system), f"Origin: {PAGE}", "Origin: https://evil.example").split()[1] == "403"


def test_listed_origins_and_clients_without_one_get_a_socket(system: System) -> None:
    """SEC-07: the one origin by both of its names, what the configuration adds, and native clients."""
    port = system.port_base
    for origin in (PAGE, f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        for address in (_node(system), _base(system)):
            assert _upgrade(address, f"Origin: {origin}") == "HTTP/1.1 101 Switching Protocols"
    assert _upgrade(_base(system)) == "HTTP/1.1 101 Switching Protocols"


def test_origin_denied_is_in_the_audit_log(system: System) -> None:
    """SEC-07: who asked is unknown, that somebody did is not."""
    assert _upgrade(_base(system), "Origin: https://evil.example").split()[1] == "403"
    token = (system.data_dir / "secrets" / "admin_token").read_text().strip()

    def is_written() -> bool:
        answer = httpx.get(
            f"{system.ready['control_url']}/internal/v1/audit",
            params={"limit": "500"},
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        return any("origin_denied" in row["reason"] for row in answer.json()["rows"])

    wait_until(is_written, timeout_s=30, what="origin_denied in the audit log")


@pytest.mark.parametrize(("path", "credentials"), [("/api/compat", "true"), ("/v1/runs", None)])
def test_pages_of_listed_origins_may_call(system: System, path: str, credentials: str | None) -> None:
    """CORS of control with credentials, of the runtime without; strangers are told nothing."""
    with httpx.Client(base_url=system.ready["origin"], trust_env=False) as http:
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        for method, more in (("OPTIONS", asked), ("GET", {})):
            told = http.request(method, path, headers={"Origin": PAGE, **more}).headers
            assert told["Access-Control-Allow-Origin"] == PAGE
            assert told.get("Access-Control-Allow-Credentials") == credentials
            strange = http.request(method, path, headers={"Origin": "https://evil.example", **more}).headers
            assert "Access-Control-Allow-Origin" not in strange


def test_a_spoofed_address_is_not_in_the_log(system: System) -> None:
    """Control believes the origin, and the origin nobody: what a client says of itself goes nowhere."""
    spoofed = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Request-Id": "spoofed-address"}
    assert httpx.get(f"{system.ready['origin']}/api/compat", headers=spoofed, trust_env=False).is_success
    assert _upgrade(_base(system), "X-Forwarded-For: 6.6.6.6").split()[1] == "101"

    def lines() -> list[dict[str, object]]:
        text = (system.data_dir / "logs" / "khala.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def is_logged() -> bool:
        ours = [line for line in lines() if line.get("request_id") == "spoofed-address"]
        return any(line["event"] == "request" and line["client"] == "127.0.0.1" for line in ours)

    wait_until(is_logged, timeout_s=20, what="the request in the log")
    wait_until(
        lambda: any(
            line["event"] == "connection_closed" and line["client"] == "127.0.0.1" for line in lines()
        ),
        timeout_s=20,
        what="the socket in the log",
    )
    assert "6.6.6.6" not in (system.data_dir / "logs" / "khala.log").read_text()


@pytest.mark.parametrize(
    "path", ["/internal/v1/revocations", "/metrics", "/%69nternal/v1/revocations", "//metrics", "/%2Fmetrics"]
)
def test_what_is_between_services_is_not_behind_the_one_port(system: System, path: str) -> None:
    """404, though control has both."""
    assert httpx.get(system.ready["control_url"] + path, trust_env=False).status_code != 404
    assert httpx.get(system.ready["origin"] + path, trust_env=False).status_code == 404


@pytest.mark.slow
def test_a_dead_node_costs_its_sockets_and_nobody_a_place(tmp_path: Path) -> None:
    """Two nodes, one killed: every new socket is served; the runtime killed: 503 with a time, then it is back."""
    with running_system(tmp_path, split=True, nodes=2) as system:
        origin, base = system.ready["origin"], _base(system)
        assert [_upgrade(base).split()[1] for _ in range(4)] == ["101"] * 4
        system.kill("node-1")
        assert [_upgrade(base).split()[1] for _ in range(6)] == ["101"] * 6
        system.kill("runtime")
        answer = httpx.get(f"{origin}/v1/runs", trust_env=False)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["code"] == "unavailable"
        assert httpx.get(f"{origin}/api/compat", trust_env=False).is_success

        def is_back() -> bool:
            return httpx.get(f"{origin}/v1/runs", trust_env=False).status_code == 401

        wait_until(is_back, timeout_s=60, what="the runtime behind the origin")
