"""How a process proves itself to a NATS server, and how it judges the server, as section ``fanout`` says.

Everything is read and judged once, before the first connection: what cannot be right is refused with its key.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import attrs

from fanout_drivers.nats_credentials import NatsKey
from fanout_drivers.opening import SECTION
from khala_service.config import ConfigRefused

if TYPE_CHECKING:
    from fanout_drivers.opening import DriverContext, FanoutConfig
    from khala_service.secret import Secret

__all__ = ["NatsLogin"]


@attrs.frozen
class NatsLogin:
    """Who connects.

    Attributes:
        client_name: What the server's operator sees.
        user: With a password; empty: none.
        password: Of that user.
        key: Instead of user and password.
        tls: For servers that are named ``tls://``; None: the authorities that the system trusts.
    """

    client_name: str
    user: str = ""
    password: Secret | None = None
    key: NatsKey | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def read(cls, context: DriverContext) -> Self:
        """Return the login of a configuration.

        Raises:
            ConfigRefused: with every key that cannot be right; no secret is quoted.
        """
        config = context.config
        errors = [
            f"{SECTION}.nats_servers: number {number} is not nats://host:port or tls://host:port without user"
            for number, server in enumerate(config.nats_servers, start=1)
            if not _is_server(server)
        ]
        if not config.nats_servers:
            errors.append(f"{SECTION}.nats_servers: name at least one server")
        if bool(config.nats_user) != (config.nats_password is not None):
            errors.append(f"{SECTION}.nats_user and nats_password: give both or neither")
        key = tls = None
        if config.nats_credentials is not None:
            if config.nats_user or config.nats_password is not None:
                errors.append(f"{SECTION}.nats_credentials: give them, or user and password, not both")
            try:
                key = NatsKey.parse(config.nats_credentials)
            except ValueError as error:
                errors.append(f"{SECTION}.nats_credentials: {error}")
        try:
            tls = _trust(config)
        except ValueError as error:
            errors.append(f"{SECTION}.{error}")
        if errors:
            raise ConfigRefused(tuple(errors))
        return cls(f"khala-{context.component}", config.nats_user, config.nats_password, key, tls)


def _trust(config: FanoutConfig) -> ssl.SSLContext | None:
    """Return what the files of a configuration make of TLS.

    Raises:
        ValueError: A file cannot be used; the message begins with its key.
    """
    files = (config.nats_tls_ca, config.nats_tls_cert, config.nats_tls_key)
    if (config.nats_tls_cert is None) != (config.nats_tls_key is None):
        raise ValueError("nats_tls_cert and nats_tls_key: give both or neither")
    if not any(files):
        return None
    if not all(urlsplit(server).scheme == "tls" for server in config.nats_servers):
        raise ValueError("nats_servers: with files for TLS each is tls://, or it would be spoken to in clear")
    try:
        context = ssl.create_default_context(cafile=str(config.nats_tls_ca) if config.nats_tls_ca else None)
    except OSError as error:
        raise ValueError(f"nats_tls_ca: {config.nats_tls_ca}: no certificate in PEM") from error
    if config.nats_tls_cert is not None:
        try:
            # An empty pass phrase, or a key that has one would ask for it at the terminal.
            context.load_cert_chain(config.nats_tls_cert, config.nats_tls_key, password="")
        except OSError as error:
            raise ValueError(
                f"nats_tls_cert: {config.nats_tls_cert} and {config.nats_tls_key} are no certificate and its key"
            ) from error
    return context


def _is_server(text: str) -> bool:
    """Whether this is the address of a server. A password in it would be shown with the configuration."""
    try:
        url = urlsplit(text)
        return url.scheme in {"nats", "tls"} and bool(url.hostname and url.port) and "@" not in url.netloc
    except ValueError:
        return False
