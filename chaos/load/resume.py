"""``khala bench resume``: everybody resumes at once from the window's base, beside a C loop of send(2).

A thousand clients are connected and subscribed; then each subscribes again with a cursor from which the whole
window follows, all at the same moment, as after a network that was away. Their clock runs from the first byte
of the first subscribe to the last ``replay_complete``: reading, judging (one observation of the journal), answering
and sending are in it. The C loop sends the same bytes, cut at the same places, to as many clients of the same
program, and is asked nothing.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.committed_records import KIND, TopicWriter
from chaos.load.known_payloads import payload_of_seq
from chaos.load.native_client import NativeClient, NativeProgram, ReceiverFailedError
from chaos.load.native_tools import compile_native
from chaos.load.preambles import Preamble, write_preambles
from chaos.load.report import Report, Table, Target, show_spread
from chaos.load.resuming_clients import OPEN_TIMEOUT_S, REPLAY_TIMEOUT_S, resuming_clients
from chaos.load.statistics_of_pairs import Spread, describe_environment
from chaos.load.svg_plots import Bars
from chaos.load.system_under_test import SystemFailedError
from khala.core.limits import NodeLimits
from khala.core.websocket_frames import frame_message
from khala.core.window import Window
from khala_contracts.codec import EntryTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from chaos.load.resuming_clients import ResumingClients
    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["ResumeSetup", "measure_resume"]

TARGET_RATIO: Final = 0.6
# What the node is told by default; the loop cuts and buffers as it does.
LIMITS: Final = NodeLimits()
_LENGTH: Final = struct.Struct("<I")
_NAMES: Final = ("node", "send_loop")
_FRAMES_PER_RECORD: Final = 64


@attrs.frozen
class ResumeSetup:
    """What is measured.

    Attributes:
        subscribers: That resume at once.
        frames: That each gets: the whole window by default.
        payload_bytes: Of each frame; each size is a row. 4,000 fill a window of 4 MiB.
        rounds: Alternating.
    """

    subscribers: int = 1_000
    frames: int = LIMITS.window_max_frames
    payload_bytes: Sequence[int] = (200, 1_000, 4_000)
    rounds: int = 9


@attrs.frozen
class _Run:
    """One measurement; seconds by the clients' clock, CPU of the sender and of the clients."""

    seconds: float
    cpu_s: float
    client_cpu_s: float


@attrs.frozen
class _Row:
    payload_bytes: int
    chunks: int
    runs: Mapping[str, list[_Run]]

    def ratio(self) -> Spread:
        """Return seconds of the loop / seconds of the node, round by round."""
        pairs = zip(*(self.runs[name] for name in _NAMES), strict=True)
        return Spread.of([theirs.seconds / ours.seconds for ours, theirs in pairs])


@attrs.define
class _Loop:
    """The C loop and its clients. Each round continues where the last one ended."""

    topic: str
    frames: int
    payload_bytes: int
    _server: NativeProgram
    _client: NativeClient
    _file: Path
    _head_seq: int

    def run(self) -> _Run:
        """Send as many frames, in the node's chunks, to every client."""
        chunks = chunks_of(self.topic, self._head_seq, self.frames, self.payload_bytes)
        self._head_seq += self.frames
        self._file.write_bytes(b"".join(_LENGTH.pack(len(chunk)) + chunk for chunk in chunks))
        self._client.begin_run(self._head_seq, timeout_s=REPLAY_TIMEOUT_S)
        self._server.say(f"run {self._file}")
        received = self._client.end_run(timeout_s=REPLAY_TIMEOUT_S)
        sent = self._server.read(timeout_s=REPLAY_TIMEOUT_S)
        return _Run(max(received.seconds, sent["seconds"]), sent["cpu_s"], received.cpu_s)


