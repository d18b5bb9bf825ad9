"""``khala bench fanout``: the engine beside a C loop of send(2), in alternating pairs.

Both serve the same receiver (C, epoll) on loopback with the same number of bytes per write and the
same send buffer. The receiver verifies every frame of the engine (+1, nothing missing). Deliveries
per second = frames x subscribers / the sender's wall time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from chaos.load.fanout_node import TOPIC
from chaos.load.in_memory import DEVICE_ID
from chaos.load.native_tools import compile_native
from chaos.load.statistics_of_pairs import Spread, describe_environment
from khala_contracts.codec import (
    EntryTemplate,
    FromStart,
    Hello,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    VersionRange,
    encode_client_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RUN_TIMEOUT_S = 120
TARGET_RATIO = 0.35
UPGRADE = (
    b"GET /sync/v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: khala.v1\r\n\r\n"
)


class LostFramesError(Exception):
    """A subscriber did not get exactly the frames that were published."""


@attrs.frozen
class FanoutSetup:
    """What one measurement does."""

    subscribers: int
    frames_per_write: int
    writes: int
    payload_bytes: int

    @property
    def frames(self) -> int:
        """Frames that each subscriber gets."""
        return self.writes * self.frames_per_write


@attrs.frozen
class Measurement:
    """One run of one side."""

    deliveries_per_s: float
    seconds: float
    cpu_s: float


def measure_fanout(
    setups: Sequence[FanoutSetup], *, pairs: int, report: Callable[[str], None]
) -> dict[str, object]:
    """Run the pairs and return the report.

    Raises:
        CompilerMissingError: There is no reference without a C compiler.
        LostFramesError: A run lost or repeated a frame, or did not end; no figure is given then.
    """
    environment = describe_environment()
    results: list[dict[str, object]] = []
    medians: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        receiver = compile_native("receiver", folder)
        send_loop = compile_native("send_loop", folder)
        preamble = folder / "preamble"
        preamble.write_bytes(client_preamble())
        for setup in setups:
            engine_runs, loop_runs = [], []
            for pair in range(pairs):
                engine_runs.append(_run_engine(setup, receiver, preamble))
                loop_runs.append(_run_loop(setup, receiver, send_loop))
                report(
                    f"{setup.frames_per_write} frames/write, pair {pair + 1}: engine "
                    f"{engine_runs[-1].deliveries_per_s:,.0f}/s, send(2) "
                    f"{loop_runs[-1].deliveries_per_s:,.0f}/s"
                )
            ratio = _ratio(engine_runs, loop_runs)
            medians.append(ratio.median)
            results.append(_result(setup, engine_runs, loop_runs, ratio))
    return {
        "benchmark": "fanout",
        "unit": "deliveries/s",
        "environment": environment,
        "target": {"ratio_to_send_loop": TARGET_RATIO, "is_met": min(medians) >= TARGET_RATIO},
        "results": results,
    }


def _ratio(engine: Sequence[Measurement], loop: Sequence[Measurement]) -> Spread:
    pairs = zip(engine, loop, strict=True)
    return Spread.of([ours.deliveries_per_s / theirs.deliveries_per_s for ours, theirs in pairs])


def _result(
    setup: FanoutSetup, engine: Sequence[Measurement], loop: Sequence[Measurement], ratio: Spread
) -> dict[str, object]:
    return {
        **attrs.asdict(setup),
        "ratio_to_send_loop": ratio.as_json(),
        "engine": _side(engine),
        "send_loop": _side(loop),
    }


def _side(runs: Sequence[Measurement]) -> dict[str, object]:
    return {
        "deliveries_per_s": Spread.of([run.deliveries_per_s for run in runs]).as_json(),
        "wall_s": Spread.of([run.seconds for run in runs]).as_json(),
        "cpu_s": Spread.of([run.cpu_s for run in runs]).as_json(),
    }


def _run_engine(setup: FanoutSetup, receiver: Path, preamble: Path) -> Measurement:
    arguments = (setup.subscribers, setup.writes, setup.frames_per_write, setup.payload_bytes)
    command = [sys.executable, "-m", "chaos.load.fanout_node", *map(str, arguments)]
    return _run_pair_of_processes(
        setup, command, receiver, preamble, upgrade_bytes=len(UPGRADE), last=setup.frames
    )


def _run_loop(setup: FanoutSetup, receiver: Path, send_loop: Path) -> Measurement:
    message_bytes = _message_bytes(setup)
    arguments = (setup.subscribers, setup.writes, message_bytes, 64 * 1024)
    return _run_pair_of_processes(
        setup,
        [str(send_loop), *map(str, arguments)],
        receiver,
        Path(os.devnull),
        upgrade_bytes=0,
        last=message_bytes * setup.writes,
    )


def _run_pair_of_processes(
    setup: FanoutSetup,
    server_command: Sequence[str],
    receiver: Path,
    preamble: Path,
    *,
    upgrade_bytes: int,
    last: int,
) -> Measurement:
    with subprocess.Popen(server_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            port = server.stdout.readline().strip()
            arguments = (port, setup.subscribers, preamble, upgrade_bytes, last, RUN_TIMEOUT_S)
            received = subprocess.run(
                [str(receiver), *map(str, arguments)],
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S + 10,
                check=False,
            )
            if received.returncode != 0:
                msg = f"the receiver missed something: {received.stdout}{received.stderr}"
                raise LostFramesError(msg)
            sent = json.loads(server.stdout.readline())
        finally:
            server.stdin.close()
            server.terminate()
    total = setup.frames * setup.subscribers
    return Measurement(total / sent["seconds"], sent["seconds"], sent["cpu_s"])


def _message_bytes(setup: FanoutSetup) -> int:
    entry = EntryTemplate(TOPIC).entry(100, "output", b"x" * setup.payload_bytes, 1)
    body = len(entry) * setup.frames_per_write
    return body + (2 if body < 126 else 4 if body < 65_536 else 10)


def client_preamble() -> bytes:
    """Return what a subscriber sends: the upgrade request, then hello and subscribe."""
    hello = Hello(
        token="benchmark",  # noqa: S106 - the harness takes every token
        ticket=None,
        device_id=DEVICE_ID,
        client_build_id="bench",
        protocol=VersionRange(1, 1),
        schema=VersionRange(1, 1),
    )
    subscribe = Subscribe((TopicStart(TOPIC, FromStart(SubscribeFrom.NOW)),))
    messages = (encode_client_message(hello), encode_client_message(subscribe))
    return UPGRADE + b"".join(map(_mask, messages))


def _mask(body: bytes) -> bytes:
    """Frame a client message; a mask of zeros is a mask (RFC 6455, 5.3) and keeps it readable."""
    length = len(body)
    if length < 126:
        return bytes((0x82, 0x80 | length)) + bytes(4) + body
    return bytes((0x82, 0x80 | 126)) + length.to_bytes(2, "big") + bytes(4) + body
