"""What ``khala up`` tells each service, and what of the user's own configuration reaches which process.

The user may set everything that does not hold the system together: what is here wins over his file and
his variables. Secrets are told by the path of their file, never by value, so that no child process has
one in its arguments or its environment.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Final

import attrs

from khala.adapters.embedded_nats_config import ROLES as NATS_ROLES
from khala.cli.up_ports import HOST
from khala.cli.up_secrets import FANOUT_KEY_ID
from khala_service.config_fields import env_name
from khala_service.config_values import parse_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from khala.cli.up_ports import UpPorts
    from khala.cli.up_secrets import UpSecrets

__all__ = ["UpValues", "UserConfig", "child_environ", "child_sections"]

# The node's own deadline comes before that of whoever ends it, so that slow clients get its last words.
CONNECTIONS_DRAIN_S: Final = 1.5
# Nobody here sends traffic by probing.
DRAIN_NOTICE_S: Final = 0.0


@attrs.frozen
class UpValues:
    """The values of one life of the system, by section and dotted key.

    Attributes:
        ports: Where everything listens.
        parts: Secrets.
        user: What the user said; his lists are added to ours.
    """

    ports: UpPorts
    parts: UpSecrets
    user: UserConfig = attrs.field(factory=lambda: UserConfig({}, {}))

    def control(self) -> dict[str, object]:
        """Section ``control``."""
        return {
            "mode": "dev",
            "runtime_url": f"http://{HOST}:{self.ports.runtime}",
            "public_url": f"http://{HOST}:{self.ports.origin}",
            "service_credential_file": self._secret("service_control"),
            "runtime_credential_file": self._secret("service_runtime"),
            "node_credential_file": self._secret("service_node"),
            "admin_token_file": self._secret("admin_token"),
            "signing_keys_file": str(self.parts.signing_keys),
            **self._lists("control"),
            "host": HOST,
            "port": self.ports.control,
            "drain_notice_s": DRAIN_NOTICE_S,
        }

    def runtime(self) -> dict[str, object]:
        """Section ``runtime``."""
        return {
            "mode": "dev",
            "control_url": f"http://{HOST}:{self.ports.control}",
            "service_credential_file": self._secret("service_runtime"),
            "control_credential_file": self._secret("service_control"),
            "node_credential_file": self._secret("service_node"),
            "admin_token_file": self._secret("admin_token"),
            "fanout_key_id": FANOUT_KEY_ID,
            "fanout_key_file": self._secret("fanout_key"),
            **self._lists("runtime"),
            "host": HOST,
            "port": self.ports.runtime,
            "drain_notice_s": DRAIN_NOTICE_S,
        }

    def node(self, number: int = 1) -> dict[str, object]:
        """Section ``node`` of one of the nodes."""
        return {
            "mode": "dev",
            "control_url": f"http://{HOST}:{self.ports.control}",
            "runtime_url": f"http://{HOST}:{self.ports.runtime}",
            "service_credential_file": self._secret("service_node"),
            "admin_token_file": self._secret("admin_token"),
            "fanout_keys": {f"{FANOUT_KEY_ID}_file": self._secret("fanout_key")},
            "node_id": f"node-{number}",
            **self._lists("node"),
            "host": HOST,
            "port": self.ports.node(number),
            "reuse_port": self.ports.is_shared,
            "admin_host": HOST,
            "admin_port": self.ports.admin(number),
            "drain_notice_s": DRAIN_NOTICE_S,
            "limits.drain_timeout_s": CONNECTIONS_DRAIN_S,
        }

    def fanout(self, driver: str, role: str) -> dict[str, object]:
        """Section ``fanout`` of a service of this role, with the driver that was decided on.

        Args:
            driver: Its name.
            role: ``control``, ``runtime`` or ``node``: each has a login of its own at the broker.
        """
        values: dict[str, object] = {"driver": driver}
        if self.ports.has_nats:
            values |= {
                "nats_servers": [f"nats://{HOST}:{self.ports.nats}"],
                "nats_user": next(known.user for known in NATS_ROLES if known.name == role),
                "nats_password_file": self._secret(f"nats_{role}"),
            }
        return values

    def _lists(self, section: str) -> dict[str, object]:
        """Return whose pages, and which proxies: the one origin by both of its names, and what the user adds."""
        ours = {
            "cors_origins": [f"http://{name}:{self.ports.origin}" for name in (HOST, "localhost")],
            "trusted_proxies": [HOST],
        }
        return {key: self.user.extend(section, key, items) for key, items in ours.items()}

    def _secret(self, name: str) -> str:
        return str(self.parts.folder / name)


@attrs.frozen
class UserConfig:
    """What the user said, in a file and in variables.

    Attributes:
        document: The whole TOML file; empty if there is none, or if it cannot be read (which
            ``load_config`` reports).
        environ: The variables of the services.
    """

    document: Mapping[str, object]
    environ: Mapping[str, str]

    @classmethod
    def read(cls, file: Path | None, environ: Mapping[str, str]) -> UserConfig:
        """Read it; never raises."""
        try:
            text = file.read_text(encoding="utf-8") if file is not None else ""
            return cls(tomllib.loads(text), environ)
        except (OSError, ValueError):
            return cls({}, environ)

    def find(self, section: str, key: str) -> object:
        """Return what was said of one key, None if nothing."""
        return self.environ.get(env_name(section, (key,)), self.table(section).get(key))

    def extend(self, section: str, key: str, ours: list[str]) -> object:
        """Return our list and what was said of this key; what is no list is returned as it is, to be refused."""
        text = self.environ.get(env_name(section, (key,)))
        theirs = self.table(section).get(key, []) if text is None else parse_text(text, tuple[str, ...])
        return [*ours, *theirs] if isinstance(theirs, list) else theirs

    def table(self, section: str) -> Mapping[str, object]:
        """Return a section of the file, empty if it is not there."""
        table = self.document.get(section)
        return table if isinstance(table, dict) else {}


def child_sections(
    user: UserConfig, values: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """Return the configuration of a child process: the user's sections with our values over them."""
    return {section: _merge(user.table(section), ours) for section, ours in values.items()}


def child_environ(user: UserConfig, values: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Return the environment of a child process.

    Of the variables of Khala those of its own sections only, and none that would win over our values.
    """
    ours = {
        variable
        for section, table in values.items()
        for key in table
        for variable in _variables_of(section, tuple(key.split(".")))
    }
    prefixes = tuple(env_name(section, ()) + "_" for section in values)
    return {
        name: value
        for name, value in user.environ.items()
        if not name.startswith("KHALA_") or (name.startswith(prefixes) and name not in ours)
    }


def _variables_of(section: str, path: tuple[str, ...]) -> tuple[str, str]:
    name = env_name(section, path).removesuffix("_FILE")
    return name, f"{name}_FILE"


def _merge(table: Mapping[str, object], ours: Mapping[str, object]) -> dict[str, object]:
    merged = dict(table)
    nested: dict[str, dict[str, object]] = {}
    for key, value in ours.items():
        name, _, rest = key.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = value
            continue
        plain = name.removesuffix("_file")
        merged.pop(plain, None)
        merged.pop(f"{plain}_file", None)
        merged[name] = value
    for name, values in nested.items():
        inner = merged.get(name)
        merged[name] = _merge(inner if isinstance(inner, dict) else {}, values)
    return merged
