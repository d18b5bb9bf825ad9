"""The runtime service, for tests that speak HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures

import pytest

from khala_service import failpoints
from tests.integration.runtime.rig import RuntimeRig, open_runtime
from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures


@pytest.fixture
async def runtime(runtime_database: Database) -> AsyncIterator[RuntimeRig]:
    """A service of its own per test."""
    async with open_runtime(runtime_database) as rig:
        yield rig


@pytest.fixture(autouse=True)
def no_failpoint_stays_armed() -> Iterator[None]:
    """Points are a matter of the whole process: what one test arms must not hit another."""
    yield
    failpoints.disarm()
