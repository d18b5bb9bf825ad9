"""``khala bench fairness``: whether busy topics hold up quiet ones, and whether equal topics are served alike.

    one hot     one connection: a run at 2,000 events a second, and fifty quiet ones
    twenty hot  twenty connections: each a run of its own at 200 a second, and the same fifty quiet ones
    contended   one connection that reads slowly, behind by thousands of frames of each of sixteen equal runs

Times are from the commit of a quiet frame to the read that brought it. Jain's index is 1 if all topics got the
same, 1/n if one got everything: over what quiet runs got on each connection, and over the frames of equal runs
while all of them had frames waiting.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.append_client import AppendConnection
from chaos.load.delivery_client import DeliveryClient, committed_ns, percentile, read_log
from chaos.load.native_client import ReceiverFailedError
from chaos.load.paced_feed import EVENTS_PER_REQUEST_MAX, FIRST_SEQ, RunFeed, run_feeds
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from chaos.load.rig import open_access
from chaos.load.system_under_test import SystemFailedError
from khala_contracts.codec import CursorStart, TopicStart
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from chaos.load.delivery_client import Receipt
    from chaos.load.rig import Rig, RigAccess
    from khala_contracts.codec import FromStart

__all__ = [
    "ContendedResult",
    "FairnessSetup",
    "QuietResult",
    "count_contended",
    "jain_index",
    "run_contended",
    "run_hot",
]

_TIMEOUT_S: Final = 120.0
# Hot runs get so many at once at least: an append takes some milliseconds, and the next one waits for it.
_HOT_BATCH: Final = 40
# SO_RCVBUF of the slow reader: what it does not take soon waits at the node.
_SLOW_BUFFER_BYTES: Final = 16_384


@attrs.frozen
class FairnessSetup:
    """What is done.

    Attributes:
        hot_per_s: Events per second of the one hot run.
        many: Connections of the second part.
        many_hot_per_s: Events per second of the hot run of each of them.
        quiet: Quiet runs, each with one event a second.
        payload_bytes: Of each event.
        seconds: For which each of the two is fed.
        equal: Runs of the third part.
        equal_frames: That each of them has before anybody subscribes.
        read_bytes_per_s: Of the slow reader of the third part.
    """

    hot_per_s: float = 2_000.0
    many: int = 20
    many_hot_per_s: float = 200.0
    quiet: int = 50
    quiet_per_s: float = 1.0
    payload_bytes: int = 200
    seconds: float = 20.0
    equal: int = 16
    equal_frames: int = 4_000
    read_bytes_per_s: float = 2_000_000.0


@attrs.frozen
class QuietResult:
    """How quiet runs fared beside hot ones.

    Attributes:
        hot_per_s: What each hot run got on average.
        p50_ms: From commit to read, of frames of quiet runs.
        p99_ms: The same.
        max_ms: The same.
        hot_p99_ms: Of frames of hot runs.
        within_1s: Share of the quiet frames that came within a second.
        deliveries: Of quiet frames.
        jain: Over the quiet runs, of what each connection got within 250 ms; the least of all connections.
    """

    hot_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    hot_p99_ms: float
    within_1s: float
    deliveries: int
    jain: float


@attrs.frozen
class ContendedResult:
    """How equal runs shared a connection.

    Attributes:
        jain: Over the frames of each, from when all of them had begun until the first had ended.
        frames_least: Of one run in that time.
        frames_most: Of one run in that time.
    """

    jain: float
    frames_least: int
    frames_most: int


def jain_index(values: Sequence[float]) -> float:
    """Return Jain's index of fairness; nothing for anybody is fair."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def run_hot(
    setup: FairnessSetup, rig: Rig, program: Path, *, connections: int, hot_per_s: float
) -> QuietResult:
    """Feed a hot run for each connection and the quiet ones for all; return how the quiet ones fared.

    Raises:
        ReceiverFailedError: Somebody got what no client may get, or lacks something.
        SystemFailedError: The system did not do its part.
    """
    return trio.run(_HotPart(setup, rig, program, connections, hot_per_s).run)


class _HotPart:
    def __init__(
        self, setup: FairnessSetup, rig: Rig, program: Path, connections: int, hot_per_s: float
    ) -> None:
        self._setup = setup
        self._rig = rig
        self._program = program
        self._connections = connections
        self._hot_per_s = hot_per_s
        self._log = rig.folder / "fairness.log"

    async def run(self) -> QuietResult:
        setup = self._setup
        async with open_access(self._rig) as access:
            run_ids = await access.create_runs(self._connections + setup.quiet)
            hot_ids, quiet_ids = run_ids[: self._connections], run_ids[self._connections :]
            feeds = [RunFeed(run, self._hot_per_s, _HOT_BATCH, setup.payload_bytes) for run in hot_ids]
            feeds += [RunFeed(run, setup.quiet_per_s, 1, setup.payload_bytes) for run in quiet_ids]
            # On each connection the hot run is topic 0.
            runs = [[hot, *quiet_ids] for hot in hot_ids]
            with await _subscribe(self._rig, access, self._program, runs, FROM_NOW, log=self._log) as clients:
                clients.command(f"open {_TIMEOUT_S}", timeout_s=_TIMEOUT_S)
                over = trio.Event()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: run_feeds(self._rig, feeds, until=over))
                    await trio.sleep(setup.seconds)
                    over.set()
                expected = [
                    [feed.head_seq, *(f.head_seq for f in feeds[len(hot_ids) :])]
                    for feed in feeds[: len(hot_ids)]
                ]
                await _wait_for(clients, expected)
        return self._figures(hot_ids, quiet_ids, feeds)

    def _figures(
        self, hot_ids: Sequence[str], quiet_ids: Sequence[str], feeds: Sequence[RunFeed]
    ) -> QuietResult:
        committed = {run: committed_ns(self._rig, format_run_events(run)) for run in [*hot_ids, *quiet_ids]}
        hot_ms: list[float] = []
        quiet_ms: list[float] = []
        prompt = [Counter[int]() for _ in hot_ids]
        for receipt in read_log(self._log):
            run = quiet_ids[receipt.topic - 1] if receipt.topic else hot_ids[receipt.connection]
            late_ms = (receipt.received_ns - committed[run][receipt.seq]) / 1e6
            if not receipt.topic:
                hot_ms.append(late_ms)
                continue
            quiet_ms.append(late_ms)
            prompt[receipt.connection][receipt.topic] += late_ms <= 250
        if not hot_ms or not quiet_ms:
            raise SystemFailedError("nothing was committed while it was measured")
        hot_events = sum(feed.head_seq - FIRST_SEQ + 1 for feed in feeds[: len(hot_ids)])
        return QuietResult(
            hot_per_s=hot_events / len(hot_ids) / self._setup.seconds,
            p50_ms=percentile(quiet_ms, 0.5),
            p99_ms=percentile(quiet_ms, 0.99),
            max_ms=max(quiet_ms),
            hot_p99_ms=percentile(hot_ms, 0.99),
            within_1s=sum(late <= 1_000 for late in quiet_ms) / len(quiet_ms),
            deliveries=len(quiet_ms),
            jain=min(jain_index([counts[1 + n] for n in range(len(quiet_ids))]) for counts in prompt),
        )


