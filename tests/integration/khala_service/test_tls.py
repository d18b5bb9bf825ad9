"""A listener's certificate: at the start, replaced while it serves, refused when it is none."""

from __future__ import annotations

import shutil
import ssl
import stat
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from chaos.authority import Authority, serial_of
from khala_service.config import ConfigRefused
from khala_service.http_edge import make_app, serve
from khala_service.metrics import MetricsRegistry
from khala_service.reloading import reload_all
from khala_service.tls import TlsFiles, check_tls_fields, open_tls, trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority."""
    return Authority.make(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def _serving(files: TlsFiles) -> AsyncIterator[int]:
    app = make_app("t", metrics=MetricsRegistry("t", process_metrics=False), ready_checks={})
    async with trio.open_nursery() as nursery:
        run = partial(serve, app, host="127.0.0.1", port=0, shutdown=trio.Event(), tls=files)
        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def _shown(port: int, context: ssl.SSLContext) -> tuple[int, str | None]:
    """Return the serial number and the TLS version that a new connection gets."""
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
    async with stream:
        await stream.do_handshake()
        return serial_of(stream.getpeercert(binary_form=True)), stream.version()


def _installed(authority: Authority, folder: Path, name: str) -> tuple[TlsFiles, int]:
    """Put a certificate where the listener looks for it, as an operator would."""
    cert, key, serial = authority.certify(name)
    shutil.copy(cert, folder / "tls.pem")
    shutil.copy(key, folder / "tls.key")
    return TlsFiles("control", folder / "tls.pem", folder / "tls.key"), serial


async def test_https_is_served_and_a_new_certificate_taken(authority: Authority, tmp_path: Path) -> None:
    """Requests under way go on with the old one; new connections get the new one after the request."""
    files, old = _installed(authority, tmp_path, "old")
    context = authority.client_context()
    async with _serving(files) as port:
        url = f"https://127.0.0.1:{port}/healthz"
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            assert (await client.get(url)).status_code == 200
            assert await _shown(port, context) == (old, "TLSv1.3")
            _, new = _installed(authority, tmp_path, "new")
            assert (await _shown(port, context))[0] == old, "nothing changes unasked"
            assert reload_all()
            assert (await _shown(port, context))[0] == new
            assert (await client.get(url)).status_code == 200, "the open connection lives"


async def test_a_key_of_another_certificate_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    """What was in force stays, for as long as nobody mends the files."""
    files, old = _installed(authority, tmp_path, "first")
    other_cert, _, _ = authority.certify("second")
    context = authority.client_context()
    async with _serving(files) as port:
        # As an operator does who copies one file and forgets the other: OpenSSL would drop the key it has.
        shutil.copy(other_cert, files.cert)
        assert not reload_all()
        assert (await _shown(port, context))[0] == old


async def test_clear_text_and_old_versions_are_refused(authority: Authority, tmp_path: Path) -> None:
    """TLS 1.1 gets no handshake, HTTP in clear no answer; others are served afterwards."""
    files, serial = _installed(authority, tmp_path, "strict")
    context = authority.client_context()
    old = authority.client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with _serving(files) as port:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.HTTPError):
                await client.get(f"http://127.0.0.1:{port}/healthz")
        assert await _shown(port, old) == (serial, "TLSv1.2")
        assert (await _shown(port, context))[0] == serial


async def test_a_client_without_the_authority_does_not_trust_us(authority: Authority, tmp_path: Path) -> None:
    """The certificate is judged: by `tls_ca`, or else by the public authorities."""
    files, _ = _installed(authority, tmp_path, "private")
    async with _serving(files) as port:
        url = f"https://127.0.0.1:{port}/healthz"
        async with httpx.AsyncClient(trust_env=False, verify=trust("node", None)) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
        async with httpx.AsyncClient(trust_env=False, verify=trust("node", authority.ca)) as client:
            assert (await client.get(url)).status_code == 200


def test_what_is_no_certificate_is_refused_at_the_start(authority: Authority, tmp_path: Path) -> None:
    """One line that names the section and both files; never the contents."""
    cert, key, _ = authority.certify("good")
    missing, wrong = tmp_path / "none.pem", tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    for pair in ((missing, key), (cert, missing), (wrong, key), (cert, wrong), (cert, authority.ca)):
        with pytest.raises(ConfigRefused) as refused, open_tls(TlsFiles("node", *pair)):
            pass
        (line,) = refused.value.errors
        assert line.startswith("node.tls_cert: ")
        assert str(pair[1]) in line
        assert "BEGIN" not in line
    with pytest.raises(ConfigRefused, match=r"node\.tls_ca"):
        trust("node", wrong)


def test_an_encrypted_key_is_refused_without_asking(authority: Authority, tmp_path: Path) -> None:
    """A service that asked the terminal for a pass phrase would hang in a deployment."""
    from cryptography.hazmat.primitives import serialization

    cert, key, _ = authority.certify("locked")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    locked.chmod(stat.S_IRUSR)
    with pytest.raises(ConfigRefused), open_tls(TlsFiles("node", cert, locked)):
        pass


def test_one_file_without_the_other_is_refused(tmp_path: Path) -> None:
    """Half a configuration is a mistake, not a listener in clear."""
    check_tls_fields(None, None)
    check_tls_fields(tmp_path, tmp_path)
    for pair in ((tmp_path, None), (None, tmp_path)):
        with pytest.raises(ValueError, match="together"):
            check_tls_fields(*pair)
