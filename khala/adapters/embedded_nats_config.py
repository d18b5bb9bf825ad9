"""The configuration of an embedded NATS server as text: who may do what, its place in a cluster, TLS. Pure.

Each role has a user of its own that may do nothing but what the role needs (``fanout_drivers/nats.py``): the
runtime publishes records, control publishes hints of revocations, nodes subscribe to both and publish nothing.
What a user may not do the server refuses and tells him; ``runbooks/drivers.md`` has the same for deployments.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["HOST", "ROLES", "NatsClusterPlace", "NatsRole", "NatsServerTls", "format_config"]

HOST: Final = "127.0.0.1"
# The first token of subjects tells systems apart that share a broker; this one is nobody else's.
RECORDS: Final = "*.v1.>"
REVOCATIONS: Final = "*.control.revocations"


@attrs.frozen(kw_only=True)
class NatsRole:
    """Who connects, and what he may do; what is not named he may not.

    Attributes:
        name: Of the service; the user is ``khala-<name>``.
        may_publish: Subjects, with the wildcards of NATS.
        may_subscribe: Subjects, with the wildcards of NATS.
    """

    name: str
    may_publish: tuple[str, ...] = ()
    may_subscribe: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The user of this role."""
        return f"khala-{self.name}"


ROLES: Final = (
    NatsRole(name="runtime", may_publish=(RECORDS,)),
    NatsRole(name="control", may_publish=(REVOCATIONS,)),
    NatsRole(name="node", may_subscribe=(RECORDS, REVOCATIONS)),
)


@attrs.frozen(kw_only=True)
class NatsClusterPlace:
    """A server's place in a cluster on this machine.

    Attributes:
        port: Where it listens for the other servers, on 127.0.0.1.
        others: Where they do.
        password: That servers show each other.
    """

    port: int
    others: tuple[int, ...]
    password: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class NatsServerTls:
    """A server's certificate, and whose certificates it asks for.

    Attributes:
        cert: PEM file.
        key: PEM file.
        client_ca: PEM file of the authority that signs clients; None: clients need no certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


# Records hold at most 512 KiB of entries. A node that does not read is cut off; it reconnects and compares its
# positions with the journal. A process that starts on a busy machine says who it is late; it gives up after 5 s.
_CONFIG: Final = """\
# Written by khala at every start.
server_name: {server_name}
listen: {listen}
authorization {{
  timeout: 5
  users: [
{users}
  ]
}}
max_payload: 1MB
max_pending: 64MB
write_deadline: "2s"
"""
_USER: Final = "    {{user: {user}, password: {password}, permissions: {permissions}}}"
# A partition is found by pings that stay unanswered: two of them.
_CLUSTER: Final = """\
cluster {{
  name: khala
  listen: {listen}
  ping_interval: "1s"
  authorization: {{user: "route", password: {password}, timeout: 5}}
  routes: {routes}
}}
"""


def format_config(
    *,
    server_name: str,
    port: int,
    passwords: Mapping[str, str],
    roles: Sequence[NatsRole] = ROLES,
    cluster: NatsClusterPlace | None = None,
    tls: NatsServerTls | None = None,
) -> str:
    """Return the configuration of one server.

    Args:
        server_name: What it calls itself.
        port: For clients, on 127.0.0.1.
        passwords: By the name of the role.
        roles: Its users.
        cluster: None for a server by itself.
        tls: None for a server that speaks in clear.
    """
    users = "\n".join(
        _USER.format(
            user=_quote(role.user),
            password=_quote(passwords[role.name]),
            permissions=json.dumps(
                {"publish": _grant(role.may_publish), "subscribe": _grant(role.may_subscribe)}
            ),
        )
        for role in roles
    )
    text = _CONFIG.format(server_name=_quote(server_name), listen=_quote(f"{HOST}:{port}"), users=users)
    if cluster is not None:
        routes = [f"nats://route:{cluster.password}@{HOST}:{other}" for other in cluster.others]
        text += _CLUSTER.format(
            listen=_quote(f"{HOST}:{cluster.port}"),
            password=_quote(cluster.password),
            routes=json.dumps(routes),
        )
    if tls is not None:
        files = {"cert_file": str(tls.cert), "key_file": str(tls.key)}
        if tls.client_ca is not None:
            files |= {"ca_file": str(tls.client_ca), "verify": "true"}
        pairs = ", ".join(
            f"{name}: {value if value == 'true' else _quote(value)}" for name, value in files.items()
        )
        text += f"tls {{{pairs}}}\n"
    return text


def _grant(subjects: tuple[str, ...]) -> dict[str, list[str]]:
    # An empty list of allowed subjects would mean all of them.
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


def _quote(text: str) -> str:
    return json.dumps(text)
