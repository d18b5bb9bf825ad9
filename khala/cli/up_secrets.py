"""The secrets of ``khala up``, made once: each in a 0600 file below ``secrets/``.

Services prove themselves to each other with credentials of their own even inside one process, so
that the one-process system refuses what the distributed one refuses.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Self

import attrs

from khala.adapters.embedded_nats_config import ROLES as NATS_ROLES
from khala.adapters.embedded_postgres_directory import make_token, read_or_make_secret
from khala_service.config import Secret
from khala_service.service_auth import new_service_credential

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["FANOUT_KEY_ID", "UpSecrets"]

FANOUT_KEY_ID: Final = "up-1"
_FANOUT_KEY_BYTES: Final = 32


@attrs.frozen
class UpSecrets:
    """What the services of one ``khala up`` share.

    Attributes:
        folder: Where each of them lies in a file of its own.
        signing_keys: File of control's key ring; control makes it.
        fanout_key: Hexadecimal key of the record MAC.
        control: Credential with which control calls the runtime.
        runtime: Credential with which the runtime calls control.
        node: Credential with which the node calls control.
        admin_token: Opens the operators' routes.
        admin_token_file: Where an operator finds it.
    """

    folder: Path
    signing_keys: Path
    fanout_key: Secret
    control: Secret
    runtime: Secret
    node: Secret
    admin_token: Secret
    admin_token_file: Path

    @classmethod
    def read_or_make(cls, data_dir: Path, *, has_nats: bool = False) -> Self:
        """Return the secrets of a data directory, making those that are not there yet."""
        folder = data_dir / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)

        def secret(name: str, make: Callable[[], str] = make_token) -> Secret:
            return Secret(read_or_make_secret(folder / name, make))

        if has_nats:
            for role in NATS_ROLES:
                secret(f"nats_{role.name}")
        return cls(
            folder=folder,
            signing_keys=folder / "control_signing_keys.json",
            fanout_key=secret("fanout_key", make_fanout_key),
            control=secret("service_control", make_credential),
            runtime=secret("service_runtime", make_credential),
            node=secret("service_node", make_credential),
            admin_token=secret("admin_token"),
            admin_token_file=folder / "admin_token",
        )


def make_credential() -> str:
    """Return a new service credential."""
    return new_service_credential(secrets.token_bytes).reveal()


def make_fanout_key() -> str:
    """Return a new key of the record MAC, in hexadecimal."""
    return secrets.token_hex(_FANOUT_KEY_BYTES)
