"""``khala bench connections``: what an idle connection costs a node, and what its beginning costs.

Two nodes of a real ``khala up --split --nats``: one of its own with every setting at its default, and one for which the
settings that pace admission are raised. Each connection has a token of its own, minted by control for a user, session and
device of its own; the node verifies and redeems it, judges the right against the head row, and answers ``subscribed``
and ``replay_complete``. The client is a C program that says nothing else until its next heartbeat.

    storm    batches of connections as fast as 32 at a time get in; CPU seconds of the node for each batch
    held     when all are there and nothing happens: memory of the node, above what it was before the first
    proof    one event is appended to each run; every connection must receive it, once and as the next
    paced    at the rate of the default admission, on the node that has it
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from chaos.load.connections_report import connections_report
from chaos.load.connections_setup import Batch, ConnectionsResult, Held
from chaos.load.native_client import NativeClient
from chaos.load.native_tools import compile_native
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from chaos.load.process_figures import cpu_s_of_process, kernel_socket_bytes
from chaos.load.rig import open_access
from chaos.load.statistics_of_pairs import describe_environment
from khala_client.outgoing import OutgoingEvent
from khala_contracts.codec import TopicStart
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.load.connections_setup import ConnectionsSetup
    from chaos.load.report import Report
    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["STORM_CONFIG", "measure_connections"]

# A storm is measured, not its pacing; how many greet at once stays at its default.
STORM_CONFIG: Final = {"limits": {"admission_per_s": 100_000.0, "admission_burst": 100_000}}
# Below the default admission, so that nobody is turned away.
PACED_PER_S: Final = 240.0
_OPENING_MAX: Final = 32
_SLAB: Final = re.compile(r"^Slab:\s+(\d+) kB$", re.MULTILINE)
_OPEN_TIMEOUT_S: Final = 120.0
_PROOF_TIMEOUT_S: Final = 60.0


def measure_connections(setup: ConnectionsSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Connect, hold, prove; return the report.

    Raises:
        CompilerMissingError: There are no clients without a C compiler.
        ReceiverFailedError: A connection was refused, ended, or missed what was appended; no figure is given then.
        SystemFailedError: The system did not work.
    """
    environment = describe_environment()
    program = compile_native("stream_client", rig.folder)
    crowd = _Crowd(setup, rig, program, progress)
    with rig.extra_node("connections", STORM_CONFIG) as node:
        storm, held, proved = crowd.storm(node)
    paced = crowd.paced(rig.nodes[0])
    overrides = {**rig.overrides, "node (storm and memory)": STORM_CONFIG}
    return connections_report(setup, ConnectionsResult(storm, paced, held, proved), environment, overrides)


def _slab_bytes() -> int:
    found = _SLAB.search(Path("/proc/meminfo").read_text())
    return int(found.group(1)) * 1024 if found is not None else 0