def run_contended(setup: FairnessSetup, rig: Rig, program: Path) -> ContendedResult:
    """Fill equal runs, then let one slow reader replay all of them at once; raises as ``run_hot``."""
    return trio.run(_run_contended, setup, rig, program)


async def _run_contended(setup: FairnessSetup, rig: Rig, program: Path) -> ContendedResult:
    log = rig.folder / "fairness.log"
    async with open_access(rig) as access:
        run_ids = await access.create_runs(setup.equal)
        feeds = [RunFeed(run, 0.0, payload_bytes=setup.payload_bytes) for run in run_ids]
        # As fast as it is taken.
        async with trio.open_nursery() as nursery:
            for feed in feeds:
                nursery.start_soon(_fill, rig, feed, setup.equal_frames)
        ((lineage,),) = rig.system.query("SELECT id FROM runtime.lineage WHERE is_current")
        start = CursorStart(FIRST_SEQ - 1, lineage)
        with await _subscribe(
            rig, access, program, [run_ids], start, log=log, receive_buffer_bytes=_SLOW_BUFFER_BYTES
        ) as clients:
            clients.command(f"pace 0 1 {setup.read_bytes_per_s}")
            clients.command(f"open {_TIMEOUT_S}", timeout_s=_TIMEOUT_S)
            await _wait_for(clients, [[feed.head_seq for feed in feeds]])
    frames = count_contended(read_log(log), [feed.head_seq for feed in feeds])
    return ContendedResult(jain_index(frames), min(frames), max(frames))


def count_contended(receipts: Iterable[Receipt], head_seqs: Sequence[int]) -> list[int]:
    """Return the frames of each topic from when all of them had begun until the first had ended.

    Whose page was read first has nobody to share with until the others have theirs.
    """
    begun: set[int] = set()
    counts = [0] * len(head_seqs)
    for receipt in receipts:
        if len(begun) < len(head_seqs):
            begun.add(receipt.topic)
            continue
        counts[receipt.topic] += 1
        if receipt.seq == head_seqs[receipt.topic]:
            break
    return counts


async def _fill(rig: Rig, feed: RunFeed, frames: int) -> None:
    connection = AppendConnection(rig.runtime_url, rig.key, feed.run_id)
    await connection.open()
    while feed.head_seq < frames + FIRST_SEQ - 1:
        await feed.append_next(
            connection, min(EVENTS_PER_REQUEST_MAX, frames + FIRST_SEQ - 1 - feed.head_seq)
        )
    await connection.aclose()


async def _subscribe(
    rig: Rig,
    access: RigAccess,
    program: Path,
    runs_of_each: Sequence[Sequence[str]],
    start: CursorStart | FromStart,
    *,
    log: Path,
    receive_buffer_bytes: int = 0,
) -> DeliveryClient:
    """Prepare a connection for each list of runs; nobody is connected yet."""
    topics_of_each = [[format_run_events(run) for run in runs] for runs in runs_of_each]
    viewers = await access.mint(topics_of_each)
    node, file = rig.nodes[0], rig.folder / "fairness.preambles"
    write_preambles(
        file,
        [
            Preamble.of_subscriber(
                v.token, v.device_id, [TopicStart(t, start) for t in topics], path=node.path
            )
            for v, topics in zip(viewers, topics_of_each, strict=True)
        ],
    )
    return DeliveryClient(program, node.port, file, log=log, receive_buffer_bytes=receive_buffer_bytes)


async def _wait_for(clients: DeliveryClient, expected: Sequence[Sequence[int]]) -> None:
    """Wait until every connection has each of its topics up to the seq that is expected."""
    with trio.move_on_after(_TIMEOUT_S):
        while True:
            states = clients.report()
            if any(state.is_ended for state in states):
                raise ReceiverFailedError(f"a connection was ended: {states}")
            if all(list(state.last_seqs) == list(seqs) for state, seqs in zip(states, expected, strict=True)):
                # The answer says whether anything was wrong, and the log is whole after it.
                clients.command("wait 0")
                return
            await trio.sleep(0.2)
    raise ReceiverFailedError(f"something is missing after {_TIMEOUT_S:.0f} s")
