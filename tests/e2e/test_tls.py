"""A deployment whose listeners speak TLS, by a private authority: services among themselves, clients, SIGHUP."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from chaos.authority import Authority, serial_of
from khala.cli.up_ports import UpPorts
from tests.e2e.service_processes import SERVICES, Deployment, clean_environment, deployment, json_lines
from tests.e2e.system import KHALA, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.postgres_cluster import PostgresTestCluster

pytestmark = pytest.mark.slow


@attrs.define
class _TlsDeployment:
    """A deployment and its certificates."""

    made: Deployment
    authority: Authority
    cert: Path
    key: Path

    def install(self, name: str) -> int:
        """Put a new certificate in place and return its serial number."""
        cert, key, serial = self.authority.certify(name)
        shutil.copy(cert, self.cert)
        shutil.copy(key, self.key)
        return serial

    def shown(self, port: int) -> int:
        """Return the serial number that a new connection sees."""
        context = self.authority.client_context()
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
        ):
            return serial_of(wrapped.getpeercert(binary_form=True))

    def is_ready(self, port: int, scheme: str) -> bool:
        """Return whether a service says that it is ready."""
        context = self.authority.client_context()
        try:
            url = f"{scheme}://127.0.0.1:{port}/readyz"
            return httpx.get(url, trust_env=False, timeout=3, verify=context).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture(scope="module")
def tls(
    postgres_cluster: PostgresTestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_TlsDeployment]:
    """Three running services that speak TLS with each other and with clients."""
    folder = tmp_path_factory.mktemp("tls")
    ports = UpPorts.free()
    numbers = {
        "control": ports.control, "runtime": ports.runtime, "node": ports.node(), "admin": ports.admin(),
    }  # fmt: skip
    authority = Authority.make(folder)
    cert, key = folder / "listener.pem", folder / "listener.key"
    files: Mapping[str, object] = {"tls_cert": str(cert), "tls_key": str(key), "tls_ca": str(authority.ca)}
    with (
        postgres_cluster.database("control", "runtime") as database,
        deployment(tmp_path_factory.mktemp("deployed"), database.dsns, numbers) as made,
    ):
        system = _TlsDeployment(made, authority, cert, key)
        system.install("first")
        made.write_config(
            control={**files, "runtime_url": f"https://127.0.0.1:{ports.runtime}"},
            runtime={**files, "control_url": f"https://127.0.0.1:{ports.control}"},
            node={
                **files,
                "control_url": f"https://127.0.0.1:{ports.control}",
                "limits": {"hello_timeout_s": 1.5},
            },
        )
        for service in SERVICES:
            made.start(service)
        for service, scheme in (("control", "https"), ("runtime", "https"), ("admin", "http")):
            wait_until(
                lambda s=service, scheme=scheme: system.is_ready(numbers[s], scheme),
                timeout_s=30,
                what=f"{service} ready",
            )
        yield system


def test_a_websocket_over_tls(tls: _TlsDeployment) -> None:
    """The node is ready (so it spoke TLS with control), and shakes hands over wss; in clear it says nothing."""
    port = tls.made.ports["node"]
    context = tls.authority.client_context()
    with connect(
        f"wss://127.0.0.1:{port}/sync/v1/ws",
        ssl=context,
        subprotocols=[Subprotocol("khala.v1.json")],
        proxy=None,
    ) as opened:
        opened.send('{"hello":{"token":"no token","deviceId":"dev_x"}}')
        assert "error" in str(opened.recv(timeout=10))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as in_clear:
        in_clear.sendall(b"GET /sync/v1/ws HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = in_clear.recv(100)
    # At most an alert of TLS: its record type is 21.
    assert answer == b"" or answer[0] == 21


def test_sighup_replaces_every_certificate_and_ends_nothing(tls: _TlsDeployment) -> None:
    """New connections see the new one, the processes live, and a broken pair changes nothing and is logged."""
    listeners = [tls.made.ports[name] for name in SERVICES]
    second = tls.install("second")
    for process in tls.made.processes:
        process.send_signal(signal.SIGHUP)
    for port in listeners:
        wait_until(lambda p=port: tls.shown(p) == second, timeout_s=10, what="the new certificate")
    tls.key.write_text("no key")
    for process in tls.made.processes:
        process.send_signal(signal.SIGHUP)
    for service in SERVICES:
        wait_until(
            lambda s=service: any(
                line["event"] == "reload_refused" and line["part"] == f"{s}.tls_cert"
                for line in json_lines(tls.made.log_of(s))
            ),
            timeout_s=10,
            what="the refusal",
        )
    assert [tls.shown(port) for port in listeners] == [second] * 3
    assert [process.poll() for process in tls.made.processes] == [None] * 3
    tls.install("third")


def test_a_client_that_never_shakes_hands_is_dropped(tls: _TlsDeployment) -> None:
    """The hello deadline covers the handshake; others are served meanwhile."""
    port = tls.made.ports["node"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
        assert tls.shown(port) > 0
        assert idle.recv(1) == b""


def test_a_service_without_its_certificate_does_not_start(tls: _TlsDeployment, tmp_path: Path) -> None:
    """Exit status 78 and one line that names the key of the configuration."""
    made = tls.made
    sections = {"tls_cert": str(tmp_path / "none.pem"), "tls_key": str(tls.key), "port": 0}
    before = (made.folder / "khala.toml").read_text()
    made.write_config(node={**sections, "admin_port": 0})
    try:
        process = made.start("node")
        assert process.wait(20) == 78
        assert "node.tls_cert: " in made.log_of("node")
    finally:
        (made.folder / "khala.toml").write_text(before)


def test_commands_trust_the_authority_that_they_are_told(tls: _TlsDeployment) -> None:
    """SSL_CERT_FILE names it, as for every program; without it nobody is believed, and nothing is sent."""
    urls = {
        "KHALA_CONTROL_URL": f"https://127.0.0.1:{tls.made.ports['control']}",
        "KHALA_RUNTIME_URL": f"https://127.0.0.1:{tls.made.ports['runtime']}",
        "KHALA_SYNC_URL": f"wss://127.0.0.1:{tls.made.ports['node']}/sync/v1/ws",
        "KHALA_KEY": "khk_" + "0" * 26 + "_" + "0" * 52,
    }
    said = {}
    for trusted in ({}, {"SSL_CERT_FILE": str(tls.authority.ca)}):
        done = subprocess.run(
            [*KHALA, "runs"],
            env=clean_environment(**urls, **trusted),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        said[bool(trusted)] = done.stderr
    assert "certificate" in said[False], said
    assert "unauthenticated" in said[True], said