class _Crowd:
    """The connections of one benchmark."""

    def __init__(
        self, setup: ConnectionsSetup, rig: Rig, program: Path, progress: Callable[[str], None]
    ) -> None:
        self._setup = setup
        self._rig = rig
        self._program = program
        self._progress = progress
        self._run_ids = rig.create_runs(setup.runs)
        self._files = 0

    def storm(self, node: NodeUnderTest) -> tuple[list[Batch], Held, int]:
        """Connect everybody as fast as they get in, hold them, and prove that all of them are there."""
        setup = self._setup
        with ExitStack() as held:
            with self._client(node, setup.warm_up) as first:
                first.open(timeout_s=_OPEN_TIMEOUT_S)
            waiting = [held.enter_context(self._client(node, setup.batch_size)) for _ in range(setup.batches)]
            self._settle(node)
            before, kernel_before, slab_before = (
                self._rig.memory(node.name),
                kernel_socket_bytes(),
                _slab_bytes(),
            )
            batches = [self._open(node, client, setup.batch_size) for client in waiting]
            cpu_before, began = cpu_s_of_process(node.pid), time.monotonic()
            self._settle(node)
            cores = (cpu_s_of_process(node.pid) - cpu_before) / max(time.monotonic() - began, 0.01)
            after = self._rig.memory(node.name)
            memory = Held(
                connections=setup.batch_size * setup.batches,
                private_bytes=after.private_bytes - before.private_bytes,
                pss_bytes=after.pss_bytes - before.pss_bytes,
                rss_bytes=after.rss_bytes - before.rss_bytes,
                rss_before_bytes=before.rss_bytes,
                kernel_bytes=kernel_socket_bytes() - kernel_before,
                slab_bytes=_slab_bytes() - slab_before,
                idle_cores=cores,
            )
            self._progress(
                f"{memory.connections} idle: {memory.private_bytes / memory.connections:,.0f} bytes each"
            )
            return batches, memory, self._prove(waiting)

    def paced(self, node: NodeUnderTest) -> list[Batch]:
        """Connect some at the pace of the default admission, each batch after the one before it has left."""
        size = self._setup.batch_size
        batches = []
        for _ in range(self._setup.paced_batches):
            with self._client(node, size, opens_per_s=PACED_PER_S) as client:
                self._settle(node)
                batches.append(self._open(node, client, size))
        return batches

    def _client(self, node: NodeUnderTest, count: int, *, opens_per_s: float = 0.0) -> NativeClient:
        """Return a client program with real tokens; nobody is connected yet."""
        topics = [format_run_events(self._run_ids[number % len(self._run_ids)]) for number in range(count)]

        async def mint() -> list[Preamble]:
            async with open_access(self._rig) as access:
                viewers = await access.mint([[topic] for topic in topics])
            return [
                Preamble.of_subscriber(
                    viewer.token, viewer.device_id, [TopicStart(topic, FROM_NOW)], path=node.path
                )
                for viewer, topic in zip(viewers, topics, strict=True)
            ]

        self._files += 1
        file = self._rig.folder / f"connections-{self._files}.preambles"
        write_preambles(file, trio.run(mint))
        self._progress(f"{count} tokens minted")
        return NativeClient(
            self._program,
            node.port,
            file,
            opens_per_s=opens_per_s,
            opening_max=_OPENING_MAX,
            verify_payload=False,
        )

    def _open(self, node: NodeUnderTest, client: NativeClient, count: int) -> Batch:
        cpu_before, began = cpu_s_of_process(node.pid), time.monotonic()
        client.open(timeout_s=_OPEN_TIMEOUT_S)
        batch = Batch(count, cpu_s_of_process(node.pid) - cpu_before, time.monotonic() - began)
        self._progress(f"{count} connected: {batch.per_cpu_s:,.0f} per CPU second, {batch.wall_s:.2f} s")
        return batch

    def _settle(self, node: NodeUnderTest) -> None:
        """Let what the last thing left behind come to an end."""
        time.sleep(self._setup.settle_s)  # noqa: TID251 - idle time is what is measured, outside of any event loop
        assert node.metrics()["khala_node_handshakes_open"] == 0

    def _prove(self, clients: Sequence[NativeClient]) -> int:
        """Append one event to each run; return how many received theirs, which is everybody."""
        head_seq = 2
        for client in clients:
            client.begin_run(head_seq, timeout_s=_PROOF_TIMEOUT_S)

        async def append() -> None:
            event = OutgoingEvent.of("output", {"text": "x" * 200})
            async with open_access(self._rig) as access:
                for run_id in self._run_ids:
                    acks = await access.runtime.append(
                        run_id, [event], idempotency_key=secrets.token_hex(8), expected_seq=head_seq - 1
                    )
                    assert acks[-1].seq == head_seq

        trio.run(append)
        received = [client.end_run(timeout_s=_PROOF_TIMEOUT_S) for client in clients]
        return sum(one.frames for one in received)
