"""What a NATS session does with a server that is none, or not the one that was asked for: real sockets."""

from __future__ import annotations

import datetime
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fanout_drivers.nats_connection import NatsHandler, open_nats_session
from fanout_drivers.nats_login import NatsLogin
from khala.adapters.embedded_nats import HOST, open_embedded_nats
from khala.adapters.embedded_nats_config import NatsServerTls
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.errors import Unavailable
from khala_service.identifiers import SystemClock
from khala_service.logs import configure_logging
from khala_service.secret import Secret
from tests.integration.drivers.rig import free_port, login_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0
PASSWORD = "hunter2-hunter2"
LOGIN = NatsLogin("khala-test", "khala", Secret(PASSWORD))
DEAF = NatsHandler(message=lambda *_: None)


@asynccontextmanager
async def open_stranger(words: bytes) -> AsyncIterator[tuple[int, bytearray]]:
    """Listen as somebody who says these words to everybody; yields the port, and what is said to him."""
    heard = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(words)
            with trio.move_on_after(0.2):
                while part := await stream.receive_some(4096):
                    heard.extend(part)
        except trio.BrokenResourceError:
            return

    with trio.fail_after(DEADLINE_S):
        async with open_asyncio_loop(), trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host=HOST))
            yield listener.socket.getsockname()[1], heard
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-ERR 'maximum connections exceeded'\r\n",
        b"INFOrmation\r\n",
        b"INFO []\r\n",
        b"INFO {not json}\r\n",
        b'INFO {"max_payload": "much"}\r\nPONG\r\n',
        b'INFO {"max_payload": -1}\r\nPONG\r\n',
        b"INFO {}\r\n-ERR\r\n",
        b"INFO {}\r\n",
        b"x" * 200_000,
        b"\xff\x00" * 20 + b"\r\n",
        b"",
    ],
    ids=lambda words: repr(words[:24]),
)
async def test_what_is_no_nats_server_is_no_connection(
    words: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is said on the port: no connection, to be tried again; never a crash, never a traceback."""
    configure_logging("test")
    async with open_stranger(words) as (port, _):
        with pytest.raises(Unavailable, match=r"^broker_"):
            async with open_nats_session(f"nats://{HOST}:{port}", LOGIN, DEAF):
                raise AssertionError("it was opened")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("tls", ["", ', "tls_available": true'])
async def test_nothing_is_said_in_clear_to_a_server_asked_for_by_tls(tls: str) -> None:
    """The server offers no TLS, or lets us choose: no connection, and the password was not sent."""
    words = f'INFO {{"server_id": "x", "max_payload": 1048576{tls}}}\r\nPONG\r\n'.encode()
    async with open_stranger(words) as (port, heard):
        with pytest.raises(Unavailable, match="broker_without_tls"):
            async with open_nats_session(f"tls://{HOST}:{port}", LOGIN, DEAF):
                raise AssertionError("it was opened")
        assert PASSWORD.encode() not in heard


async def test_a_server_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server that requires TLS, by a certificate that the system trusts: it is used; otherwise not."""
    certificate, key = make_certificate(tmp_path)
    tls = NatsServerTls(cert=certificate, key=key)
    port = free_port()
    with trio.fail_after(DEADLINE_S):
        async with open_asyncio_loop(), open_embedded_nats(tmp_path, port, tls=tls) as server:
            login = login_of(server.command, "node")
            with pytest.raises(Unavailable, match=r"^broker_certificate_refused"):
                async with open_nats_session(f"tls://{HOST}:{port}", login, DEAF):
                    raise AssertionError("a stranger's certificate was trusted")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with open_nats_session(f"tls://{HOST}:{port}", login, DEAF) as session:
                await session.settle(["khalatest.v1.x"], lambda _: True)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for HOST that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "khala-test")])
    now = datetime.datetime.fromtimestamp(SystemClock().now(), datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files
