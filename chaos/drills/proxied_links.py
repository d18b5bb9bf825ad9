"""Puts the fault proxy between processes of a running split system.

Each child of ``khala up --split`` reads its own configuration file at each start. So a link is laid by
writing the proxy's port into that file and killing the child: its supervisor starts it again, and from
then on, in every later life too, it knows the server by the proxy's address only.
"""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from chaos.faults.proxy_control import HOST, running_proxy
from khala.adapters.embedded_postgres_directory import write_private
from khala.cli.toml_text import toml_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.faults.proxy_control import FaultProxy
    from chaos.load.system_under_test import SystemUnderTest

__all__ = ["CLIENTS", "laid_links"]

CLIENTS: Final = "clients"


class Relinked(Protocol):
    """What is needed of a running split system; ``SplitSystem`` says what each does."""

    under_test: SystemUnderTest
    record: Mapping[str, Any]

    @property
    def node_names(self) -> list[str]: ...

    @property
    def nats_port(self) -> int: ...

    def node_url(self, name: str) -> str: ...

    def kill(self, name: str) -> int: ...

    def wait_killed(self, pid: int) -> object: ...

    def wait_ready(self, name: str, *, besides: int) -> float: ...


@contextmanager
def laid_links(system: Relinked, links: Sequence[str]) -> Iterator[FaultProxy]:
    """Run a proxy for these links (``SystemSetup.links``) and lead their clients through it.

    Raises:
        ProxyRefused: It did not start.
        DrillFailed: A child did not get ready again.
    """
    servers = {link: (HOST, _port_of(system, link.partition(".")[2])) for link in links}
    with running_proxy(servers) as proxy:
        clients = {link.partition(".")[0] for link in links} - {CLIENTS}
        killed = {}
        for client in sorted(clients):
            _rewrite(system.under_test.data_dir / "run", client, proxy)
            killed[client] = system.kill(client)
        for pid in killed.values():
            system.wait_killed(pid)
        for client, pid in killed.items():
            system.wait_ready(client, besides=pid)
        yield proxy


def _port_of(system: Relinked, server: str) -> int:
    if server == "postgres":
        return system.under_test.postgres_port
    if server == "nats":
        return system.nats_port
    url = system.node_url(server) if server in system.node_names else system.record[f"{server}_url"]
    port = urlsplit(str(url)).port
    assert port is not None
    return port


def _rewrite(folder: Path, client: str, proxy: FaultProxy) -> None:
    """Write the proxy's addresses into the configuration of a child."""
    file = folder / f"{client}.toml"
    document: dict[str, dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8"))
    own = document["node" if client.startswith("node-") else client]
    for link, port in proxy.ports.items():
        of, _, server = link.partition(".")
        if of != client:
            continue
        match server:
            case "postgres":
                dsn_file = folder / f"{client}.dsn"
                write_private(
                    dsn_file,
                    _with_port(Path(own["database_dsn_file"]).read_text(encoding="utf-8").strip(), port)
                    + "\n",
                )
                own["database_dsn_file"] = str(dsn_file)
            case "nats":
                servers = document["fanout"]["nats_servers"]
                document["fanout"]["nats_servers"] = [_with_port(url, port) for url in servers]
            case _:
                own[f"{server}_url"] = _with_port(own[f"{server}_url"], port)
    write_private(file, toml_document(document))


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@{HOST}:{port}" if user else f"{HOST}:{port}"))
