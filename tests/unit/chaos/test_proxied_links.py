"""How a link is laid: the proxy's ports in a child's configuration, and nothing else changed."""

from __future__ import annotations

import stat
import tomllib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from chaos.drills import proxied_links
from chaos.drills.memory_samples import MEMORY_BOUNDS, samples_of
from chaos.drills.plots import latency_plot
from chaos.drills.proxied_links import laid_links
from chaos.drills.verdict import Deliveries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NODE = """
[node]
control_url = "http://127.0.0.1:11"
database_dsn_file = "{folder}/khala_reader.dsn"
node_id = "node-1"
[fanout]
driver = "nats"
nats_servers = ["nats://127.0.0.1:14"]
"""


@attrs.define
class FakeSystem:
    """A system whose processes are only named."""

    under_test: Any
    record: Mapping[str, Any]
    node_names: list[str]
    nats_port: int = 14
    killed: list[str] = attrs.field(factory=list)
    restarted: list[tuple[str, int]] = attrs.field(factory=list)

    def node_url(self, name: str) -> str:
        return f"ws://127.0.0.1:2{name[-1]}/sync/v1/ws"

    def kill(self, name: str) -> int:
        self.killed.append(name)
        return len(self.killed)

    def wait_killed(self, pid: int) -> None:
        assert pid

    def wait_ready(self, name: str, *, besides: int) -> float:
        self.restarted.append((name, besides))
        return 0.0


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, int]]:
    """Where the links of the proxy lead; it listens a thousand ports above."""
    seen: dict[str, tuple[str, int]] = {}

    @contextmanager
    def run(servers: Mapping[str, tuple[str, int]]) -> Iterator[Any]:
        seen.update(servers)
        yield SimpleNamespace(ports={name: port + 1000 for name, (_, port) in servers.items()})

    monkeypatch.setattr(proxied_links, "running_proxy", run)
    return seen


def test_a_child_knows_its_servers_by_the_proxy_only(
    tmp_path: Path, servers: dict[str, tuple[str, int]]
) -> None:
    """Database, broker and control of one node; clients are told their way, so nobody is restarted for them."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "node-1.toml").write_text(NODE.format(folder=folder))
    dsn = "postgresql://khala_reader:secret@127.0.0.1:13/khala"
    (folder / "khala_reader.dsn").write_text(dsn + "\n")
    under_test = SimpleNamespace(data_dir=tmp_path, postgres_port=13)
    system = FakeSystem(under_test, {"control_url": "http://127.0.0.1:11"}, ["node-1", "node-2"])
    links = ("clients.node-2", "node-1.control", "node-1.nats", "node-1.postgres")
    with laid_links(system, links):
        pass
    assert servers == {
        "clients.node-2": ("127.0.0.1", 22),
        "node-1.control": ("127.0.0.1", 11),
        "node-1.nats": ("127.0.0.1", 14),
        "node-1.postgres": ("127.0.0.1", 13),
    }
    document = tomllib.loads((folder / "node-1.toml").read_text())
    dsn_file = Path(document["node"].pop("database_dsn_file"))
    assert dsn_file.read_text().strip() == dsn.replace(":13/", ":1013/")
    assert document == {
        "node": {"control_url": "http://127.0.0.1:1011", "node_id": "node-1"},
        "fanout": {"driver": "nats", "nats_servers": ["nats://127.0.0.1:1014"]},
    }
    # Both hold secrets, and the other node reads the first file.
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (dsn_file, folder / "node-1.toml"))
    assert (folder / "khala_reader.dsn").read_text().strip() == dsn
    assert (system.killed, system.restarted) == (["node-1"], [("node-1", 1)])


def test_what_is_bounded_is_found_among_the_metrics() -> None:
    """With and without labels; everything else is no concern of the checker's."""
    text = '# HELP x\nkhala_node_windows_bytes 1.5e+06\nkhala_node_pages_bytes{a="b"} 7.0\nkhala_up 1\n'
    found = samples_of("node-1", text, 5.0)
    assert [(one.name, one.value) for one in found] == [
        ("khala_node_windows_bytes", 1_500_000.0),
        ("khala_node_pages_bytes", 7.0),
    ]
    assert {one.name for one in found} == set(MEMORY_BOUNDS)


def test_a_plot_has_what_was_delivered_by_half_seconds_of_its_commit() -> None:
    """Times count from the beginning of the load, also those of the faults."""
    deliveries = Deliveries.of([(100.1, 0.1), (100.2, 0.3), (101.6, 0.5)])
    plot = latency_plot(deliveries, began_at_s=100.0, spans=[("killed", 100.5, 101.5)])
    assert plot.spans == [("killed", 0.5, 1.5)]
    assert dict(plot.series)["slowest"] == [(0.0, 0.3), (1.5, 0.5)]
