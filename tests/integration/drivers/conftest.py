"""Fixtures of the driver tests: one NATS server per module, for those that do not kill it."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import trio

from khala.adapters.embedded_nats import NatsCommand, nats_command, wait_nats
from tests.integration.drivers.rig import ALL_ROLES, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 20.0


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCommand]:
    """A real server from its package, as a child of the test run; ended by its pid."""
    command = nats_command(tmp_path_factory.mktemp("nats"), free_port(), roles=ALL_ROLES)
    with subprocess.Popen(
        command.argv, env=dict(command.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        started_at = time.monotonic()

        async def wait() -> None:
            with trio.fail_after(START_S):
                await wait_nats(command)

        trio.run(wait)
        assert time.monotonic() - started_at < START_S
        yield command
        process.terminate()
