"""Reads of history on a store that counts: whoever has no right costs none."""

from __future__ import annotations

import attrs
import pytest

from khala_contracts import reason_codes
from runtime.actors.command_path import CommandRefused
from runtime.actors.run_reads import RunReads
from runtime.core.limits import RuntimeLimits
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import ORG, make_id, person


@attrs.define
class CountingStore(MemoryJournalStore):
    """Counts questions about events, and has none."""

    questions: int = 0

    async def read_events(self, topic: object, *, after_seq: int, limit: int, max_bytes: int) -> None:
        del topic, after_seq, limit, max_bytes
        self.questions += 1


@pytest.mark.parametrize(("org_id", "questions"), [(ORG, 1), (make_id("org", 7), 0)])
async def test_an_app_topic_of_another_org_is_not_read(org_id: str, questions: int) -> None:
    """The right is in the name: neither a page of events nor the time for it is spent on a stranger."""
    store = CountingStore()
    reads = RunReads(store=store, limits=RuntimeLimits())
    member = person(org_roles={ORG: "member"})
    with pytest.raises(CommandRefused) as refused:
        await reads.read_app_events(member, org_id, "shop", after_seq=0, limit=10)
    assert refused.value.refusal.reason is reason_codes.NOT_FOUND
    assert store.questions == questions
