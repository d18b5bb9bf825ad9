"""A process that appends to topics at a steady rate and writes down every acknowledgement.

    python -m chaos.drills.publisher '{"name": "publisher", ...}'       (client_setup.PublisherSetup)

An open loop: what fell due while no service answered is appended as soon as one does, so the rate is
that of the clock, not that of the system. Every request has a key and is repeated with it, and the
same bytes, until it is acknowledged; every fifth is a stream with a key per event. Every 25th request
is sent once more after its acknowledgement. Each event's text begins with its key, so that the
journal itself shows whether a key was applied twice.

``acks.jsonl`` is what the checker judges (``chaos.transcripts``), with ``at_s`` and the number of
attempts. Asked to stop (SIGTERM), it goes on until everything that fell due is acknowledged; status 0.
"""

from __future__ import annotations

import random
import sys
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import trio

from chaos.drills.client_setup import PublisherSetup, open_client, run_until_asked, setup_of
from chaos.drills.json_lines import JsonLineWriter
from khala_client.errors import Unavailable
from khala_client.outgoing import OutgoingEvent
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from khala_client.resources import Ack
    from khala_client.trio import Khala

KIND: Final = "thought"
# Each topic appends what fell due, this often.
TICK_S: Final = 0.2
# Of what fell due during an outage; a request stays far below its limits.
BATCH_MAX_EVENTS: Final = 100
KEYED_EVERY: Final = 5
REPEATED_EVERY: Final = 25
RETRY_MAX_S: Final = 0.5


async def publish(setup: PublisherSetup) -> None:
    """Append to every topic until asked to stop and everything is acknowledged."""
    asked = trio.Event()
    with JsonLineWriter(setup.file("acks.jsonl")) as acks:
        async with open_client(setup) as khala, trio.open_nursery() as nursery:
            nursery.start_soon(run_until_asked, asked)
            async with trio.open_nursery() as writers:
                for topic in setup.topics:
                    writers.start_soon(_TopicWriter(setup, khala, topic, acks).run, asked)
            nursery.cancel_scope.cancel()


class _TopicWriter:
    """Appends to one topic, one request after the other."""

    def __init__(self, setup: PublisherSetup, khala: Khala, topic: str, acks: JsonLineWriter) -> None:
        self._rate_per_s = setup.events_per_s / len(setup.topics)
        self._payload_bytes = setup.payload_bytes
        self._khala = khala
        self._run_id = parse_topic(topic).ids["run_id"]
        self._acks = acks
        self._name = f"{setup.key_prefix or setup.name}-{setup.topics.index(topic)}"
        self._requests = 0

    async def run(self, asked: trio.Event) -> None:
        began, begun_events = trio.current_time(), 0
        while True:
            is_last = asked.is_set()
            due = int((trio.current_time() - began) * self._rate_per_s) - begun_events
            for first in range(0, due, BATCH_MAX_EVENTS):
                count = min(due - first, BATCH_MAX_EVENTS)
                begun_events += count
                await self._append(count)
            if is_last:
                return
            with trio.move_on_after(TICK_S):
                await asked.wait()

    async def _append(self, count: int) -> None:
        self._requests += 1
        key = f"{self._name}-{self._requests}"
        events = [self._event(f"{key}/{index}") for index in range(count)]
        is_keyed = self._requests % KEYED_EVERY == 0

        async def attempt() -> Sequence[Ack]:
            if not is_keyed:
                plain = [OutgoingEvent(event.kind, event.payload) for event in events]
                return await self._khala.runtime.append(self._run_id, plain, idempotency_key=key)
            outcome = await self._khala.runtime.append_keyed(self._run_id, events)
            if outcome.error is not None:
                raise outcome.error
            return outcome.acks

        for _ in range(2 if self._requests % REPEATED_EVERY == 0 else 1):
            acked, attempts = await _until_acknowledged(attempt)
            for event, ack in zip(events, acked, strict=True):
                self._write(event, ack, attempts)

    def _event(self, key: str) -> OutgoingEvent:
        return OutgoingEvent.of(KIND, {"text": f"{key} ".ljust(self._payload_bytes, ".")}, key=key)

    def _write(self, event: OutgoingEvent, ack: Ack, attempts: int) -> None:
        self._acks.write(
            {
                "key": event.key,
                "event_id": ack.event_id,
                "topic": ack.topic,
                "seq": str(ack.seq),
                "chain": ack.chain.hex(),
                "payload_sha256": sha256(event.payload).hexdigest(),
                "at_s": round(time.time(), 6),
                "attempts": attempts,
            }
        )


async def _until_acknowledged(
    attempt: Callable[[], Awaitable[Sequence[Ack]]],
) -> tuple[Sequence[Ack], int]:
    """Return the acknowledgements and the number of attempts; any other refusal ends the process."""
    attempts = 0
    while True:
        attempts += 1
        try:
            return await attempt(), attempts
        except Unavailable as error:
            asked_s = error.retry_after_ms / 1000
            await trio.sleep(asked_s or random.uniform(0.05, RETRY_MAX_S))


if __name__ == "__main__":
    trio.run(publish, setup_of(PublisherSetup, sys.argv[1:]))
