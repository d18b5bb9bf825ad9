"""A runtime per test."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures

import pytest

from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures
from tests.replay.rig import Replay, open_replay


@pytest.fixture
async def replay(runtime_database: Database) -> AsyncIterator[Replay]:
    """A service of its own."""
    async with open_replay(runtime_database) as opened:
        yield opened
