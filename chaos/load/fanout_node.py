"""Child process of ``khala bench origin``: the node's engine alone, fed by the memory driver.

    python -m chaos.load.fanout_node SUBSCRIBERS WRITES FRAMES_PER_WRITE PAYLOAD_BYTES [PAUSE_S]

Prints its port, waits for the subscribers, publishes the prepared records one after the other (the
next when the topic has taken the last, and PAUSE_S have gone by), prints one JSON line, and leaves when its input ends.
Records are prepared and sealed before the clock starts: encoding, chain and MAC of the *runtime* are
not what is measured; the node's checks of them are.
"""

from __future__ import annotations

import json
import sys
import time

import trio

from chaos.load.in_memory import AnyRedeemer, AnyTokenVerifier, InMemoryJournal
from fanout_drivers.memory import MemoryDriver
from khala.app import NodeParts, serve_engine
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala_contracts.fanout_records import RecordSigner
from khala_contracts.topics import parse_topic
from khala_service.logs import configure_logging

TOPIC = parse_topic("run:run_00000000000000000000000000:events").name
KEY = bytes(32)


async def run(
    subscribers: int, writes: int, frames_per_write: int, payload_bytes: int, pause_s: float
) -> None:
    """Serve one measurement."""
    journal = InMemoryJournal(TOPIC)
    signer = RecordSigner("benchmark", KEY)
    payload = b"x" * payload_bytes
    sealed = [signer.seal(journal.prepare([payload] * frames_per_write)) for _ in range(writes)]
    driver = MemoryDriver()
    counters = NodeCounters()
    parts = NodeParts(
        journal=journal,
        tokens=AnyTokenVerifier(TOPIC),
        control=AnyRedeemer(),
        driver=driver,
        fanout_keys={"benchmark": KEY},
    )
    # All subscribers connect at once, which admission would spread over seconds.
    limits = NodeLimits(admission_burst=subscribers, admission_per_s=subscribers, handshakes_max=subscribers)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[tuple[int, object]]) -> None:
            await serve_engine(
                parts,
                node_id="nod_benchmark",
                host="127.0.0.1",
                port=0,
                limits=limits,
                cors_origins=(),
                counters=counters,
                drain=trio.Event(),
                task_status=task_status,
            )

        port, _ = await nursery.start(serve)
        _say(str(port))
        while counters.subscriptions_open < subscribers:  # noqa: ASYNC110 - counters have no events
            await trio.sleep(0.02)
        started, cpu_started = time.perf_counter(), time.process_time()
        for count, record in enumerate(sealed, start=1):
            journal.visible = count * frames_per_write
            await driver.publish(TOPIC, record)
            while counters.frames_appended < count * frames_per_write:
                await trio.lowlevel.checkpoint()
            if pause_s:
                await trio.sleep(pause_s)
        while counters.deliveries < subscribers:
            await trio.lowlevel.checkpoint()
        _say(
            json.dumps(
                {
                    "seconds": time.perf_counter() - started,
                    "cpu_s": time.process_time() - cpu_started,
                    "heals": counters.heals,
                    "closes": dict(counters.closes),
                }
            )
        )
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # A line per connection is not what is measured, nor what somebody wants to read beside figures.
    configure_logging("benchmark", level="warning")
    subscribers_, writes_, frames_per_write_, payload_bytes_ = map(int, sys.argv[1:5])
    pause_s_ = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
    trio.run(run, subscribers_, writes_, frames_per_write_, payload_bytes_, pause_s_)
