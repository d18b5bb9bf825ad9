"""The system as shipped, for a benchmark of the node: a real ``khala up --split`` and what is measured of it.

Every process is its own (PostgreSQL, broker, control, runtime, nodes), so that each one's CPU time and
memory can be told apart; tokens are minted by control through a service key, and redeemed by the node.
Configuration is the default except for what the caller names in ``RigSetup.config``; a report repeats
that (``Rig.overrides``). The data directory is temporary, durability as shipped.

    with running_rig(RigSetup(driver="nats", config={"node": {"limits": {"admission_per_s": 1e6}}})) as rig:
        run_ids = rig.create_runs(50)
        viewers = rig.mint(500, [format_run_events(run_ids[0])])     # one token, user, device for each
        before = rig.cpu_s()
        ...
        used = {name: s - before[name] for name, s in rig.cpu_s().items()}

Synchronous; within trio use ``open_access``, which is what ``mint`` and ``create_runs`` are made of.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs
import trio

from chaos.load.process_figures import cpu_s_of_tree, memory_of_process
from chaos.load.rig_access import (
    TOKEN_TTL_S,
    RigAccess,
    ServiceKeyOfOrg,
    Viewer,
    make_key,
    open_key_access,
)
from chaos.load.rig_nodes import NodeUnderTest, running_node
from chaos.load.system_under_test import running_system_under_test
from khala.cli.toml_text import toml_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.load.process_figures import ProcessMemory
    from chaos.load.system_under_test import SystemUnderTest

__all__ = [
    "SHARE_FILE",
    "NodeUnderTest",
    "Rig",
    "RigAccess",
    "RigSetup",
    "Viewer",
    "open_access",
    "running_rig",
]

# In the folder of a rig of one process: see node_share.py.
SHARE_FILE: Final = "node-share"


@attrs.frozen
class RigSetup:
    """What is started.

    Attributes:
        driver: What carries records to the nodes; ``memory``: a ``khala up`` in one process, whose pid is
            that of its node.
        nodes: How many ``khala node`` processes; 1 with ``memory``.
        config: By section (``node``, ``runtime``, ``control``), what differs from the defaults; tables
            may be nested (``{"node": {"limits": {...}}}``).
    """

    driver: Literal["nats", "postgres", "memory"] = "nats"
    nodes: int = 1
    config: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict)

    @property
    def is_split(self) -> bool:
        """Whether each service is a process of its own."""
        return self.driver != "memory"

    @property
    def options(self) -> list[str]:
        """Return the words for ``khala up``."""
        split = ["--split", "--nodes", str(self.nodes)] if self.is_split else []
        return [*split, *(["--nats"] if self.driver == "nats" else [])]

    def program(self, folder: Path) -> list[str]:
        """Return what runs ``khala up``: in one process, with the node's share of its time told."""
        return ["khala.cli"] if self.is_split else ["chaos.load.node_share", str(folder / SHARE_FILE)]


