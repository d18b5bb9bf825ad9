"""A process that joins topics anew again and again, far behind their heads.

    python -m chaos.drills.rereader '{"name": "rereader", ...}'          (client_setup.FollowerSetup)

So nodes always have replays under way, of pages from the journal. Each pass follows one topic from up
to 1,500 events behind its head until it is live, into a file of its own; the newest KEPT_PASSES stay
for the checker: ``<name>.pass-<n>.jsonl``. Only whole passes are kept.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from typing import TYPE_CHECKING, Final

import trio

from chaos.drills.client_setup import FollowerSetup, open_client, run_until_asked, setup_of
from chaos.drills.follower import timed_line
from chaos.drills.waiting import DrillFailed
from khala_client.errors import Unavailable
from khala_client.notices import GapSeen

if TYPE_CHECKING:
    from khala_client.notices import Notice
    from khala_client.trio import Khala

KEPT_PASSES: Final = 20
BEHIND_MAX: Final = 1_500
PAUSE_S: Final = 0.2
# A pass that takes longer has met an outage; the next one begins afresh.
PASS_TIMEOUT_S: Final = 15.0


async def reread(setup: FollowerSetup) -> None:
    """Make one pass after the other until asked to stop."""
    asked = trio.Event()
    rng = random.Random(setup.name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_until_asked, asked)
        for number in itertools.count():
            with trio.move_on_after(PASS_TIMEOUT_S):
                # A client of its own each time: also a connection.
                async with open_client(setup) as khala:
                    await _pass(setup, khala, rng, number)
            if asked.is_set():
                break
            await trio.sleep(PAUSE_S)
        nursery.cancel_scope.cancel()


async def _pass(setup: FollowerSetup, khala: Khala, rng: random.Random, number: int) -> None:
    topic = rng.choice(setup.topics)
    try:
        head_seq = (await khala.runtime.get_topic(topic)).head_seq
        after = max(0, head_seq - rng.randint(1, BEHIND_MAX))
        lines: list[str] = []
        gaps: list[GapSeen] = []

        def note(notice: Notice) -> None:
            if isinstance(notice, GapSeen):
                gaps.append(notice)

        async with khala.subscribe(topic, after=after, on_notice=note) as events:
            async for event in events:
                lines.append(timed_line(event, time.time()))
                if event.seq >= head_seq:
                    break
    except Unavailable:
        return
    if gaps:
        raise DrillFailed(f"a gap reached the wire: {gaps[0]}")
    # Renamed into place: a pass is whole or not there.
    unfinished = setup.file(f"pass-{number % KEPT_PASSES}.unfinished")
    unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    unfinished.replace(setup.file(f"pass-{number % KEPT_PASSES}.jsonl"))


if __name__ == "__main__":
    trio.run(reread, setup_of(FollowerSetup, sys.argv[1:]))
