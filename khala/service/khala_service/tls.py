"""The certificate of a listener: checked at the start, read again on SIGHUP, never half replaced.

One ``ssl.SSLContext`` lives as long as its listener. Reading again puts the new certificate into it, so that
new connections get it and those that are open go on with the old one. A pair that does not fit is found
in a context of its own first, and changes nothing.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import attrs

from khala_service.config import ConfigRefused
from khala_service.reloading import reloadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "CA_DESCRIPTION",
    "CERT_DESCRIPTION",
    "HANDSHAKE_TIMEOUT_S",
    "KEY_DESCRIPTION",
    "ServerTls",
    "TlsFiles",
    "check_tls_fields",
    "open_tls",
    "trust",
]

# As long as a client has for its first message; a certificate costs two round trips.
HANDSHAKE_TIMEOUT_S: Final = 5.0
CERT_DESCRIPTION: Final = (
    "PEM file with the certificate of the listener and those that lead to its authority; none: in clear. "
    "SIGHUP reads it again."
)
KEY_DESCRIPTION: Final = "PEM file with its private key, without a pass phrase."
CA_DESCRIPTION: Final = "PEM file of the authority that signs the other services; none: the public ones."
ALPN: Final = ("http/1.1",)


@attrs.frozen
class TlsFiles:
    """What a listener's configuration names.

    Attributes:
        section: Of the configuration, for errors.
        cert: PEM file: the certificate, then those that lead to its authority.
        key: PEM file of its private key, without a pass phrase.
    """

    section: str
    cert: Path
    key: Path

    @classmethod
    def of(cls, section: str, cert: Path | None, key: Path | None) -> Self | None:
        """Return the files, None for a listener in clear."""
        return None if cert is None or key is None else cls(section, cert, key)


@attrs.frozen
class ServerTls:
    """A listener's side of TLS; made by `open_tls`.

    Attributes:
        files: Where the certificate comes from.
        context: For handshakes; the same object for the life of the listener.
    """

    files: TlsFiles
    context: ssl.SSLContext

    def reload(self) -> None:
        """Use what the two files hold now, from the next handshake on.

        Raises:
            ConfigRefused: They cannot be read or do not belong together; nothing has changed.
        """
        _load(_new_context(), self.files)
        _load(self.context, self.files)


def check_tls_fields(cert: Path | None, key: Path | None) -> None:
    """Refuse one without the other. Raises ValueError, for ``__attrs_post_init__``."""
    if (cert is None) != (key is None):
        raise ValueError("tls_cert and tls_key are given together, or neither is")


def trust(section: str, ca: Path | None, *, also_public: bool = False) -> ssl.SSLContext | bool:
    """Return how a service judges its peers' certificates: by this authority alone, or the public ones.

    Args:
        section: Of the configuration that names the file.
        ca: PEM file of the authority.
        also_public: Believe the public authorities besides it.

    Raises:
        ConfigRefused: The file holds no certificate.
    """
    if ca is None:
        return True
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except OSError as error:
        raise ConfigRefused((f"{section}.tls_ca: {ca}: no certificate in PEM",)) from error
    if also_public:
        context.load_default_certs()
    return context


@contextmanager
def open_tls(files: TlsFiles | None) -> Iterator[ServerTls | None]:
    """Make the TLS side of a listener, None if it speaks in clear.

    While inside the block the files are read again on request.

    Raises:
        ConfigRefused: The files cannot be read or do not belong together.
    """
    if files is None:
        yield None
        return
    tls = ServerTls(files, _new_context())
    _load(tls.context, files)
    with reloadable(f"{files.section}.tls_cert", tls.reload):
        yield tls


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that renegotiates makes the server work for nothing.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(ALPN))
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        # The empty pass phrase: without it OpenSSL would ask the terminal for one.
        context.load_cert_chain(files.cert, files.key, password="")
    except OSError as error:  # ssl.SSLError among them
        cause = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigRefused(
            (
                f"{files.section}.tls_cert: {files.cert} with {files.key}: no certificate with its private key "
                f"({cause or type(error).__name__})",
            )
        ) from error
