"""Configuration of the runtime: section `runtime`, variables `KHALA_RUNTIME_*`.

Nothing that is secret has a default. Limits are a table of their own: `[runtime.limits]`.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # attrs resolves the types of fields at run time
from typing import Final

import attrs
from attrs.validators import ge, le, matches_re

from khala_contracts.fanout_records import KEY_MIN_BYTES
from khala_contracts.topics import TOPIC_CLASSES
from khala_service.config import Secret, described
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
    database_connections_max: int = attrs.field(
        default=10,
        validator=[ge(4), le(200)],
        metadata=described("Size of the connection pool; the two writers keep one each."),
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
        for name in ("service_credential", "control_credential"):
            secret: Secret = getattr(self, name)
            if not secret.reveal().startswith(SERVICE_CREDENTIAL_PREFIX):
                message = f"{name}: does not start with {SERVICE_CREDENTIAL_PREFIX}"
                raise ValueError(message)
        if len(self.fanout_key_bytes()) < KEY_MIN_BYTES:
            message = f"fanout_key: expected at least {KEY_MIN_BYTES} bytes"
            raise ValueError(message)

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
