"""``khala load cycles``: clients that come and go in every manner, and a node that must forget them all.

A real ``khala node`` beside a real ``khala up --split --nats``. Each cycle is one connection with a token of its own,
minted by control for the development user; what it does is drawn by its number:

    orderly       hello, subscribe, wait for ``replay_complete``, close in good order
    abrupt        the same, and then a reset
    mid_hello     half of the hello is sent, or all of it and nothing awaited; then the connection is cut
    mid_replay    2,000 frames are asked for through a small receive buffer; it leaves with the first of them

Afterwards tasks, descriptors and series of metrics of the node must be what they were after a warm-up of the same
kinds, and its memory within a bound. Connections to the database come and go by rules of their own; each is a
descriptor and a task, so both are counted without them.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

import httpx
import trio

from chaos.load.cycles_report import cycles_report
from chaos.load.cycles_setup import Baseline, Kind
from chaos.load.preambles import FROM_NOW, Preamble
from chaos.load.rig import open_access
from chaos.load.rig_metrics import parse_metrics
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.stream_sockets import StreamBrokenError
from chaos.load.system_under_test import SystemFailedError
from khala_client.errors import KhalaError
from khala_client.http import ControlClient
from khala_client.outgoing import OutgoingEvent
from khala_client.profiles import ProfileDirectory
from khala_client.trio import ProfileCredentials
from khala_contracts.codec import FromStart, SubscribeFrom, TopicStart
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chaos.load.cycles_setup import CyclesSetup
    from chaos.load.report import Report
    from chaos.load.rig import NodeUnderTest, Rig, RigAccess

__all__ = ["measure_cycles"]

# Ten cycles in turn: 20 % abrupt, 10 % cancelled in the middle of the hello, 10 % in the middle of a replay.
_TURN: Final[tuple[Kind, ...]] = (
    "orderly", "abrupt", "orderly", "mid_hello", "orderly", "orderly", "abrupt", "orderly", "mid_replay", "orderly",
)  # fmt: skip
# Storms are the subject of another benchmark; and topics stop while the cycles go on.
NODE_CONFIG: Final = {
    "limits": {"admission_per_s": 100_000.0, "admission_burst": 100_000, "topic_linger_s": 1.0}
}
REPLAYED: Final = 2_000
_REPLAY_BATCH: Final = 200
_REPLAY_TEXT_BYTES: Final = 1_000
_SMALL_BUFFER: Final = 4_096
_MINTS_AT_ONCE: Final = 8
_TOKENS_WAITING: Final = 64
_CYCLE_TIMEOUT_S: Final = 20.0
# The topics of the last clients linger for a second; closing sockets take two.
_SETTLE_TIMEOUT_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.3
_GAUGES_AT_REST: Final = (
    "khala_node_connections_open",
    "khala_node_subscriptions_open",
    "khala_node_handshakes_open",
    "khala_node_topics_live",
)


def measure_cycles(setup: CyclesSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Run the cycles and return the report.

    Raises:
        SystemFailedError: The system did not work, a client that did nothing wrong was not served, or the node does
            not come to rest.
    """
    environment = describe_environment()
    overrides = {**rig.overrides, "node": NODE_CONFIG}
    done = dict.fromkeys(_TURN, 0)
    with rig.extra_node("cycles", NODE_CONFIG) as node:
        cycles = _Cycles(setup, rig, node, progress)
        # One connection for every look: whoever looks is a descriptor and two tasks of the node himself.
        with httpx.Client(base_url=node.admin_url, trust_env=False, timeout=_CYCLE_TIMEOUT_S) as http:
            try:
                run_ids, replayed = trio.run(cycles.prepare)
                trio.run(cycles.run, setup.warm_up, run_ids, replayed, dict(done))
                before = _rest(http)
                progress(
                    f"after {setup.warm_up} cycles: {before.tasks} tasks, {before.rss_bytes / 1e6:.1f} MB"
                )
                began = time.monotonic()
                trio.run(cycles.run, setup.cycles, run_ids, replayed, done)
                seconds = time.monotonic() - began
            except* (StreamBrokenError, KhalaError, OSError) as group:
                raise SystemFailedError(f"cycles: {group.exceptions[0]!r}") from group
            after = _rest(http, before)
    return cycles_report(setup, done, seconds, before, after, environment, overrides)


def _read_metrics(http: httpx.Client) -> dict[str, float]:
    return parse_metrics(http.get("/metrics").raise_for_status().text)


