"""``khala load topics``: 20,000 topics of 1,024 frames each through one node, within its memory budgets.

Every topic is followed, by connections with 250 of them each, and gets its frames in rounds, so that windows
of topics that had to give way grow again. Only heads are written to the database, not 20 million rows: the
position check compares with them, and nobody replays. Records are sealed with the system's fan-out key and
published to its broker, never more at once than clients have taken. A client in C verifies +1 and payload.
"""

from __future__ import annotations

import json
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.delivery_client import DeliveryClient
from chaos.load.known_payloads import payload_of_seq
from chaos.load.native_tools import compile_native
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from chaos.load.rig import open_access
from fanout_drivers.subjects import encode_subject
from khala.cli.up_secrets import FANOUT_KEY_ID
from khala_contracts.chain import chain_start
from khala_contracts.codec import EntryTemplate, TopicStart
from khala_contracts.fanout_records import FanoutRecord, RecordSigner
from khala_contracts.topics import format_app

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from chaos.load.rig import Rig

__all__ = ["ManyTopicsResult", "ManyTopicsSetup", "measure_topics"]

KIND: Final = "output"
OWNER_ROLE: Final = "khala_runtime_owner"
_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.01
_HEADER_BYTES: Final = 2
# Read twice for each of these: /metrics and smaps_rollup cost the node some milliseconds.
_TOPICS_PER_SAMPLE: Final = 500


@attrs.frozen
class ManyTopicsSetup:
    """What is done.

    Attributes:
        topics: In all.
        frames: That each gets.
        rounds: In so many records, one for each topic before the next.
        payload_bytes: Of each frame, 18..129.
        topics_per_connection: At most 256.
        in_flight: Records that have been published and not been taken by a client.
    """

    topics: int = 20_000
    frames: int = 1_024
    rounds: int = 4
    payload_bytes: int = 40
    topics_per_connection: int = 250
    in_flight: int = 40

    @property
    def frames_per_record(self) -> int:
        """Of each topic, in each round."""
        return self.frames // self.rounds


# A record that the driver has not brought yet would be read from the journal, where no rows are.
NODE_CONFIG: Final[Mapping[str, object]] = {"limits": {"heal_delay_s": 3_600.0}}


@attrs.frozen
class ManyTopicsResult:
    """What was found; bytes.

    Attributes:
        topics_live: As the node counted them.
        frames: That clients got and verified.
        memory_before: Of the node, before anybody had connected.
        memory_followed: When all topics were followed, and none had a frame.
        memory_max: The most while frames passed.
        windows_max: The most that the node counted for the frames in its windows.
        node_cpu_s: While frames passed.
    """

    topics_live: int
    frames: int
    memory_before: int
    memory_followed: int
    memory_max: int
    windows_max: int
    node_cpu_s: float


def measure_topics(setup: ManyTopicsSetup, rig: Rig, progress: Callable[[str], None]) -> ManyTopicsResult:
    """Follow all topics and send their frames; return what the node held.

    Raises:
        ReceiverFailedError: A client got what no client may get, or lacks something.
        SystemFailedError: The system did not do its part.
        CompilerMissingError: There is no C compiler.
    """
    return trio.run(_Load(setup, rig, compile_native("delivery_client", rig.folder), progress).run)


