"""Configuration of a node: section `node`, variables `KHALA_NODE_*`.

Nothing that is secret has a default. Limits are a table of their own: `[node.limits]`.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # attrs resolves the types of fields at run time
from typing import Final, Literal

import attrs
from attrs.validators import ge, le

from khala.adapters import websocket_adapters
from khala.core.limits import NodeLimits
from khala_service import builds, client_address, origins, tls
from khala_service.admin_routes import check_admin_token
from khala_service.config import Secret, described
from khala_service.failpoints import check_failpoint_settings

__all__ = ["SECTION", "NodeConfig"]

SECTION: Final = "node"


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Everything that a node can be told."""

    database_dsn: Secret = attrs.field(metadata=described("DSN of the role khala_reader."))
    control_url: str = attrs.field(metadata=described("Base URL of control."))
    service_credential: Secret = attrs.field(
        metadata=described("Credential with which this node calls control.")
    )
    fanout_keys: dict[str, Secret] = attrs.field(
        metadata=described("Keys of the record MAC by key id, in hexadecimal.")
    )
    runtime_url: str = attrs.field(
        default="",
        metadata=described("Base URL of the runtime, to which this node reports; empty: to nobody."),
    )
    host: str = attrs.field(default="127.0.0.1", metadata=described("Address of the WebSocket listener."))
    port: int = attrs.field(
        default=8473, metadata=described("Port of the WebSocket listener; 0 takes a free one.")
    )
    reuse_port: bool = attrs.field(
        default=False,
        metadata=described(
            "Other nodes on this machine, that say so too, may listen on the same port (SO_REUSEPORT). Linux spreads "
            "connections over them; macOS gives all of them to the last one."
        ),
    )
    admin_host: str = attrs.field(default="127.0.0.1", metadata=described("Address of health and metrics."))
    admin_port: int = attrs.field(
        default=8474, metadata=described("Port of health and metrics; 0 takes a free one.")
    )
    admin_token: Secret | None = attrs.field(
        default=None,
        metadata=described("Opens the operators' routes of the admin port; without it there are none."),
    )
    tls_cert: Path | None = attrs.field(default=None, metadata=described(tls.CERT_DESCRIPTION))
    tls_key: Path | None = attrs.field(default=None, metadata=described(tls.KEY_DESCRIPTION))
    tls_ca: Path | None = attrs.field(default=None, metadata=described(tls.CA_DESCRIPTION))
    drain_notice_s: float = attrs.field(
        default=1.0,
        validator=[ge(0), le(60)],
        metadata=described(
            "How long a node that was asked to end says so at /readyz before its admin port closes, seconds."
        ),
    )
    node_id: str = attrs.field(
        default="", metadata=described("Name in welcome and logs; empty: made at start.")
    )
    cors_origins: tuple[str, ...] = attrs.field(default=(), metadata=described(origins.DESCRIPTION))
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), metadata=described(client_address.DESCRIPTION))
    websocket_adapter: websocket_adapters.WebSocketAdapter = attrs.field(
        default="websockets", metadata=described(websocket_adapters.DESCRIPTION)
    )
    mode: Literal["production", "dev"] = attrs.field(
        default="production", metadata=described("dev: failpoints are accepted.")
    )
    failpoints: str = attrs.field(
        default="",
        metadata=described("Points at which this process dies or fails, in mode dev only: name=kill@n,..."),
    )
    failpoint_file: Path | None = attrs.field(
        default=None, metadata=described("File that gets a line for each point that acted; mode dev only.")
    )
    min_build_id: str = attrs.field(
        default="0", validator=builds.check_min_build, metadata=described(builds.MIN_BUILD_DESCRIPTION)
    )
    limits: NodeLimits = attrs.field(factory=NodeLimits)

    def __attrs_post_init__(self) -> None:
        """Check what no single field can say. Raises ValueError naming the key."""
        origins.check_origins(self.cors_origins)
        client_address.check_trusted_proxies(self.trusted_proxies)
        tls.check_tls_fields(self.tls_cert, self.tls_key)
        check_admin_token(self.admin_token)
        if self.reuse_port and self.port == 0:
            raise ValueError("reuse_port: name the port; 0 gives each node one of its own")
        check_failpoint_settings(self.mode, self.failpoints, self.failpoint_file)
