"""The runtime service, for tests that speak HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures

import pytest

from tests.integration.runtime.rig import RuntimeRig, open_runtime
from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures


@pytest.fixture
async def runtime(runtime_database: Database) -> AsyncIterator[RuntimeRig]:
    """A service of its own per test."""
    async with open_runtime(runtime_database) as rig:
        yield rig