class _Load:
    def __init__(
        self, setup: ManyTopicsSetup, rig: Rig, program: Path, progress: Callable[[str], None]
    ) -> None:
        self._setup = setup
        self._rig = rig
        self._node = rig.nodes[0]
        self._program = program
        self._progress = progress
        # All of one length, so that the frames of one are those of another with another name in them.
        self._topics = [format_app(rig.org_id, f"t{number:06d}") for number in range(setup.topics)]
        self._chains = [secrets.token_bytes(32) for _ in range(setup.rounds)]
        self._memory_max = self._windows_max = 0
        self._lineage = ""

    async def run(self) -> ManyTopicsResult:
        setup = self._setup
        ((self._lineage,),) = self._rig.system.query("SELECT id FROM runtime.lineage WHERE is_current")
        self._write_heads()
        memory_before = self._memory()
        with DeliveryClient(self._program, self._node.port, await self._preambles()) as clients:
            clients.command(f"open {_TIMEOUT_S}", timeout_s=_TIMEOUT_S)
            memory_followed = self._memory()
            topics_live = round(self._node.metrics()["khala_node_topics_live"])
            self._progress(f"{topics_live} topics: the node holds {memory_followed >> 20} MiB")
            self._move_heads()
            cpu_before = self._rig.cpu_s()[self._node.name]
            async with await self._open_broker() as broker:
                for number in range(setup.rounds):
                    await self._send_round(broker, clients, number)
            cpu_s = self._rig.cpu_s()[self._node.name] - cpu_before
        return ManyTopicsResult(
            topics_live,
            setup.topics * setup.rounds * setup.frames_per_record,
            memory_before,
            memory_followed,
            self._memory_max,
            self._windows_max,
            cpu_s,
        )

    # -- the authority -----------------------------------------------------------------------------------

    def _write_heads(self) -> None:
        """Make the topics, all of them empty."""
        rows = ",\n".join(
            f"('{topic}', 'app', 0, '\\x{chain_start(topic).hex()}', 0, 1, '\\x{chain_start(topic).hex()}', 0, 'none', "
            f"NULL, '{self._rig.org_id}', clock_timestamp())"
            for topic in self._topics
        )
        self._query(f"INSERT INTO runtime.topic_heads VALUES {rows}")  # noqa: S608 - names of our own

    def _move_heads(self) -> None:
        """Say where all topics end; their records follow."""
        head = self._setup.rounds * self._setup.frames_per_record
        self._query(
            f"UPDATE runtime.topic_heads SET head_seq = {head}, head_chain = '\\x{self._chains[-1].hex()}' "  # noqa: S608
            "WHERE topic_class = 'app'"
        )

    def _query(self, sql: str) -> None:
        self._rig.system.query(sql, role=OWNER_ROLE, timeout_s=_TIMEOUT_S)

    # -- clients -----------------------------------------------------------------------------------------

    async def _preambles(self) -> Path:
        size = self._setup.topics_per_connection
        topics_of_each = [self._topics[first : first + size] for first in range(0, len(self._topics), size)]
        async with open_access(self._rig) as access:
            viewers = await access.mint(topics_of_each)
        file = self._rig.folder / "topics.preambles"
        write_preambles(
            file,
            [
                Preamble.of_subscriber(
                    v.token, v.device_id, [TopicStart(t, FROM_NOW) for t in topics], path=self._node.path
                )
                for v, topics in zip(viewers, topics_of_each, strict=True)
            ],
        )
        return file

    # -- frames ------------------------------------------------------------------------------------------

    async def _open_broker(self) -> trio.SocketStream:
        fanout = self._rig.fanout_config()
        servers = fanout["nats_servers"]
        assert isinstance(servers, list)
        stream = await trio.open_tcp_stream("127.0.0.1", int(str(servers[0]).rpartition(":")[2]))
        options = {
            "verbose": False,
            "user": "khala-runtime",
            "pass": self._rig.secret("nats_runtime"),
        }
        await stream.send_all(f"CONNECT {json.dumps(options)}\r\n".encode())
        return stream

    async def _send_round(self, broker: trio.SocketStream, clients: DeliveryClient, number: int) -> None:
        setup = self._setup
        signer = RecordSigner(FANOUT_KEY_ID, bytes.fromhex(self._rig.secret("fanout_key")))
        prefix = str(self._rig.fanout_config().get("subject_prefix", "khala"))
        first = number * setup.frames_per_record + 1
        last = first + setup.frames_per_record - 1
        model = EntryTemplate(self._topics[0])
        entries = [model.entry(seq, KIND, self._payload(seq), 1) for seq in range(first, last + 1)]
        record = partial(
            FanoutRecord, lineage=self._lineage, first_seq=first, last_seq=last, committed_at_us=1
        )
        for index, topic in enumerate(self._topics):
            names = self._topics[0].encode(), topic.encode()
            sealed = signer.seal(
                record(
                    topic=topic,
                    chain_before=self._chains[number - 1] if number else chain_start(topic),
                    chain_after=self._chains[number],
                    entries=tuple(entry.replace(*names) for entry in entries),
                )
            )
            subject = encode_subject(prefix, topic)
            await broker.send_all(f"PUB {subject} {len(sealed)}\r\n".encode() + sealed + b"\r\n")
            if (index + 1) % setup.in_flight == 0 or index + 1 == len(self._topics):
                done = number * len(self._topics) + index + 1
                await self._wait_for(clients, done * setup.frames_per_record)
            if index % _TOPICS_PER_SAMPLE == 0:
                self._sample()
        self._sample()
        self._progress(f"round {number + 1}: the node holds {self._memory_max >> 20} MiB")

    def _payload(self, seq: int) -> bytes:
        # Output{text = 2} of a text below 128 bytes.
        size = self._setup.payload_bytes - _HEADER_BYTES
        return b"\x12" + bytes((size,)) + payload_of_seq(seq, size)

    async def _wait_for(self, clients: DeliveryClient, frames: int) -> None:
        with trio.fail_after(_TIMEOUT_S):
            # What is waited for happens in another process.
            while clients.command("wait 0")["frames"] < frames:  # noqa: ASYNC110
                await trio.sleep(_POLL_S)

    def _sample(self) -> None:
        self._memory_max = max(self._memory_max, self._memory())
        windows = self._node.metrics()["khala_node_windows_bytes"]
        self._windows_max = max(self._windows_max, round(windows))

    def _memory(self) -> int:
        return self._rig.memory(self._node.name).rss_bytes
