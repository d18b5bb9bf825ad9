"""``khala load slow-consumer``: a hundred clients of one topic, ten of which stop reading.

Runs in turn, on one system, each on a run of its own:

    reading    everybody reads                       how late frames are for the ninety
    stalled    ten take nothing any more             the same ninety beside them; what the node does about the ten

In both, one more client reads half of what the topic grows by, through a small buffer. The load is judged,
not only timed: every frame of every client follows the one before it and has the payload that was written;
the ten come back with the cursors of what they have, and get the rest; whoever reads slowly is not released.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.delivery_client import DeliveryClient, EndState, committed_ns, percentile, read_log
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import compile_native
from chaos.load.paced_feed import RunFeed, run_feeds
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from chaos.load.rig import open_access
from chaos.load.system_under_test import SystemFailedError
from khala_contracts.codec import CursorStart, TopicStart
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chaos.load.rig import Rig, Viewer
    from khala_contracts.codec import FromStart

__all__ = ["ArmResult", "SlowConsumerSetup", "measure_arms"]

WARM_UP_S: Final = 1.0
SAMPLE_EVERY_S: Final = 0.5
_CATCH_UP_TIMEOUT_S: Final = 60.0
# Of a frame on the wire above its payload: topic, seq, kind and their headers.
_FRAME_OVERHEAD_BYTES: Final = 70
CLOSED_AS_SLOW: Final = 'khala_node_closes_total{reason="slow_consumer"}'


@attrs.frozen
class SlowConsumerSetup:
    """What one run does.

    Attributes:
        clients: In all; the last ``stalled`` of them are those that stop.
        stalled: They read through a small buffer, as the one at half the rate does.
        frames_per_s: What the topic gets.
        payload_bytes: Of each frame.
        seconds: How long the measurement takes, from the moment at which they stop.
        receive_buffer_bytes: SO_RCVBUF of the slow ones; Linux doubles it.
        pairs: Runs of each form, in turn.
    """

    clients: int = 100
    stalled: int = 10
    frames_per_s: float = 100.0
    payload_bytes: int = 1_024
    seconds: float = 16.0
    receive_buffer_bytes: int = 4_096
    pairs: int = 5


@attrs.frozen
class ArmResult:
    """What one run has shown.

    Attributes:
        p50_ms: Of deliveries to those who always read, after the commit.
        p99_ms: The same.
        deliveries: Of which these are.
        node_growth_bytes: The most that the node held in the run above what it held before.
        acted_after_s: Until as many were closed as had stopped; None if nobody had.
        completed: Of those who had stopped, how many had everything after coming back.
        close_codes: That those who had stopped got; 0 where the socket ended without one.
        half_rate_missing: Frames that the client at half the rate did not get.
        frames_per_s: What the topic got.
        actions: What the node counted in the run, by action and tier.
    """

    p50_ms: float
    p99_ms: float
    deliveries: int
    node_growth_bytes: int
    acted_after_s: float | None
    completed: int
    close_codes: Sequence[int]
    half_rate_missing: int
    frames_per_s: float
    actions: dict[str, float]


def measure_arms(
    setup: SlowConsumerSetup, rig: Rig, progress: Callable[[str], None]
) -> tuple[list[ArmResult], list[ArmResult]]:
    """Run both forms in turn; return the results where everybody reads, and where some have stopped.

    Raises:
        ReceiverFailedError: Somebody got what no client may get, or lacks something.
        SystemFailedError: The system did not do its part.
        CompilerMissingError: There is no C compiler.
    """
    program = compile_native("delivery_client", rig.folder)
    reading: list[ArmResult] = []
    stalled: list[ArmResult] = []
    for pair in range(setup.pairs):
        for name, results, is_stalling in (("reading", reading, False), ("stalled", stalled, True)):
            results.append(trio.run(_Arm(setup, rig, program, is_stalling=is_stalling).run))
            progress(f"pair {pair + 1}, {name}: p99 {results[-1].p99_ms:.2f} ms")
    return reading, stalled


class _Arm:
    """One run of one form."""

    def __init__(self, setup: SlowConsumerSetup, rig: Rig, program: Path, *, is_stalling: bool) -> None:
        self._setup = setup
        self._rig = rig
        self._node = rig.nodes[0]
        self._program = program
        self._is_stalling = is_stalling
        self._log = rig.folder / "receipts.log"
        self._feed = RunFeed("", setup.frames_per_s, payload_bytes=setup.payload_bytes)
        self._topic = ""
        self._growth_bytes = 0
        self._acted_after_s: float | None = None

    async def run(self) -> ArmResult:
        """Run it; see ``measure_arms``."""
        setup = self._setup
        async with open_access(self._rig) as self._access:
            (self._feed.run_id,) = await self._access.create_runs(1)
            self._topic = format_run_events(self._feed.run_id)
            viewers = await self._access.mint([[self._topic]] * (setup.clients + 1))
            always = setup.clients - setup.stalled
            with (
                self._client("always", viewers[:always], log=self._log) as reading,
                self._client(
                    "slow", viewers[always:], receive_buffer_bytes=setup.receive_buffer_bytes
                ) as slow,
            ):
                for client in (reading, slow):
                    client.command(f"open {_CATCH_UP_TIMEOUT_S}", timeout_s=_CATCH_UP_TIMEOUT_S)
                before = self._metrics()
                began_ns, ended_ns = await self._feed_and_watch(slow)
                head_seq = self._feed.head_seq
                slow.command("resume")
                for client in (reading, slow):
                    client.command(f"until 0 {head_seq} {_CATCH_UP_TIMEOUT_S}", timeout_s=_CATCH_UP_TIMEOUT_S)
                self._judge_readers(reading.report())
                states = slow.report()
            actions = {
                name: value - before[name] for name, value in self._metrics().items() if value > before[name]
            }
            completed = await self._come_back(states[:-1], head_seq) if self._is_stalling else 0
        committed = committed_ns(self._rig, self._topic)
        late_ms = [
            (receipt.received_ns - committed[receipt.seq]) / 1e6
            for receipt in read_log(self._log)
            if began_ns <= committed[receipt.seq] <= ended_ns
        ]
        if not late_ms:
            raise SystemFailedError("nothing was committed while it was measured")
        return ArmResult(
            p50_ms=percentile(late_ms, 0.5),
            p99_ms=percentile(late_ms, 0.99),
            deliveries=len(late_ms),
            node_growth_bytes=self._growth_bytes,
            acted_after_s=self._acted_after_s,
            completed=completed,
            close_codes=[state.close_code for state in states[:-1]] if self._is_stalling else [],
            half_rate_missing=head_seq - states[-1].last_seqs[0],
            frames_per_s=sum(began_ns <= at <= ended_ns for at in committed.values())
            / (ended_ns - began_ns)
            * 1e9,
            actions=actions,
        )

    def _client(
        self, name: str, viewers: Sequence[Viewer], *, log: Path | None = None, receive_buffer_bytes: int = 0
    ) -> DeliveryClient:
        return self._connect(name, [(viewer, FROM_NOW) for viewer in viewers], log, receive_buffer_bytes)

    def _connect(
        self,
        name: str,
        starts: Sequence[tuple[Viewer, CursorStart | FromStart]],
        log: Path | None = None,
        receive_buffer_bytes: int = 0,
    ) -> DeliveryClient:
        file = self._rig.folder / f"{name}.preambles"
        write_preambles(
            file,
            [
                Preamble.of_subscriber(
                    v.token, v.device_id, [TopicStart(self._topic, start)], path=self._node.path
                )
                for v, start in starts
            ],
        )
        return DeliveryClient(
            self._program, self._node.port, file, log=log, receive_buffer_bytes=receive_buffer_bytes
        )

    async def _feed_and_watch(self, slow: DeliveryClient) -> tuple[int, int]:
        """Feed the topic, let some stop reading, and look at the node; return from when to when."""
        setup, over = self._setup, trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_feeds(self._rig, [self._feed], until=over))
            await trio.sleep(WARM_UP_S)
            half_rate = setup.frames_per_s * (setup.payload_bytes + _FRAME_OVERHEAD_BYTES) / 2
            slow.command(f"pace {setup.stalled} 1 {half_rate}")
            closed_before = self._metrics().get(CLOSED_AS_SLOW, 0.0)
            held_before = self._rig.memory(self._node.name).rss_bytes
            if self._is_stalling:
                slow.command(f"stall 0 {setup.stalled}")
            began_ns, began = time.time_ns(), trio.current_time()
            while (passed_s := trio.current_time() - began) < setup.seconds:
                held = self._rig.memory(self._node.name).rss_bytes
                self._growth_bytes = max(self._growth_bytes, held - held_before)
                # In a thread: the node answers when it has time, and the feed must not wait for that.
                metrics = await trio.to_thread.run_sync(self._node.metrics)
                closed = metrics.get(CLOSED_AS_SLOW, 0.0) - closed_before
                if self._is_stalling and self._acted_after_s is None and closed >= setup.stalled:
                    self._acted_after_s = passed_s
                await trio.sleep(SAMPLE_EVERY_S)
            ended_ns = time.time_ns()
            over.set()
        return began_ns, ended_ns

    def _metrics(self) -> dict[str, float]:
        shown = self._node.metrics()
        return {name: value for name, value in shown.items() if "slow_consumer" in name}

    def _judge_readers(self, states: Sequence[EndState]) -> None:
        ended = [state for state in states if state.is_ended]
        if ended:
            raise ReceiverFailedError(f"{len(ended)} who always read were ended: {ended[0]}")

    async def _come_back(self, states: Sequence[EndState], head_seq: int) -> int:
        """Connect those who had stopped anew, each with its cursor; return how many get everything."""
        viewers = await self._access.mint([[self._topic]] * len(states))
        starts = [self._cursor(state.last_seqs[0]) for state in states]
        with self._connect("back", list(zip(viewers, starts, strict=True))) as back:
            back.command(f"open {_CATCH_UP_TIMEOUT_S}", timeout_s=_CATCH_UP_TIMEOUT_S)
            back.command(f"until 0 {head_seq} {_CATCH_UP_TIMEOUT_S}", timeout_s=_CATCH_UP_TIMEOUT_S)
            return sum(not s.is_ended and s.last_seqs[0] >= head_seq for s in back.report())

    def _cursor(self, seq: int) -> CursorStart:
        ((lineage, chain),) = self._rig.system.query(
            # A name made by the server.
            f"SELECT id, encode(chain, 'hex') FROM runtime.lineage, runtime.journal WHERE is_current AND topic = '{self._topic}' AND seq = {seq}"  # noqa: S608
        )
        return CursorStart(seq, lineage, bytes.fromhex(chain))
