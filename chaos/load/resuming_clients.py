"""Clients that are connected, and start a topic again from where they are told: replays, measured by themselves.

Each has a real token and is subscribed when it is opened; ``resume`` then sends the same subscribe on every
connection and waits until each has been told ``replay_complete``. What a hello costs is not in it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.native_client import NativeClient
from chaos.load.preambles import FROM_NOW, Preamble, mask_message, write_preambles
from chaos.load.process_figures import cpu_s_of_process
from khala_contracts.codec import CursorStart, Subscribe, TopicStart, encode_client_message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.load.native_client import Received
    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["Replayed", "ResumingClients", "resuming_clients"]

OPEN_TIMEOUT_S: Final = 120.0
REPLAY_TIMEOUT_S: Final = 60.0


@attrs.frozen
class Replayed:
    """One replay to all clients.

    Attributes:
        frames: That all of them got together.
        seconds: From the first byte of the first subscribe to the last ``replay_complete``, by the clients.
        node_cpu_s: Of the node.
        client_cpu_s: Of the clients' process.
    """

    frames: int
    seconds: float
    node_cpu_s: float
    client_cpu_s: float


@attrs.define
class ResumingClients:
    """Connected clients of one topic on one node."""

    topic: str
    node: NodeUnderTest
    _lineage: str
    _native: NativeClient
    _file: Path

    def resume(self, after_seq: int, *, head_seq: int) -> Replayed:
        """Let every client resume after ``after_seq``; return when each has everything up to the head.

        Raises:
            ReceiverFailedError: A client missed something, or it took too long.
        """
        start = CursorStart(after_seq, self._lineage if after_seq else "")
        message = encode_client_message(Subscribe((TopicStart(self.topic, start),)))
        self._file.write_bytes(mask_message(message))
        before = cpu_s_of_process(self.node.pid)
        received = self._native.tell(self._file, through_seq=head_seq, timeout_s=REPLAY_TIMEOUT_S)
        node_cpu_s = cpu_s_of_process(self.node.pid) - before
        return Replayed(received.frames, received.seconds, node_cpu_s, received.cpu_s)

    def follow(self, head_seq: int) -> Received:
        """Wait until every client has the live frames up to ``head_seq``."""
        self._native.begin_run(head_seq, timeout_s=REPLAY_TIMEOUT_S)
        return self._native.end_run(timeout_s=REPLAY_TIMEOUT_S)


@contextmanager
def resuming_clients(
    rig: Rig, node: NodeUnderTest, topic: str, program: Path, *, count: int
) -> Iterator[ResumingClients]:
    """Mint tokens, connect so many clients and subscribe them at the head.

    Args:
        rig: The system.
        node: One of its nodes.
        topic: Must exist.
        program: ``stream_client``, compiled.
        count: How many.

    Raises:
        ReceiverFailedError: Somebody was refused.
    """
    viewers = rig.mint(count, [topic])
    ((lineage,),) = rig.system.query("SELECT id FROM runtime.lineage WHERE is_current")
    name = f"{node.name}-{topic.replace(':', '-')}"
    preambles = rig.folder / f"{name}.preambles"
    write_preambles(
        preambles,
        [Preamble.of_subscriber(v.token, v.device_id, [TopicStart(topic, FROM_NOW)]) for v in viewers],
    )
    with NativeClient(program, node.port, preambles) as native:
        native.open(timeout_s=OPEN_TIMEOUT_S)
        yield ResumingClients(topic, node, lineage, native, rig.folder / f"{name}.subscribe")
