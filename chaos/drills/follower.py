"""A process that follows topics and writes down every event that it applies, and when.

    python -m chaos.drills.follower '{"name": "follower-1", ...}'        (client_setup.FollowerSetup)

Outlives every server: its client reconnects and resumes by itself, after what its store says. Ends
with status 0 when it is asked to (SIGTERM), else with the error that ended it: a follower that ends
by itself fails its drill. ``history.jsonl`` is what the checker judges (``chaos.transcripts``), with
``at_s``, Unix time, beside each event; ``notices.jsonl`` says how the stream was.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import attrs
import trio

from chaos.drills.client_setup import FollowerSetup, open_client, run_until_asked, setup_of
from chaos.drills.json_lines import JsonLineWriter
from khala_client.history import format_history_line
from khala_client.notices import Connected, Disconnected, GapSeen, Live

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_client.events import Event
    from khala_client.notices import Notice
    from khala_client.trio import Khala

__all__ = ["timed_line"]


def timed_line(event: Event, at_s: float) -> str:
    """Return the line of an event that was applied at a time."""
    return f'{format_history_line(event)[:-1]},"at_s":{at_s:.6f}}}'


async def follow(setup: FollowerSetup) -> None:
    """Follow every topic until asked to stop."""
    asked = trio.Event()
    with (
        JsonLineWriter(setup.file("history.jsonl")) as history,
        JsonLineWriter(setup.file("notices.jsonl")) as notices,
    ):
        async with open_client(setup) as khala, trio.open_nursery() as nursery:
            nursery.start_soon(run_until_asked, asked)
            # The connection is one for all topics; one of them reports its news.
            for topic in setup.topics:
                reporter = _Reporter(notices, is_first=topic == setup.topics[0])
                nursery.start_soon(_follow_one, khala, topic, history, notices, reporter.take)
            await asked.wait()
            nursery.cancel_scope.cancel()


async def _follow_one(
    khala: Khala,
    topic: str,
    history: JsonLineWriter,
    notices: JsonLineWriter,
    on_notice: Callable[[Notice], None],
) -> None:
    async with khala.subscribe(topic, after="saved", on_notice=on_notice) as events:
        try:
            async for event in events:
                history.write_text(timed_line(event, time.time()))
        finally:
            notices.write({"notice": "counts", "topic": topic, **attrs.asdict(events.counts)})


@attrs.frozen
class _Reporter:
    """Writes down what concerns the promises: connections, gaps, and when a topic is live."""

    notices: JsonLineWriter
    is_first: bool

    def take(self, notice: Notice) -> None:
        match notice:
            case Connected(connection_id=connection_id, node_id=node_id) if self.is_first:
                self._write("connected", connection_id=connection_id, node_id=node_id)
            case Disconnected(code=code) if self.is_first:
                self._write("disconnected", code=code)
            case GapSeen(topic=topic, expected_seq=expected_seq, seq=seq):
                self._write("gap", topic=topic, expected_seq=expected_seq, seq=seq)
            case Live(topic=topic, seq=seq):
                self._write("live", topic=topic, seq=seq)
            case _:
                pass

    def _write(self, name: str, **facts: str | int) -> None:
        self.notices.write({"notice": name, "at_s": round(time.time(), 6), **facts})


if __name__ == "__main__":
    trio.run(follow, setup_of(FollowerSetup, sys.argv[1:]))
