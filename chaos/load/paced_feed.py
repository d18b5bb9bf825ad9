"""Appends to runs at a fixed pace through the runtime's HTTP, with payloads that receivers can verify.

Each run has a connection and a task of its own, one request in flight: nobody else writes to it, so the seq
of each event is known before it is sent, and its text follows from it (``known_payloads.py``). A feed that
is late sends all that is due in one request. Who measures looks at what the journal got: a feed that cannot
keep up is a smaller load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.append_client import AppendConnection, AppendFailedError
from chaos.load.known_payloads import payload_of_seq
from khala_contracts import http_messages as m

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.load.rig import Rig

__all__ = ["EVENTS_PER_REQUEST_MAX", "FIRST_SEQ", "RunFeed", "run_feeds"]

KIND: Final = "output"
# Each run begins with run.started.
FIRST_SEQ: Final = 2
# SPEC section 6.
EVENTS_PER_REQUEST_MAX: Final = 500
# What Output's encoding puts in front of a text of 128..16,383 bytes.
_HEADER_BYTES: Final = 3


@attrs.define(eq=False)
class RunFeed:
    """What one run gets.

    Attributes:
        run_id: It is new, and nobody else appends to it.
        events_per_s: On average.
        events_per_request: The least in one transaction, on its way to the node together.
        payload_bytes: Of each event, 131..16,386.
        head_seq: Of what was acknowledged.
    """

    run_id: str
    events_per_s: float
    events_per_request: int = 1
    payload_bytes: int = 1_024
    head_seq: int = FIRST_SEQ - 1

    async def append_next(self, connection: AppendConnection, events: int) -> None:
        """Append the next events of the run.

        Raises:
            AppendFailedError: They were refused, or somebody else writes to the run.
        """
        expected = self.head_seq + events
        answer = await connection.append(f"{self.run_id}-{expected}", self._next_body(events))
        self.head_seq = int(m.AppendEventsResponse.FromString(answer).acks[-1].seq)
        if self.head_seq != expected:
            raise AppendFailedError(f"run {self.run_id} is at {self.head_seq}, not at {expected}")

    def _next_body(self, events: int) -> bytes:
        seqs = range(self.head_seq + 1, self.head_seq + 1 + events)
        return m.AppendEventsRequest(
            events=[m.EventInput(kind=KIND, payload_bytes=self._payload(seq)) for seq in seqs]
        ).SerializeToString(deterministic=True)

    def _payload(self, seq: int) -> bytes:
        size = self.payload_bytes - _HEADER_BYTES
        assert 128 <= size < 1 << 14
        # Output{text = 2}: bytes written by hand, since a load of 2,000 a second is made of them.
        return b"\x12" + bytes((0x80 | size & 0x7F, size >> 7)) + payload_of_seq(seq, size)


async def run_feeds(rig: Rig, feeds: Sequence[RunFeed], *, until: trio.Event) -> None:
    """Append to every run at its pace until ``until``; what is in flight then is waited for.

    The starts are spread over an interval of each feed, so that they do not all come at once.

    Raises:
        AppendFailedError: An append was refused, or somebody else writes to a run.
    """
    async with trio.open_nursery() as nursery:
        for index, feed in enumerate(feeds):
            nursery.start_soon(_run_feed, rig, feed, index / len(feeds), until)


async def _run_feed(rig: Rig, feed: RunFeed, phase: float, until: trio.Event) -> None:
    connection = AppendConnection(rig.runtime_url, rig.key, feed.run_id)
    await connection.open()
    began_at = trio.current_time() + phase * feed.events_per_request / feed.events_per_s
    sent = 0
    try:
        while not until.is_set():
            due = int((trio.current_time() - began_at) * feed.events_per_s) - sent
            if due < feed.events_per_request:
                with trio.move_on_at(began_at + (sent + feed.events_per_request) / feed.events_per_s):
                    await until.wait()
                    return
                due = feed.events_per_request
            due = min(due, EVENTS_PER_REQUEST_MAX)
            await feed.append_next(connection, due)
            sent += due
    finally:
        with trio.move_on_after(1.0, shield=True):
            await connection.aclose()
