"""The systems that ``khala bench nodes`` compares: so many node processes, behind one driver.

Every side is fed through the runtime's HTTP, has connections of its own for the whole measurement, and the
same receivers in C, which verify each frame and count it. Connections are dealt to the nodes of a side in turn,
so that of two followers of one run each is on a node of its own.

A node that is one process with the runtime (the memory driver) has no CPU time of its own: of what the process
used it gets the share that its tasks had of the time of all tasks (node_share.py).
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.append_client import AppendConnection
from chaos.load.delivery_client import DeliveryClient
from chaos.load.native_client import ReceiverFailedError
from chaos.load.node_share import ShareReader
from chaos.load.nodes_setup import CROWD, PAIRS, Part
from chaos.load.paced_feed import RunFeed
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from chaos.load.process_figures import cpu_s_of_process, cpu_s_of_tree
from chaos.load.rig import SHARE_FILE, open_access
from khala_contracts.codec import TopicStart
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chaos.load.nodes_setup import NodesSetup, Shape
    from chaos.load.rig import NodeUnderTest, Rig, RigAccess, Viewer

__all__ = ["Side", "deal", "running_side"]

_TIMEOUT_S: Final = 120.0
# On loopback a sender pays for waking a receiver that waits, which a network would not do to it.
_LOOK_EVERY_US: Final = 5_000


@attrs.define
class Side:
    """One side, with everybody connected. Made by ``running_side``.

    Attributes:
        name: As the report calls it.
        nodes: Its node processes.
    """

    name: str
    rig: Rig
    nodes: Sequence[NodeUnderTest]
    _clients: Sequence[DeliveryClient]
    _feeds: Mapping[str, Sequence[RunFeed]]
    _share: ShareReader | None
    _frames: int = 0

    def run(self, shape: Shape) -> Part:
        """Append a slice of a shape and wait until everybody has it.

        Raises:
            ReceiverFailedError: A follower did not get exactly what was appended.
            AppendFailedError: An append was refused.
        """
        writes, share, before = self._writes(), self._read_share(), self._cpu_s()
        began = trio.run(_feed, self.rig, self._feeds[shape.name], shape)
        deliveries, ended = self._wait(shape)
        used = {name: s - before[name] for name, s in self._cpu_s().items()}
        node_cpu_s = sum(used.pop(node.name) for node in self.nodes)
        if share is not None:
            whole_s, node_cpu_s = node_cpu_s, node_cpu_s * self._share_since(share)
            used["up"] = whole_s - node_cpu_s
        return Part(deliveries, self._writes() - writes, ended - began, node_cpu_s, used)

    def node_cores(self, seconds: float) -> float:
        """Return the cores that one of its nodes uses while nothing is appended for so long."""
        share, before, began = self._read_share(), self._node_cpu_s(), time.monotonic()
        time.sleep(seconds)  # noqa: TID251 - nothing may run meanwhile
        cores = (self._node_cpu_s() - before) / (time.monotonic() - began) / len(self.nodes)
        return cores * (self._share_since(share) if share is not None else 1.0)

    def _node_cpu_s(self) -> float:
        return sum(cpu_s_of_process(node.pid) for node in self.nodes)

    def _read_share(self) -> tuple[float, float] | None:
        return None if self._share is None else self._share.read()

    def _share_since(self, before: tuple[float, float]) -> float:
        """Return the node's share of the time of all tasks since then."""
        assert self._share is not None
        node_s, all_s = self._share.read()
        return (node_s - before[0]) / max(all_s - before[1], 1e-9)

    def _cpu_s(self) -> dict[str, float]:
        """Return CPU seconds so far of its nodes and of the other processes of the system."""
        nodes = {node.name: cpu_s_of_process(node.pid) for node in self.nodes}
        if not self.rig.setup.is_split:
            pid = self.rig.system.process.pid
            return {**nodes, "postgres": cpu_s_of_tree(pid) - cpu_s_of_process(pid)}
        others = {name for name in self.rig.pids() if not name.startswith("node")} - {"up"}
        return {**nodes, **{name: s for name, s in self.rig.cpu_s().items() if name in others}}

    def _writes(self) -> int:
        samples = [node.metrics() for node in self.nodes]
        return round(
            sum(v for said in samples for k, v in said.items() if k.startswith("khala_node_deliveries_total"))
        )

    def _wait(self, shape: Shape) -> tuple[int, float]:
        """Wait until every follower has everything; return how many frames came, and when the last had."""
        (head_seq,) = {feed.head_seq for feed in self._feeds[shape.name]}
        topic = int(shape.name == PAIRS)
        answers = [
            client.command(f"until {topic} {head_seq} {_TIMEOUT_S}", timeout_s=_TIMEOUT_S)
            for client in self._clients
        ]
        ended = time.monotonic()
        frames = sum(answer["frames"] for answer in answers)
        came, self._frames = frames - self._frames, frames
        if came != shape.deliveries or any(answer["ended"] for answer in answers):
            raise ReceiverFailedError(f"{came} of {shape.deliveries} frames came to {self.name}: {answers}")
        return came, ended


