"""Configuration of the control service: section `control`, variables `KHALA_CONTROL_*`.

Nothing that is secret has a default, in no mode. Dev mode differs in three ways: the development
sign-in route exists, a missing key ring is made, and the service listens on loopback only, because in
that mode everybody who can connect can sign in as anybody.
"""

import ipaddress
from pathlib import Path
from typing import Final, Literal

import attrs
from attrs.validators import ge, in_, le, matches_re

from control.core import service_keys, sessions, sync_tokens
from control.core.access_tokens import LIFETIME_MAX_S
from control.core.limits import ControlLimits
from control.core.sessions import SessionLimits
from control.core.sync_tokens import SyncLimits
from khala_service import builds, client_address, origins, tls
from khala_service.admin_routes import check_admin_token
from khala_service.config import Secret, described
from khala_service.http_edge import EdgePolicy

SECTION: Final = "control"
DEFAULT_PORT: Final = 8471
_URL: Final = r"https?://[^\s/?#@]+"


@attrs.frozen(kw_only=True)
class ControlConfig:
    """Everything that control can be told."""

    database_dsn: Secret = attrs.field(metadata=described("URL of the database, role khala_control."))
    runtime_url: str = attrs.field(
        validator=matches_re(_URL), metadata=described("Base URL of the runtime, without a path.")
    )
    service_credential: Secret = attrs.field(
        metadata=described("Credential (khs_...) that control presents to the runtime.")
    )
    runtime_credential: Secret = attrs.field(
        metadata=described("Credential (khs_...) that the runtime presents to control.")
    )
    node_credential: Secret = attrs.field(
        metadata=described("Credential (khs_...) that nodes present to control.")
    )
    signing_keys_file: Path = attrs.field(
        metadata=described("Key ring: a JSON list of private Ed25519 JWKs, mode 0600; the first signs.")
    )
    admin_token: Secret | None = attrs.field(
        default=None,
        metadata=described("Opens the operators' routes (the audit log); without it there are none."),
    )
    mode: Literal["dev", "production"] = attrs.field(
        default="production",
        validator=in_(("dev", "production")),
        metadata=described("dev: development sign-in exists. Only on loopback."),
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
    public_url: str = attrs.field(
        default="",
        validator=matches_re(rf"(?:{_URL})?"),
        metadata=described("Origin at which browsers reach control; empty: http(s)://<host>:<port>."),
    )
    identity_provider: Literal["", "none", "development", "oidc", "workos"] = attrs.field(
        default="",
        validator=in_(("", "none", "development", "oidc", "workos")),
        metadata=described("Who signs people in; empty: development in dev mode, else none."),
    )
    oidc_issuer: str = attrs.field(default="", metadata=described("Issuer URL of the OIDC provider."))
    oidc_client_id: str = attrs.field(default="", metadata=described("Our client id there."))
    oidc_client_secret: Secret | None = attrs.field(
        default=None, metadata=described("Our client secret there; none for a public client.")
    )
    workos_client_id: str = attrs.field(
        default="", metadata=described("Client id of the AuthKit application.")
    )
    workos_api_key: Secret | None = attrs.field(default=None, metadata=described("API key of WorkOS."))
    workos_base_url: str = attrs.field(
        default="https://api.workos.com",
        validator=matches_re(_URL),
        metadata=described("Where WorkOS answers; another one for its emulator."),
    )
    database_connections_max: int = attrs.field(
        default=10, validator=[ge(2), le(200)], metadata=described("Size of the connection pool.")
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
    access_token_ttl_s: int = attrs.field(
        default=sessions.ACCESS_TOKEN_TTL_S,
        validator=[ge(60), le(LIFETIME_MAX_S)],
        metadata=described("Lifetime of an access token, seconds."),
    )
    session_lifetime_s: int = attrs.field(
        default=sessions.SESSION_LIFETIME_S,
        validator=[ge(300), le(366 * 24 * 3600)],
        metadata=described("Absolute lifetime of a person's session, seconds."),
    )
    sync_token_ttl_s: int = attrs.field(
        default=sync_tokens.TTL_DEFAULT_S,
        validator=[ge(sync_tokens.TTL_MIN_S), le(sync_tokens.TTL_MAX_S)],
        metadata=described("Lifetime of a sync token that asks for none, seconds."),
    )
    refresh_grace_s: int = attrs.field(
        default=sessions.REFRESH_GRACE_S,
        validator=[ge(0), le(300)],
        metadata=described(
            "Seconds for which a device that repeats a refresh gets the same successor; 0: never."
        ),
    )
    sync_token_topics_max: int = attrs.field(
        default=sync_tokens.TOPICS_MAX,
        validator=[ge(1), le(sync_tokens.TOPICS_MAX)],
        metadata=described("Topics of one sync token."),
    )
    keys_per_org_max: int = attrs.field(
        default=service_keys.KEYS_PER_ORG_MAX,
        validator=[ge(1), le(service_keys.KEYS_PER_ORG_MAX)],
        metadata=described("Service keys of one org, revoked ones included."),
    )
    min_build_id: str = attrs.field(
        default="0", validator=builds.check_min_build, metadata=described(builds.MIN_BUILD_DESCRIPTION)
    )

    def __attrs_post_init__(self) -> None:
        """Refuse dev mode where others could reach it."""
        check_admin_token(self.admin_token)
        origins.check_origins(self.cors_origins)
        client_address.check_trusted_proxies(self.trusted_proxies)
        tls.check_tls_fields(self.tls_cert, self.tls_key)
        if self.is_dev and not _is_loopback(self.host):
            raise ValueError("mode dev listens on a loopback address only; host is another")
        provider = self.provider
        if provider == "development" and not self.is_dev:
            raise ValueError("identity_provider: the development issuer exists in dev mode only")
        if provider == "oidc" and not (self.oidc_issuer.startswith("http") and self.oidc_client_id):
            raise ValueError("identity_provider: oidc needs oidc_issuer and oidc_client_id")
        if provider == "workos" and not (self.workos_client_id and self.workos_api_key):
            raise ValueError("identity_provider: workos needs workos_client_id and workos_api_key")
        is_remote = provider in ("oidc", "workos")
        if is_remote and not self.is_dev and not self.origin.startswith("https://"):
            raise ValueError("public_url: people sign in over https only; name the https origin")

    @property
    def is_dev(self) -> bool:
        """Whether the development sign-in exists."""
        return self.mode == "dev"

    @property
    def provider(self) -> str:
        """Who signs people in: none, development, oidc or workos."""
        return self.identity_provider or ("development" if self.is_dev else "none")

    @property
    def origin(self) -> str:
        """Origin at which browsers reach control, without a slash at the end."""
        scheme = "http" if self.tls_cert is None else "https"
        return self.public_url.rstrip("/") or f"{scheme}://{self.host}:{self.port}"

    @property
    def edge(self) -> EdgePolicy:
        """Pages and proxies on the other side."""
        return EdgePolicy(
            cors_origins=self.cors_origins,
            has_cookies=True,
            proxies=client_address.TrustedProxies.of(self.trusted_proxies),
        )

    @property
    def limits(self) -> ControlLimits:
        """Everything of it that is a limit and is read again on a reload."""
        return ControlLimits(
            **{field.name: getattr(self, field.name) for field in attrs.fields(ControlLimits)}
        )

    @property
    def session_limits(self) -> SessionLimits:
        """Lifetimes of sessions and access tokens."""
        return SessionLimits(
            access_token_ttl_s=self.access_token_ttl_s,
            session_lifetime_s=self.session_lifetime_s,
            refresh_grace_s=self.refresh_grace_s,
        )

    @property
    def sync_limits(self) -> SyncLimits:
        """Bounds of sync tokens."""
        return SyncLimits(ttl_default_s=self.sync_token_ttl_s, topics_max=self.sync_token_topics_max)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