def measure_resume(setup: ResumeSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Fill a window, connect everybody, run the rounds and return the report.

    Raises:
        CompilerMissingError: There is no reference without a C compiler.
        ReceiverFailedError: A client missed something; no figure is given then.
        SystemFailedError: The system did not work.
    """
    environment = describe_environment()
    programs = {name: compile_native(name, rig.folder) for name in ("stream_client", "send_loop")}
    node = rig.nodes[0]
    rows = [_measure_row(setup, size, rig, node, programs, progress) for size in setup.payload_bytes]
    return _report(setup, rows, environment, rig.overrides)


def _measure_row(
    setup: ResumeSetup,
    payload_bytes: int,
    rig: Rig,
    node: NodeUnderTest,
    programs: Mapping[str, Path],
    progress: Callable[[str], None],
) -> _Row:
    writer = TopicWriter(rig, f"app:{rig.org_id}:resume-{payload_bytes}")
    writer.commit(1, frames_per_record=1, payload_bytes=payload_bytes)
    chunks = len(chunks_of(writer.topic, 0, setup.frames, payload_bytes))
    row = _Row(payload_bytes, chunks, {name: [] for name in _NAMES})
    with ExitStack() as held:
        clients = held.enter_context(
            resuming_clients(rig, node, writer.topic, programs["stream_client"], count=setup.subscribers)
        )
        loop = held.enter_context(_loop(setup, payload_bytes, rig, writer.topic, programs))
        progress(f"{setup.subscribers} clients at each side, {payload_bytes} bytes a frame")
        # What is committed while somebody follows is in the window.
        writer.commit(
            setup.frames // _FRAMES_PER_RECORD,
            frames_per_record=_FRAMES_PER_RECORD,
            payload_bytes=payload_bytes,
        )
        clients.follow(writer.head_seq)
        pages_before = node.metrics()["khala_node_pages_read_total"]
        for number in range(setup.rounds + 1):
            found = {"node": _resume(clients, writer.head_seq, setup), "send_loop": loop.run()}
            said = ", ".join(f"{name} {run.seconds:.3f} s" for name, run in found.items())
            progress(f"round {number}{'' if number else ' (not counted)'}: {said}")
            # The first round warms both sides.
            for name in _NAMES if number else ():
                row.runs[name].append(found[name])
        if node.metrics()["khala_node_pages_read_total"] != pages_before:
            raise SystemFailedError("frames were read from the journal: the window did not hold them")
    return row


def chunks_of(topic: str, after_seq: int, frames: int, payload_bytes: int) -> list[bytes]:
    """Return what a node sends for a replay from its window, one write after the other."""
    template = EntryTemplate(topic)
    window = Window(LIMITS.window_max_frames, LIMITS.window_max_bytes)
    window.reset(after_seq, b"")
    head_seq = after_seq + frames
    window.extend(
        [
            template.entry(seq, KIND, payload_of_seq(seq, payload_bytes), 1)
            for seq in range(after_seq + 1, head_seq + 1)
        ],
        b"",
    )
    chunks, position = [], after_seq
    while position < head_seq:
        end = window.choose_end(position, max_bytes=LIMITS.chunk_max_bytes, last_seq=head_seq)
        assert end is not None, "a chunk has room for a frame"
        chunks.append(frame_message(b"".join(window.entries(position, end))))
        position = end
    return chunks


def _resume(clients: ResumingClients, head_seq: int, setup: ResumeSetup) -> _Run:
    # Another start than the last one, or the subscribe would change nothing.
    clients.resume(head_seq, head_seq=head_seq)
    replayed = clients.resume(head_seq - setup.frames, head_seq=head_seq)
    if replayed.frames != setup.frames * setup.subscribers:
        raise ReceiverFailedError(f"{replayed.frames} of {setup.frames * setup.subscribers} frames")
    return _Run(replayed.seconds, replayed.node_cpu_s, replayed.client_cpu_s)


@contextmanager
def _loop(
    setup: ResumeSetup, payload_bytes: int, rig: Rig, topic: str, programs: Mapping[str, Path]
) -> Iterator[_Loop]:
    file = rig.folder / "resume-loop.preambles"
    write_preambles(file, [Preamble(b"", b"", [(topic, 0)])] * setup.subscribers)
    command = [str(programs["send_loop"]), str(setup.subscribers), str(LIMITS.send_buffer_bytes)]
    with NativeProgram(command) as server:
        port = int(server.read_line(timeout_s=OPEN_TIMEOUT_S))
        with NativeClient(programs["stream_client"], port, file, opens_per_s=0) as client:
            client.open(timeout_s=OPEN_TIMEOUT_S)
            server.read_line(timeout_s=OPEN_TIMEOUT_S)
            messages = rig.folder / "resume-loop.messages"
            yield _Loop(topic, setup.frames, payload_bytes, server, client, messages, 0)


def _report(
    setup: ResumeSetup,
    rows: Sequence[_Row],
    environment: Mapping[str, object],
    overrides: Mapping[str, object],
) -> Report:
    return Report(
        name="resume",
        title="Resume storm: everybody at once from the window's base",
        command="khala bench resume",
        environment=environment,
        overrides=overrides,
        targets=[
            Target.at_least(
                f"{setup.subscribers:,} clients, {row.payload_bytes:,} bytes a frame, ratio to a C loop of send(2)",
                TARGET_RATIO,
                row.ratio().median,
            )
            for row in rows
        ],
        results=[_result(setup, row) for row in rows],
        tables=[_table(setup, row) for row in rows],
        plots=[
            Bars(
                "Node to send(2)",
                "ratio, round by round, by bytes of a payload",
                [(f"{row.payload_bytes:,}", [("ratio", row.ratio())]) for row in rows],
                target=TARGET_RATIO,
            )
        ],
        text=_TEXT,
        notes=_NOTES,
        not_measured=_NOT_MEASURED,
    )


_TEXT: Final = (
    "The node is `khala node` as shipped with its default configuration; every client has a real token. All are "
    "connected, then each sends a subscribe with a cursor from which the window's frames follow. Seconds are the "
    "clients', from the first byte of the first subscribe to the last `replay_complete`; the observation of the "
    "journal, rights, and the answers are in them. One program in C is all clients of a side; it verifies that each "
    "frame follows the one before and that every byte of every payload is the one written.",
    "`send_loop` sends the same frames, cut where the node cuts them, with the same `SO_SNDBUF`, one send(2) for each "
    "chunk and client, and counts only what the kernel took. Its seconds are the longer of its own and its clients'.",
)
_NOTES: Final = (
    "Ratios are taken round by round: seconds of the loop / seconds of the node.",
    "The smaller the frames, the more of the node's time is the thousand subscribes, of which the loop has none.",
)
_NOT_MEASURED: Final = (
    "Connecting and hello: `khala bench connections`.",
    "A network: everything is on loopback.",
)


def _per_s(setup: ResumeSetup, run: _Run) -> float:
    return setup.subscribers * setup.frames / run.seconds


def _result(setup: ResumeSetup, row: _Row) -> dict[str, object]:
    return {
        "subscribers": setup.subscribers,
        "frames": setup.frames,
        "payload_bytes": row.payload_bytes,
        "chunks_per_client": row.chunks,
        "ratio_to_send_loop": row.ratio().as_json(),
        "sides": {name: _side(setup, found) for name, found in row.runs.items()},
    }


def _side(setup: ResumeSetup, found: Sequence[_Run]) -> dict[str, object]:
    return {
        "frames_per_s": Spread.of([_per_s(setup, run) for run in found]).as_json(),
        "wall_s": Spread.of([run.seconds for run in found]).as_json(),
        "cpu_s": Spread.of([run.cpu_s for run in found]).as_json(),
        "client_cpu_s": Spread.of([run.client_cpu_s for run in found]).as_json(),
        "runs": [attrs.asdict(run) for run in found],
    }


def _table(setup: ResumeSetup, row: _Row) -> Table:
    rows = [
        [
            name,
            show_spread(Spread.of([run.seconds for run in found])),
            show_spread(Spread.of([_per_s(setup, run) for run in found])),
            show_spread(Spread.of([run.cpu_s for run in found])),
            show_spread(Spread.of([run.client_cpu_s for run in found])),
        ]
        for name, found in row.runs.items()
    ]
    title = (
        f"{setup.subscribers:,} clients, {setup.frames:,} frames of {row.payload_bytes:,} bytes each; "
        f"ratio {show_spread(row.ratio())}"
    )
    return Table(title, ("side", "seconds", "frames/s", "CPU s of the sender", "CPU s of the clients"), rows)
