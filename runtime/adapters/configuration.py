"""Configuration of the runtime: section `runtime`, variables `KHALA_RUNTIME_*`.

Nothing that is secret has a default. Limits are a table of their own: `[runtime.limits]`. Mode dev differs
in one way: failpoints are accepted, by configuration and by route.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # attrs resolves the types of fields at run time
from pathlib import Path  # noqa: TC003  # the same
from typing import Final, Literal

import attrs
from attrs.validators import ge, in_, le, matches_re

from khala_contracts.fanout_records import KEY_MIN_BYTES
from khala_contracts.topics import TOPIC_CLASSES
from khala_service import client_address, origins, tls
from khala_service.admin_routes import check_admin_token
from khala_service.config import Secret, described
from khala_service.failpoints import check_failpoint_settings
from khala_service.http_edge import EdgePolicy
from khala_service.service_auth import SERVICE_CREDENTIAL_PREFIX
from runtime.core.limits import RuntimeLimits
from runtime.core.rate_limit import rates_of

__all__ = ["DEFAULT_PORT", "SECTION", "RuntimeConfig"]

SECTION: Final = "runtime"
DEFAULT_PORT: Final = 8472
_URL: Final = r"https?://[^\s/?#@]+"


@attrs.frozen(kw_only=True)
class RuntimeConfig:
    """Everything that the runtime can be told."""

    database_dsn: Secret = attrs.field(metadata=described("URL of the database, role khala_runtime."))
    control_url: str = attrs.field(
        validator=matches_re(_URL), metadata=described("Base URL of control, without a path.")
    )
    service_credential: Secret = attrs.field(
        metadata=described("Credential (khs_...) that the runtime presents to control.")
    )
    control_credential: Secret = attrs.field(
        metadata=described("Credential (khs_...) that control presents to the runtime.")
    )
    node_credential: Secret | None = attrs.field(
        default=None,
        metadata=described(
            "Credential (khs_...) that nodes present to the runtime when they report; without it none is taken."
        ),
    )
    fanout_key: Secret = attrs.field(
        metadata=described("Key of the seal on records for nodes: at least 32 bytes, in hexadecimal.")
    )
    fanout_key_id: str = attrs.field(
        default="1", validator=matches_re(r"[a-z0-9-]{1,32}"), metadata=described("Id of that key.")
    )
    host: str = attrs.field(default="127.0.0.1", metadata=described("Address to listen on."))
    port: int = attrs.field(
        default=DEFAULT_PORT,
        validator=[ge(0), le(65535)],
        metadata=described("Port to listen on; 0 takes a free one."),
    )
    tls_cert: Path | None = attrs.field(default=None, metadata=described(tls.CERT_DESCRIPTION))
    tls_key: Path | None = attrs.field(default=None, metadata=described(tls.KEY_DESCRIPTION))
    tls_ca: Path | None = attrs.field(default=None, metadata=described(tls.CA_DESCRIPTION))
    cors_origins: tuple[str, ...] = attrs.field(default=(), metadata=described(origins.DESCRIPTION))
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), metadata=described(client_address.DESCRIPTION))
    drain_notice_s: float = attrs.field(
        default=1.0,
        validator=[ge(0), le(60)],
        metadata=described(
            "How long a service that was asked to end says so at /readyz before its port closes, seconds."
        ),
    )
    database_connections_max: int = attrs.field(
        default=10,
        validator=[ge(4), le(200)],
        metadata=described("Size of the connection pool; the two writers keep one each."),
    )
    database_statement_timeout_ms: int = attrs.field(
        default=5_000,
        validator=[ge(100), le(60_000)],
        metadata=described("Longest statement, milliseconds; the database cancels it."),
    )
    database_acquire_timeout_ms: int = attrs.field(
        default=5_000,
        validator=[ge(100), le(60_000)],
        metadata=described("Longest wait for a connection, milliseconds, connecting included."),
    )
    admin_token: Secret | None = attrs.field(
        default=None,
        metadata=described("Opens the operators' routes; without it there are none."),
    )
    mode: Literal["production", "dev"] = attrs.field(
        default="production",
        validator=in_(("production", "dev")),
        metadata=described("dev: failpoints are accepted."),
    )
    failpoints: str = attrs.field(
        default="",
        metadata=described("Points at which this process dies or fails, in mode dev only: name=kill@n,..."),
    )
    failpoint_file: Path | None = attrs.field(
        default=None, metadata=described("File that gets a line for each point that acted; mode dev only.")
    )
    publish_rate_per_s: Mapping[str, float] = attrs.field(
        factory=dict,
        metadata=described(
            "Events per second and topic, by topic class; 0 lifts a limit. Default: the registry."
        ),
    )
    limits: RuntimeLimits = attrs.field(factory=RuntimeLimits)

    def __attrs_post_init__(self) -> None:
        """Check what no single field can say. Raises ValueError naming the key."""
        try:
            rates_of(TOPIC_CLASSES, self.publish_rate_per_s)
        except ValueError as error:
            message = f"publish_rate_per_s: {error}"
            raise ValueError(message) from None
        for name in ("service_credential", "control_credential", "node_credential"):
            secret: Secret | None = getattr(self, name)
            if secret is not None and not secret.reveal().startswith(SERVICE_CREDENTIAL_PREFIX):
                message = f"{name}: does not start with {SERVICE_CREDENTIAL_PREFIX}"
                raise ValueError(message)
        if len(self.fanout_key_bytes()) < KEY_MIN_BYTES:
            message = f"fanout_key: expected at least {KEY_MIN_BYTES} bytes"
            raise ValueError(message)
        origins.check_origins(self.cors_origins)
        client_address.check_trusted_proxies(self.trusted_proxies)
        tls.check_tls_fields(self.tls_cert, self.tls_key)
        check_admin_token(self.admin_token)
        check_failpoint_settings(self.mode, self.failpoints, self.failpoint_file)

    @property
    def is_dev(self) -> bool:
        """Whether failpoints are accepted."""
        return self.mode == "dev"

    @property
    def edge(self) -> EdgePolicy:
        """Pages and proxies on the other side."""
        return EdgePolicy(
            cors_origins=self.cors_origins,
            proxies=client_address.TrustedProxies.of(self.trusted_proxies),
        )

    def fanout_key_bytes(self) -> bytes:
        """Return the key itself.

        Raises:
            ValueError: It is not hexadecimal.
        """
        try:
            return bytes.fromhex(self.fanout_key.reveal())
        except ValueError:
            message = "fanout_key: expected hexadecimal digits"
            raise ValueError(message) from None