@contextmanager
def running_side(
    name: str, rig: Rig, nodes: Sequence[NodeUnderTest], setup: NodesSetup, program: Path
) -> Iterator[Side]:
    """Make runs and tokens, and connect everybody to the nodes of a side.

    Args:
        name: Of the side.
        rig: Its system.
        nodes: Of that system.
        setup: Of the benchmark.
        program: ``delivery_client``, compiled.

    Raises:
        ReceiverFailedError: Somebody was refused.
    """
    feeds, viewers = trio.run(_prepare, rig, setup)
    preambles = [_preamble(viewer, topics, nodes[0]) for viewer, topics in viewers]
    folder = rig.folder / name.replace(",", "").replace(" ", "-")
    folder.mkdir()
    with ExitStack() as held:
        clients = []
        for number, (node, own) in enumerate(zip(nodes, deal(preambles, len(nodes)), strict=True)):
            file = folder / f"{number}.preambles"
            write_preambles(file, own)
            client = DeliveryClient(program, node.port, file, look_every_us=_LOOK_EVERY_US)
            clients.append(held.enter_context(client))
            client.command(f"open {_TIMEOUT_S}", timeout_s=_TIMEOUT_S)
        share = None if rig.setup.is_split else held.enter_context(ShareReader(rig.folder / SHARE_FILE))
        yield Side(name, rig, nodes, clients, feeds, share)


def deal(preambles: Sequence[Preamble], hands: int) -> list[list[Preamble]]:
    """Return what each of so many nodes gets: in turn, so that neighbours are apart."""
    return [list(preambles[number::hands]) for number in range(hands)]


def _preamble(viewer: Viewer, topics: Sequence[str], node: NodeUnderTest) -> Preamble:
    starts = [TopicStart(topic, FROM_NOW) for topic in topics]
    return Preamble.of_subscriber(viewer.token, viewer.device_id, starts, path=node.path)


async def _prepare(
    rig: Rig, setup: NodesSetup
) -> tuple[dict[str, list[RunFeed]], list[tuple[Viewer, list[str]]]]:
    """Return the feeds of each shape, and who follows which topics."""
    async with open_access(rig) as access:
        feeds = {shape.name: await _make_feeds(access, shape, setup) for shape in setup.shapes}
        (crowd,), pairs = feeds[CROWD], feeds[PAIRS]
        topics: list[list[str]] = [[format_run_events(crowd.run_id)] for _ in range(setup.crowd)]
        for number in range(2 * setup.runs):
            topics[number].append(format_run_events(pairs[number // 2].run_id))
        viewers = await access.mint(topics)
    return feeds, list(zip(viewers, topics, strict=True))


async def _make_feeds(access: RigAccess, shape: Shape, setup: NodesSetup) -> list[RunFeed]:
    run_ids = await access.create_runs(shape.runs)
    return [RunFeed(run, 0.0, payload_bytes=setup.payload_bytes) for run in run_ids]


async def _feed(rig: Rig, feeds: Sequence[RunFeed], shape: Shape) -> float:
    """Append to every run as fast as it is taken; return when that began."""
    waiting = iter(feeds)

    async def work() -> None:
        for feed in waiting:
            connection = AppendConnection(rig.runtime_url, rig.key, feed.run_id)
            await connection.open()
            for _ in range(shape.requests):
                await feed.append_next(connection, shape.events_per_request)
            await connection.aclose()

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(min(shape.at_once, shape.runs)):
            nursery.start_soon(work)
    return began
