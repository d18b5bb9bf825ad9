"""Who sends in the stadium: a node, the C loop of send(2), a broadcast server. The same receiver takes all.

A side is opened with its subscribers, who stay for every measurement, and then sends prepared records; what
arrived, and when, the receiver says (``stream_client.c``), which verifies that every frame follows the one
before and has the payload of its seq. Time is the receiver's: from the first frame to the last.
"""

from __future__ import annotations

import struct
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from chaos.load.native_client import NativeClient, NativeProgram, ReceiverFailedError
from chaos.load.preambles import FROM_NOW, Preamble, upgrade_request, write_preambles
from chaos.load.process_figures import cpu_s_of_process
from fanout_drivers.subjects import encode_subject
from khala.core.limits import NodeLimits
from khala_contracts.codec import TopicStart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chaos.load.committed_records import CommittedRecord, TopicWriter
    from chaos.load.native_client import Received
    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["Programs", "Run", "Side", "broadcast_side", "loop_side", "node_side"]

OPEN_TIMEOUT_S: Final = 120.0
RUN_TIMEOUT_S: Final = 120.0
# The receiver is not woken for each frame. On loopback a sender pays for waking a receiver that waits: twice
# its own send(2), measured, and only a sender that is slower than the receiver, which a network would not do
# to it. Shorter: the receiver is always awake. Longer: what waits fills the buffers.
LOOK_EVERY_US: Final = 5_000
# The node's own default, which the loop gets too.
SEND_BUFFER_BYTES: Final = NodeLimits().send_buffer_bytes
_LENGTH: Final = struct.Struct("<I")
_SEQ_LENGTH: Final = struct.Struct("<qI")


@attrs.frozen
class Programs:
    """The compiled programs, and a folder for their files."""

    folder: Path
    client: Path
    feed: Path
    send_loop: Path


@attrs.frozen
class Run:
    """One measurement of one side.

    Attributes:
        deliveries: Frames times subscribers.
        seconds: By the receiver, from the first frame to the last.
        cpu_s: Of the process that sends.
        client_cpu_s: Of the receiver.
        sender_s: By the sender's own clock, until the kernel had taken the last byte; None if it has none.
    """

    deliveries: int
    seconds: float
    cpu_s: float
    client_cpu_s: float
    sender_s: float | None = None

    @property
    def per_s(self) -> float:
        """Deliveries per second, by the receiver."""
        # A row of a few frames that is found in one look took less time than that, and nobody knows how much.
        return self.deliveries / max(self.seconds, LOOK_EVERY_US / 1_000_000)

    @property
    def per_sender_s(self) -> float:
        """Deliveries per second, by the sender's clock if it has one."""
        return self.deliveries / (self.sender_s or self.seconds)

    @property
    def cpu_us(self) -> float:
        """Microseconds of the sender's CPU for one delivery."""
        return self.cpu_s / self.deliveries * 1e6


class Side(Protocol):
    """Somebody who sends."""

    @property
    def name(self) -> str:
        """As the report calls it."""

    @property
    def head_seq(self) -> int:
        """Up to where its subscribers have everything."""

    def run(self, records: Sequence[CommittedRecord]) -> Run:
        """Send the records, one write for each, and return what was measured.

        Raises:
            ReceiverFailedError: A subscriber did not get exactly these frames.
        """


@attrs.define
class NodeSide:
    """``khala node``, fed through the broker; the first of its subscribers is the feed itself."""

    name: str
    node: NodeUnderTest
    writer: TopicWriter
    subscribers: int
    _folder: Path
    _feed: NativeProgram
    _client: NativeClient
    head_seq: int = 0

    def run(self, records: Sequence[CommittedRecord]) -> Run:
        """See Side."""
        file = self._folder / f"{self.name}.records"
        with file.open("wb") as output:
            for record in records:
                output.write(_SEQ_LENGTH.pack(record.last_seq, len(record.sealed)) + record.sealed)
        before = self.node.metrics()
        cpu_before = cpu_s_of_process(self.node.pid)
        self._client.begin_run(records[-1].last_seq, timeout_s=RUN_TIMEOUT_S)
        _judge(self._feed.ask(f"run {file} {RUN_TIMEOUT_S}", timeout_s=2 * RUN_TIMEOUT_S))
        received = self._client.end_run(timeout_s=RUN_TIMEOUT_S)
        cpu_s = cpu_s_of_process(self.node.pid) - cpu_before
        self._judge_records(before, len(records))
        self.head_seq = records[-1].last_seq
        return _measured(records, self.subscribers, received, cpu_s)

    def _judge_records(self, before: dict[str, float], records: int) -> None:
        """Every record must have been used as it came: what was read from the journal was not fed."""
        after = self.node.metrics()
        name = 'khala_node_records_total{decision="apply"}'
        applied, heals = (after[key] - before[key] for key in (name, "khala_node_heals_total"))
        if applied != records or heals:
            raise ReceiverFailedError(f"{applied:.0f} of {records} records were used, {heals:.0f} heals")


