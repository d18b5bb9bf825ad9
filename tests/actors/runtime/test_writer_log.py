"""OBS-08: the log line of a batch that was refused names the requests that it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from structlog.testing import capture_logs

from runtime.actors.writer import REQUEST_IDS_LOGGED_MAX
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.office import office
from tests.actors.runtime.rig import append, thoughts

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_refused_batch_names_its_requests(autojump_clock: MockClock) -> None:
    """The first of a batch, which is then run one by one; of these, exactly the culprit."""
    async with office(MemoryJournalStore(commit_s=0.01)) as at:
        run = await at.make_run()
        requests = [
            attrs.evolve(append(run, thoughts(f"t{number}")), request_id=f"req-{number}")
            for number in range(30)
        ]
        requests[25] = attrs.evolve(requests[25], actor="a\x00")
        with capture_logs() as lines:
            await at.together(requests)
    refused = [line for line in lines if line["event"] == "batch_refused"]
    together, alone = refused
    assert together["requests"] > REQUEST_IDS_LOGGED_MAX == len(together["request_ids"])
    assert set(together["request_ids"]) < {request.request_id for request in requests}
    assert (alone["requests"], alone["request_ids"]) == (1, ["req-25"])