@attrs.define
class Rig:
    """A running system. Made by ``running_rig``."""

    setup: RigSetup
    system: SystemUnderTest
    folder: Path
    _key: ServiceKeyOfOrg
    _record: Mapping[str, object]
    _extra: dict[str, NodeUnderTest] = attrs.field(factory=dict)

    @property
    def overrides(self) -> Mapping[str, Mapping[str, object]]:
        """What differs from the defaults, for the report."""
        return {"up": {"split": self.setup.is_split, "driver": self.setup.driver}, **self.setup.config}

    @property
    def org_id(self) -> str:
        """The org of the benchmark."""
        return self._key.org_id

    @property
    def key(self) -> str:
        """The secret of its service key: publish, work, read and mint."""
        return self._key.secret

    @property
    def control_url(self) -> str:
        """Base URL of control."""
        return str(self._record["control_url"])

    @property
    def runtime_url(self) -> str:
        """Base URL of the runtime."""
        return self.system.runtime_url

    @property
    def nodes(self) -> list[NodeUnderTest]:
        """The nodes that ``khala up`` runs, then those of ``extra_node``."""
        nodes = self._record["nodes"]
        assert isinstance(nodes, list)
        ours = [NodeUnderTest(n["name"], n["url"], n["admin_url"], n["pid"]) for n in nodes]
        return [*ours, *self._extra.values()]

    def pids(self) -> dict[str, int]:
        """Return the pid of each process: up, postgres, nats, control, runtime, node-1, ..."""
        processes = self._record["processes"]
        assert isinstance(processes, dict)
        named = {name: int(pid) for name, pid in processes.items() if name != "watchman"}
        extra = {node.name: node.pid for node in self._extra.values()}
        return {"up": self.system.process.pid, **named, **extra}

    def cpu_s(self) -> dict[str, float]:
        """Return CPU seconds so far of each of ``pids``; PostgreSQL with its backends, ``up`` left out."""
        return {name: cpu_s_of_tree(pid) for name, pid in self.pids().items() if name != "up"}

    def memory(self, name: str) -> ProcessMemory:
        """Return what one of ``pids`` holds now (for PostgreSQL: the postmaster alone)."""
        return memory_of_process(self.pids()[name])

    def mint(self, count: int, topics: Sequence[str], *, ttl_s: int = TOKEN_TTL_S) -> list[Viewer]:
        """Mint ``count`` tokens for the same topics; see ``RigAccess.mint``."""

        async def mint() -> list[Viewer]:
            async with open_access(self) as access:
                return await access.mint([topics] * count, ttl_s=ttl_s)

        return trio.run(mint)

    def create_runs(self, count: int) -> list[str]:
        """Create runs; see ``RigAccess.create_runs``."""

        async def create() -> list[str]:
            async with open_access(self) as access:
                return await access.create_runs(count)

        return trio.run(create)

    def secret(self, name: str) -> str:
        """Return one of the secrets of the data directory: fanout_key, nats_runtime, admin_token, ..."""
        return (self.system.data_dir / "secrets" / name).read_text(encoding="ascii").strip()

    def fanout_config(self) -> Mapping[str, object]:
        """Return section ``fanout`` as the nodes have it."""
        section = self._node_document()["fanout"]
        assert isinstance(section, dict)
        return section

    @contextmanager
    def extra_node(self, name: str, config: Mapping[str, object]) -> Iterator[NodeUnderTest]:
        """Start one more ``khala node`` on the same system, configured as node-1 but for ``config``.

        Args:
            name: Its node id, and its name in ``pids``.
            config: Over section ``node``; tables are merged. A report repeats it.

        Raises:
            SystemFailedError: It was not ready in time.
        """
        path = self.nodes[0].path
        with running_node(name, self._node_document(), config, folder=self.folder, path=path) as node:
            self._extra[name] = node
            try:
                yield node
            finally:
                del self._extra[name]

    def _node_document(self) -> dict[str, dict[str, object]]:
        return tomllib.loads((self.system.data_dir / "run" / "node-1.toml").read_text(encoding="utf-8"))


@contextmanager
def running_rig(setup: RigSetup) -> Iterator[Rig]:
    """Start the system in a temporary directory, with an org and a key; end everything with the block.

    Raises:
        SystemFailedError: It did not start.
    """
    with tempfile.TemporaryDirectory(prefix="khala-bench-") as name:
        folder = Path(name)
        config = toml_document(setup.config)
        program = setup.program(folder)
        with running_system_under_test(
            folder, config=config, options=setup.options, program=program
        ) as system:
            record = json.loads((system.data_dir / "up.json").read_text(encoding="utf-8"))
            yield Rig(setup, system, folder, trio.run(make_key, system), record)


def open_access(rig: Rig) -> AbstractAsyncContextManager[RigAccess]:
    """Open clients that call control and runtime with the benchmark's service key."""
    return open_key_access(rig._key, rig.control_url, rig.runtime_url)