@contextmanager
def node_side(
    name: str, rig: Rig, node: NodeUnderTest, writer: TopicWriter, programs: Programs, *, subscribers: int
) -> Iterator[Side]:
    """Mint a token for each subscriber, connect all of them, and feed the topic of ``writer``.

    Raises:
        ReceiverFailedError: Somebody was refused.
    """
    viewers = rig.mint(subscribers, [writer.topic])
    preambles = [
        Preamble.of_subscriber(viewer.token, viewer.device_id, [TopicStart(writer.topic, FROM_NOW)])
        for viewer in viewers
    ]
    first, others = programs.folder / f"{name}.first", programs.folder / f"{name}.others"
    write_preambles(first, preambles[:1])
    write_preambles(others, preambles[1:])
    fanout = rig.fanout_config()
    (server,) = _list(fanout["nats_servers"])
    subject = encode_subject(str(fanout.get("subject_prefix", "khala")), writer.topic)
    command = [
        str(programs.feed), server.rpartition(":")[2], "khala-runtime", subject, str(node.port), str(first),
    ]  # fmt: skip
    with ExitStack() as held:
        feed = held.enter_context(
            NativeProgram(command, secrets={"NATS_PASSWORD": rig.secret("nats_runtime")})
        )
        _judge(feed.ask("open", timeout_s=OPEN_TIMEOUT_S))
        client = held.enter_context(
            NativeClient(programs.client, node.port, others, look_every_us=LOOK_EVERY_US)
        )
        client.open(timeout_s=OPEN_TIMEOUT_S)
        yield NodeSide(name, node, writer, subscribers, programs.folder, feed, client, writer.head_seq)


@attrs.define
class ServerSide:
    """A server that sends messages from a file: the C loop, or a peer."""

    name: str
    subscribers: int
    _folder: Path
    _server: NativeProgram
    _client: NativeClient
    _has_header: bool
    _has_clock: bool
    head_seq: int = 0

    def run(self, records: Sequence[CommittedRecord]) -> Run:
        """See Side."""
        file = self._folder / f"{self.name}.messages"
        with file.open("wb") as output:
            for record in records:
                message = record.message if self._has_header else record.body
                output.write(_LENGTH.pack(len(message)) + message)
        self._client.begin_run(records[-1].last_seq, timeout_s=RUN_TIMEOUT_S)
        self._server.say(f"run {file}")
        received = self._client.end_run(timeout_s=RUN_TIMEOUT_S)
        sent = self._server.read(timeout_s=RUN_TIMEOUT_S)
        self.head_seq = records[-1].last_seq
        sender_s = sent["seconds"] if self._has_clock else None
        return _measured(records, self.subscribers, received, sent["cpu_s"], sender_s)


@contextmanager
def loop_side(topic: str, head_seq: int, programs: Programs, *, subscribers: int) -> Iterator[Side]:
    """Start the C loop: the same bytes, the same send buffer, one send(2) for each subscriber and write."""
    command = [str(programs.send_loop), str(subscribers), str(SEND_BUFFER_BYTES)]
    preamble = Preamble(b"", b"", [(topic, head_seq)])
    with _server_side("send_loop", command, preamble, programs, subscribers, has_header=True) as side:
        yield side


@contextmanager
def broadcast_side(topic: str, head_seq: int, programs: Programs, *, subscribers: int) -> Iterator[Side]:
    """Start the broadcast server of `websockets`; nothing but the sending is asked of it."""
    command = [sys.executable, "-m", "chaos.load.broadcast_server", str(subscribers)]
    preamble = Preamble(upgrade_request("localhost", "/", None), b"", [(topic, head_seq)])
    with _server_side("broadcast", command, preamble, programs, subscribers, has_header=False) as side:
        yield side


@contextmanager
def _server_side(
    name: str,
    command: Sequence[str],
    preamble: Preamble,
    programs: Programs,
    subscribers: int,
    *,
    has_header: bool,
) -> Iterator[Side]:
    file = programs.folder / f"{name}.preambles"
    write_preambles(file, [preamble] * subscribers)
    ((_, head_seq),) = preamble.expected
    with NativeProgram(command) as server:
        port = int(server.read_line(timeout_s=OPEN_TIMEOUT_S))
        with NativeClient(programs.client, port, file, opens_per_s=0, look_every_us=LOOK_EVERY_US) as client:
            client.open(timeout_s=OPEN_TIMEOUT_S)
            server.read_line(timeout_s=OPEN_TIMEOUT_S)
            # A server without headers of ours queues what it cannot send: its own clock says nothing.
            yield ServerSide(
                name, subscribers, programs.folder, server, client, has_header, has_header, head_seq
            )


def _measured(
    records: Sequence[CommittedRecord],
    subscribers: int,
    received: Received,
    cpu_s: float,
    sender_s: float | None = None,
) -> Run:
    frames = records[-1].last_seq - records[0].first_seq + 1
    return Run(frames * subscribers, received.seconds, cpu_s, received.cpu_s, sender_s)


def _judge(answer: dict[str, Any]) -> None:
    if not answer["done"] or answer["violations"] or answer["ended"]:
        raise ReceiverFailedError(f"the feed says: {answer}")


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value
