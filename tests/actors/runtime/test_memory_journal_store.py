"""The fake keeps the contract that PostgreSQL keeps."""

from __future__ import annotations

import pytest

from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.integration.runtime.journal_store_suite import JournalStoreSuite


class TestMemoryJournalStore(JournalStoreSuite):
    @pytest.fixture
    def store(self) -> MemoryJournalStore:
        return MemoryJournalStore()
