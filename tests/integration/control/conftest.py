"""The control service in dev mode, for tests that speak HTTP to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.control.rig import ControlRig, make_config, running_control
from tests.postgres_cluster import Database


@pytest.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """A service of its own per test."""
    config = make_config(control_database, tmp_path)
    async with running_control(config, control_database) as rig:
        yield rig
