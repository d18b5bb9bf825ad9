"""``khala bench origin``: requests and live frames through the one origin, and without it, in alternating pairs.

Three kinds of process beside the measuring one: an HTTP service that does nothing (origin_service.py), a node's
engine (fanout_node.py), and the router between (origin_router.py, or any other that a command starts). Requests
go over kept connections with one in flight each; frames go to a receiver in C that verifies every one of them,
and count from the first to the last that it read.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.cpu_time import cpu_time_of_tree
from chaos.load.fanout_node import TOPIC
from chaos.load.in_memory import DEVICE_ID
from chaos.load.native_tools import compile_native
from chaos.load.origin_http import HttpRun, run_requests
from chaos.load.preambles import FROM_NOW, Preamble
from chaos.load.statistics_of_pairs import Spread, describe_environment
from khala.adapters.free_ports import draw_port, is_free
from khala_contracts.codec import TopicStart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["OUR_ROUTER", "LostFramesError", "OriginSetup", "RouterFailedError", "measure_origin"]

# A command stands for any other.
OUR_ROUTER: Final = "ours"
START_TIMEOUT_S: Final = 20.0
RECEIVE_TIMEOUT_S: Final = 120
_POLL_S: Final = 0.02


# The harness takes every token.
PREAMBLE: Final = Preamble.of_subscriber("benchmark", DEVICE_ID, [TopicStart(TOPIC, FROM_NOW)])


class LostFramesError(Exception):
    """A subscriber did not get exactly the frames that were published."""


class RouterFailedError(Exception):
    """The router did not start, or ended by itself."""


@attrs.frozen
class OriginSetup:
    """What one measurement does.

    Attributes:
        connections: HTTP connections.
        body_bytes: Of a request and of its answer.
        seconds: Length of a measurement of requests.
        subscribers: WebSocket connections.
        writes: Frames that each of them gets, as fast as they go.
        paced_writes: Frames that each of them gets with a pause after each.
        pause_s: That pause.
        payload_bytes: Of a frame.
        router: OUR_ROUTER, or a command in which {port}, {http} and {node} stand for where it listens and
            forwards to.
    """

    connections: int = 8
    body_bytes: int = 1_000
    seconds: float = 3.0
    subscribers: int = 100
    writes: int = 2_000
    paced_writes: int = 100
    pause_s: float = 0.02
    payload_bytes: int = 200
    router: str = OUR_ROUTER


@attrs.frozen
class _FramesRun:
    deliveries_per_s: float


@attrs.frozen
class _Router:
    port: int
    pid: int

    def cpu_s(self) -> float:
        times = cpu_time_of_tree(self.pid)
        return times["self"] + times["children"]


def measure_origin(setup: OriginSetup, *, pairs: int, report: Callable[[str], None]) -> dict[str, object]:
    """Run the pairs and return the report.

    Raises:
        CompilerMissingError: The receiver is C.
        LostFramesError: A frame was lost or repeated; no figure is given then.
        RouterFailedError, WrongAnswerError: There is nothing to measure.
    """
    environment = describe_environment()
    requests: list[tuple[HttpRun, HttpRun, float]] = []
    frames: list[tuple[_FramesRun, _FramesRun, float]] = []
    paced: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        receiver = compile_native("receiver", Path(name))
        preamble = Path(name) / "preamble"
        preamble.write_bytes(PREAMBLE.upgrade + PREAMBLE.messages)
        for pair in range(pairs):
            requests.append(_requests_pair(setup))
            frames.append(_frames_pair(setup, receiver, preamble))
            paced.append(_paced_cpu_s(setup, receiver, preamble))
            report(
                f"pair {pair + 1}: requests/s {requests[-1][0].requests_per_s:,.0f} direct, "
                f"{requests[-1][1].requests_per_s:,.0f} through; deliveries/s "
                f"{frames[-1][0].deliveries_per_s:,.0f} direct, {frames[-1][1].deliveries_per_s:,.0f} through"
            )
    return {
        "benchmark": "origin",
        "environment": environment,
        "setup": attrs.asdict(setup),
        "requests": _requests_result(requests),
        "frames": _frames_result(frames, paced),
    }


def _requests_pair(setup: OriginSetup) -> tuple[HttpRun, HttpRun, float]:
    """Return the run without and the run through the router, and its CPU seconds per request."""

    def run(port: int) -> HttpRun:
        return run_requests(
            port, connections=setup.connections, body_bytes=setup.body_bytes, seconds=setup.seconds
        )

    with _service() as http_port, _router(setup, http_port, http_port) as router:
        direct = run(http_port)
        before = router.cpu_s()
        through = run(router.port)
        return direct, through, (router.cpu_s() - before) / through.requests


def _frames_pair(setup: OriginSetup, receiver: Path, preamble: Path) -> tuple[_FramesRun, _FramesRun, float]:
    """Return the run without and the run through the router, and its CPU seconds per frame delivered."""
    with _node(setup, setup.writes) as port:
        direct = _receive(setup, receiver, preamble, port, setup.writes)
    with _node(setup, setup.writes) as port, _router(setup, port, port) as router:
        before = router.cpu_s()
        through = _receive(setup, receiver, preamble, router.port, setup.writes)
        cpu_s = router.cpu_s() - before
    return direct, through, cpu_s / (setup.writes * setup.subscribers)


def _paced_cpu_s(setup: OriginSetup, receiver: Path, preamble: Path) -> float:
    """Return the router's CPU seconds per frame where frames come one by one: none waits for the next."""
    writes = setup.paced_writes
    with _node(setup, writes, setup.pause_s) as port, _router(setup, port, port) as router:
        before = router.cpu_s()
        _receive(setup, receiver, preamble, router.port, writes)
        return (router.cpu_s() - before) / (writes * setup.subscribers)