def _rest(http: httpx.Client, before: Baseline | None = None) -> Baseline:
    """Wait until nobody is connected; return what the node holds then: what it held before, or what it keeps."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    while True:
        time.sleep(_LOOK_EVERY_S)  # noqa: TID251 - looks at another process, outside of any event loop
        metrics = _read_metrics(http)
        held = {name: metrics[name] for name in _GAUGES_AT_REST if metrics[name]}
        is_late = time.monotonic() > deadline
        if held and is_late:
            raise SystemFailedError(f"the node still holds {held}")
        if not held:
            seen = _baseline(metrics)
            # A poll of control's log may be at work at any one moment.
            is_back = before is None or (
                seen.tasks <= before.tasks and seen.descriptors <= before.descriptors
            )
            if is_back or is_late:
                return seen


def _baseline(metrics: Mapping[str, float]) -> Baseline:
    database = sum(value for name, value in metrics.items() if name.startswith("khala_database_connections{"))
    restarts = sum(value for name, value in metrics.items() if name.startswith("khala_task_restarts_total"))
    return Baseline(
        tasks=int(metrics["khala_tasks"] - database),
        descriptors=int(metrics["process_open_fds"] - database),
        database_connections=int(database),
        rss_bytes=int(metrics["process_resident_memory_bytes"]),
        series=frozenset(metrics),
        crashes=int(restarts),
    )


class _Cycles:
    """Clients of one node."""

    def __init__(
        self, setup: CyclesSetup, rig: Rig, node: NodeUnderTest, progress: Callable[[str], None]
    ) -> None:
        self._setup = setup
        self._rig = rig
        self._node = node
        self._progress = progress

    async def prepare(self) -> tuple[list[str], str]:
        """Make the runs, and one with a history; return their ids."""
        async with open_access(self._rig) as access:
            run_ids = await access.create_runs(self._setup.runs)
            (replayed,) = await access.create_runs(1)
            event = OutgoingEvent.of("output", {"text": "x" * _REPLAY_TEXT_BYTES})
            for _ in range(REPLAYED // _REPLAY_BATCH):
                await access.runtime.append(
                    replayed, [event] * _REPLAY_BATCH, idempotency_key=secrets.token_hex(8)
                )
        return run_ids, replayed

    async def run(self, count: int, run_ids: list[str], replayed: str, done: dict[Kind, int]) -> None:
        """Run so many cycles, counting them in ``done``."""
        numbers = iter(range(count))
        send, receive = trio.open_memory_channel[tuple[Kind, Preamble]](_TOKENS_WAITING)
        async with open_access(self._rig) as access, trio.open_nursery() as nursery:
            control = self._person(access)
            async with send:
                for _ in range(_MINTS_AT_ONCE):
                    nursery.start_soon(self._mint, control, numbers, run_ids, replayed, send.clone())
            for _ in range(self._setup.at_once):
                nursery.start_soon(self._work, receive.clone(), done)
            receive.close()

    def _person(self, access: RigAccess) -> ControlClient:
        """Return control as the development user: their tokens need no session of their own each."""
        directory = ProfileDirectory(self._rig.system.profile)
        profile = directory.load()
        credentials = ProfileCredentials(
            directory,
            profile,
            control=ControlClient(self._rig.control_url, access.http, None),
            wall_clock=time.time,
        )
        return ControlClient(self._rig.control_url, access.http, credentials)

    async def _mint(
        self,
        control: ControlClient,
        numbers: Iterator[int],
        run_ids: list[str],
        replayed: str,
        send: trio.MemorySendChannel[tuple[Kind, Preamble]],
    ) -> None:
        device_id = ProfileDirectory(self._rig.system.profile).load().device_id
        async with send:
            for number in numbers:
                kind = _TURN[number % len(_TURN)]
                is_replay = kind == "mid_replay"
                topic = format_run_events(replayed if is_replay else run_ids[number % len(run_ids)])
                start = FromStart(SubscribeFrom.BEGINNING) if is_replay else FROM_NOW
                minted = await control.mint_sync_token([topic])
                preamble = Preamble.of_subscriber(
                    minted.token, device_id, [TopicStart(topic, start)], path=self._node.path
                )
                await send.send((kind, preamble))

    async def _work(
        self, receive: trio.MemoryReceiveChannel[tuple[Kind, Preamble]], done: dict[Kind, int]
    ) -> None:
        async with receive:
            async for kind, preamble in receive:
                with trio.move_on_after(_CYCLE_TIMEOUT_S) as scope:
                    await _cycle(kind, preamble, self._node.port)
                if scope.cancelled_caught:
                    raise StreamBrokenError(f"a client of kind {kind} was not served in {_CYCLE_TIMEOUT_S} s")
                done[kind] += 1
                if (total := sum(done.values())) % 5_000 == 0:
                    self._progress(f"{total} cycles")


async def _cycle(kind: Kind, preamble: Preamble, port: int) -> None:
    """Be one client, from its connection to its end."""
    with trio.socket.socket() as client:
        if kind == "mid_replay":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        await client.connect(("127.0.0.1", port))
        await client.send(preamble.upgrade)
        received = await _receive_until(client, b"", lambda data: b"\r\n\r\n" in data)
        if not received.startswith(b"HTTP/1.1 101 "):
            raise StreamBrokenError(f"no upgrade: {received[:60]!r}")
        if kind == "mid_hello":
            # The length of a frame says whether half of it, or all of it, is a matter of chance.
            await client.send(preamble.messages[: secrets.randbelow(len(preamble.messages))])
            _reset(client)
            return
        await client.send(preamble.messages)
        frames = received.partition(b"\r\n\r\n")[2]
        if kind == "mid_replay":
            # The welcome, `subscribed`, and the first bytes of what is more than any buffer takes.
            await _receive_until(client, frames, lambda data: len(data) >= _SMALL_BUFFER)
            _reset(client)
            return
        # The welcome, `subscribed` and `replay_complete`.
        await _receive_until(client, frames, lambda data: _count_frames(data) >= 3)
        if kind == "abrupt":
            _reset(client)
            return
        await client.send(bytes((0x88, 0x82, 0, 0, 0, 0)) + (1000).to_bytes(2, "big"))
        # To the end of the stream: the node answers the close, and closes.
        while await client.recv(_SMALL_BUFFER):
            pass


async def _receive_until(
    client: trio.socket.SocketType, data: bytes, is_met: Callable[[bytes], bool]
) -> bytes:
    while not is_met(data):
        received = await client.recv(64 * 1024)
        if not received:
            raise StreamBrokenError(f"ended by the node after {data[-80:]!r}")
        data += received
    return data


def _count_frames(data: bytes) -> int:
    """Return how many whole frames of less than 64 KiB there are."""
    count = 0
    while len(data) >= 2:
        size, head = data[1] & 0x7F, 2
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        if len(data) < head + size:
            break
        data = data[head + size :]
        count += 1
    return count


def _reset(client: trio.socket.SocketType) -> None:
    """Let the close be a reset: the node learns of it by an error."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
