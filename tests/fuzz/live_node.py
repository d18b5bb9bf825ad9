"""Spoilt frames against a node as shipped, while others follow a run on it (KH-21).

    python -m tests.fuzz.live_node [--frames 1000000] [--adapter websockets|trio_websocket] [--seed 1] [--report DIR]

Each connection upgrades, then sends frames of which some are good and some are spoilt, and ends its side. What must
hold: the process stays the same and its memory does not grow, every answer is whole frames with at most one close
at their end, whose code is a documented one, and a client beside them applies every event in order. Exit status 1
if not.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import attrs
import click
import trio

from chaos.load.process_figures import memory_of_process
from khala.adapters.websocket_adapters import WebSocketAdapter
from khala_contracts.codec import ClientHeartbeat, FramesMessage, ReplayComplete
from tests.client_frames import CLOSE, MASK, client_frame, split_server_bytes, upgrade_request
from tests.e2e.history import begin_history
from tests.e2e.system import System, running_system
from tests.e2e.wire import BEGINNING, open_api, open_welcomed, subscribe, sync_address, thought
from tests.fuzz.seeds import SEEDS

if TYPE_CHECKING:
    from tests.e2e.history import History
    from tests.e2e.wire import Api, Follower, Person, Wire

FRAMES_PER_CONNECTION: Final = 40
CONNECTIONS_AT_ONCE: Final = 16
GROWTH_MAX_MIB: Final = 20.0
# Framing errors, those of the registry (4000 and more), and what a client may close with, which comes back.
CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3_000, 5_000)})


@attrs.define
class Findings:
    """What was seen."""

    frames: int = 0
    connections: int = 0
    codes: Counter[str] = attrs.field(factory=Counter)
    # Read to a reset, not to an end: the node closed while bytes for it were under way.
    resets: int = 0
    broken: list[str] = attrs.field(factory=list)
    # Proportional set size of the node, MiB, once all is warm and at the end.
    memory_before: float = 0.0
    memory_after: float = 0.0
    followed: int = 0


def noise(rng: random.Random) -> bytes:
    """Return frames for one connection."""
    frames = []
    for _ in range(FRAMES_PER_CONNECTION):
        how = rng.random()
        if how < 0.5:
            # Good ones, so that the node looks at those behind them.
            frames.append(client_frame(rng.choice((9, 10)), rng.randbytes(rng.randrange(126))))
            continue
        if how < 0.7:
            frame = bytearray(rng.choice(SEEDS["framing"]))
        else:
            frame = bytearray(
                client_frame(
                    rng.randrange(16),
                    rng.randbytes(rng.choice((0, 1, 20, 126, 2_000))),
                    is_final=rng.random() < 0.7,
                    reserved=rng.choice((0, 0, 0, 0, 4, 7)),
                    mask=rng.choice((MASK, MASK, MASK, MASK, None)),
                    length=rng.choice((None, None, None, None, None, 65_537, 1 << 63)),
                )
            )
        for _ in range(rng.randrange(3)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        frames.append(bytes(frame))
    return b"".join(frames)


async def attack(system: System, rng: random.Random, wanted: int, findings: Findings) -> None:
    """Open connection after connection until enough frames were sent."""
    host, port, _ = sync_address(system)
    while findings.frames < wanted:
        sent, received = noise(rng), bytearray()
        findings.frames += FRAMES_PER_CONNECTION
        findings.connections += 1
        async with await trio.open_tcp_stream(host, port) as stream:
            with trio.move_on_after(20) as patience:
                # Once the node has closed it takes no more, and what it said is still to be read.
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(upgrade_request() + sent)
                    await stream.send_eof()
                try:
                    while data := await stream.receive_some(65_536):
                        received += data
                except trio.BrokenResourceError:
                    findings.resets += 1
        if patience.cancelled_caught:
            findings.broken.append("a connection did not end")
        judge(bytes(received), findings)


def judge(received: bytes, findings: Findings) -> None:
    """Look at all that one connection was answered."""
    try:
        head, frames = split_server_bytes(received)
    except AssertionError as exc:
        findings.broken.append(f"no whole frames: {exc}")
        return
    closes = [frame for frame in frames if frame.opcode == CLOSE]
    code = closes[0].close_code if closes else None
    findings.codes[str(code or "no code") if closes else head[9:12].decode() or "none"] += 1
    if closes and (closes != frames[-1:] or (code is not None and code not in CODES)):
        findings.broken.append(f"closes {closes}")


async def watch(wire: Wire, follower: Follower) -> None:
    """Follow a run; the follower asserts that nothing is missing."""
    heard_at = trio.current_time()
    while True:
        message = await wire.receive(timeout_s=60)
        if isinstance(message, (FramesMessage, ReplayComplete)):
            follower.take(message)
        if trio.current_time() - heard_at > 10:
            heard_at = trio.current_time()
            await wire.send(ClientHeartbeat())


async def write(api: Api, person: Person, history: History) -> None:
    """Append an event now and then."""
    while True:
        history.note(await api.append(person, history.topic, thought("still here")))
        await trio.sleep(0.1)


async def run(system: System, wanted: int, seed: int) -> Findings:
    """Attack a running system."""
    findings, node = Findings(), system.pids()["node-1"]
    async with open_api(system) as api:
        ann = await api.sign_in()
        history = await begin_history(api, ann, events=10)
        async with open_welcomed(system, api, ann, history.topic) as wire:
            follower = await subscribe(wire, history.topic, BEGINNING)
            async with trio.open_nursery() as beside:
                beside.start_soon(watch, wire, follower)
                beside.start_soon(write, api, ann, history)
                for share in (wanted // 10, wanted):
                    async with trio.open_nursery() as attackers:
                        for number in range(CONNECTIONS_AT_ONCE):
                            rng = random.Random(seed * 1_000_000 + share + number)
                            attackers.start_soon(attack, system, rng, share, findings)
                    await trio.sleep(1)
                    findings.memory_before = findings.memory_before or memory_mib(node)
                findings.memory_after = memory_mib(node)
                head = history.head.seq
                with trio.fail_after(20):
                    while follower.position < head:
                        await trio.sleep(0.05)
                findings.followed = follower.position
                beside.cancel_scope.cancel()
    if system.pids()["node-1"] != node:
        findings.broken.append("the node is another process")
    return findings


def memory_mib(pid: int) -> float:
    """Return the proportional set size of a process."""
    return memory_of_process(pid).pss_bytes / 2**20


def render(adapter: str, findings: Findings, seconds: float) -> str:
    """Return the report of one adapter."""
    growth = findings.memory_after - findings.memory_before
    codes = ", ".join(f"{code}: {count:,}" for code, count in sorted(findings.codes.items()))
    return "\n".join(
        (
            f"## {adapter}",
            "",
            f"- {findings.frames:,} frames on {findings.connections:,} connections in {seconds:.0f} s",
            f"- ended with (close code, else HTTP status): {codes}; of these {findings.resets:,} by a reset behind that",
            f"- memory of the node (PSS): {findings.memory_before:.1f} MiB after a tenth, {findings.memory_after:.1f} MiB at the end: {growth:+.1f} MiB",
            f"- the client beside them applied {findings.followed:,} events in order",
            f"- rules broken: {len(findings.broken)} {findings.broken[:5] or ''}",
            "",
        )
    )


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.live_node")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--adapter", choices=get_args(WebSocketAdapter), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="folder for <date>-spoilt-frames.md")
    arguments = parser.parse_args()
    parts, has_failed = [], False
    for adapter in arguments.adapter or get_args(WebSocketAdapter):
        with (
            tempfile.TemporaryDirectory() as folder,
            running_system(
                Path(folder),
                split=True,
                KHALA_NODE_WEBSOCKET_ADAPTER=adapter,
                KHALA_NODE_LIMITS_ADMISSION_PER_S="100000",
                KHALA_NODE_LIMITS_ADMISSION_BURST="100000",
            ) as system,
        ):
            began = time.monotonic()
            findings = trio.run(run, system, arguments.frames, arguments.seed)
            parts.append(render(adapter, findings, time.monotonic() - began))
        growth = findings.memory_after - findings.memory_before
        has_failed = has_failed or bool(findings.broken) or growth > GROWTH_MAX_MIB
    text = "\n".join(
        (
            "# Spoilt frames against a node",
            "",
            f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, `python -m tests.fuzz.live_node --frames {arguments.frames} --seed {arguments.seed}`,",
            f"Python {platform.python_version()}; `khala up --split`, the node as shipped but for `admission_per_s` and `admission_burst`",
            "(100,000), which would refuse most of it before the upgrade.",
            "",
            *parts,
        )
    )
    click.echo(text)
    if arguments.report is not None:
        arguments.report.mkdir(parents=True, exist_ok=True)
        name = time.strftime("%Y-%m-%d-spoilt-frames.md", time.gmtime())
        (arguments.report / name).write_text(text)
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