def _receive(setup: OriginSetup, receiver: Path, preamble: Path, port: int, writes: int) -> _FramesRun:
    arguments = (port, setup.subscribers, preamble, len(PREAMBLE.upgrade), writes, RECEIVE_TIMEOUT_S)
    received = subprocess.run(
        [str(receiver), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RECEIVE_TIMEOUT_S + 10,
        check=False,
    )
    if received.returncode != 0:
        message = f"the receiver missed something: {received.stdout}{received.stderr}"
        raise LostFramesError(message)
    return _FramesRun(writes * setup.subscribers / json.loads(received.stdout)["seconds"])


@contextmanager
def _service() -> Iterator[int]:
    with _child([sys.executable, "-m", "chaos.load.origin_service"]) as port:
        yield port


@contextmanager
def _node(setup: OriginSetup, writes: int, pause_s: float = 0.0) -> Iterator[int]:
    arguments = (setup.subscribers, writes, 1, setup.payload_bytes, pause_s)
    with _child([sys.executable, "-m", "chaos.load.fanout_node", *map(str, arguments)]) as port:
        yield port


@contextmanager
def _child(command: Sequence[str]) -> Iterator[int]:
    """A child process that prints its port and leaves when its input ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.stdin.close()
            child.terminate()


@contextmanager
def _router(setup: OriginSetup, http_port: int, node_port: int) -> Iterator[_Router]:
    port = draw_port()
    while not is_free(port):
        port = draw_port()
    command = [sys.executable, "-m", "chaos.load.origin_router", str(port), str(http_port), str(node_port)]
    if setup.router != OUR_ROUTER:
        command = shlex.split(setup.router.format(port=port, http=http_port, node=node_port))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _wait_listening(process, port)
            yield _Router(port, process.pid)
        finally:
            process.terminate()


def _wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise RouterFailedError(process.stderr.read().decode(errors="replace")[-1_000:])
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(_POLL_S)  # noqa: TID251 - a sync tool that waits for another process
    message = f"nobody listens at port {port} after {START_TIMEOUT_S:.0f} s"
    raise RouterFailedError(message)


def _requests_result(runs: Sequence[tuple[HttpRun, HttpRun, float]]) -> dict[str, object]:
    def side(sides: Sequence[HttpRun]) -> dict[str, object]:
        return {
            "requests_per_s": Spread.of([run.requests_per_s for run in sides]).as_json(),
            "latency_ms": Spread.of([run.latency_ms for run in sides]).as_json(),
            "latency_p99_ms": Spread.of([run.latency_p99_ms for run in sides]).as_json(),
        }

    return {
        "ratio_to_direct": Spread.of([b.requests_per_s / a.requests_per_s for a, b, _ in runs]).as_json(),
        "router_cpu_us_per_request": Spread.of([cpu_s * 1e6 for _, _, cpu_s in runs]).as_json(),
        "direct": side([direct for direct, _, _ in runs]),
        "through": side([through for _, through, _ in runs]),
    }


def _frames_result(
    runs: Sequence[tuple[_FramesRun, _FramesRun, float]], paced: Sequence[float]
) -> dict[str, object]:
    return {
        "ratio_to_direct": Spread.of([b.deliveries_per_s / a.deliveries_per_s for a, b, _ in runs]).as_json(),
        "router_cpu_us_per_delivery": Spread.of([cpu_s * 1e6 for _, _, cpu_s in runs]).as_json(),
        "router_cpu_us_per_paced_delivery": Spread.of([cpu_s * 1e6 for cpu_s in paced]).as_json(),
        "direct_deliveries_per_s": Spread.of([run.deliveries_per_s for run, _, _ in runs]).as_json(),
        "through_deliveries_per_s": Spread.of([run.deliveries_per_s for _, run, _ in runs]).as_json(),
    }
