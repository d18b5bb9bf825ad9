"""A bench per test."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures

import pytest

from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures
from tests.projectors.rig import Bench, open_bench


@pytest.fixture
async def bench(runtime_database: Database) -> AsyncIterator[Bench]:
    """A database of its own."""
    async with open_bench(runtime_database) as opened:
        yield opened
