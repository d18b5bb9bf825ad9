"""The one origin as a task of ``khala up``: contained, supervised, refused a taken port."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from khala.adapters.one_origin import OneOrigin
from khala.cli.up_origin import DESCRIPTORS, serve_origin
from khala.cli.up_ports import HOST, UpPorts

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def limits_restored() -> Iterator[None]:
    """The descriptors of the test process are its own business."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def _status(ports: UpPorts) -> int:
    """Return what the origin answers: 503, since nothing is behind it; 0 if it is not there."""
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            return (await http.get(f"http://{HOST}:{ports.origin}/")).status_code
        except httpx.HTTPError:
            return 0


async def test_a_crash_ends_its_connections_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started again on the same port; who started it does not see anything of it."""
    ports, crash, lives = UpPorts.free(), trio.Event(), 0
    serve = OneOrigin.serve

    async def serve_and_crash(
        self: OneOrigin, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[None]
    ) -> None:
        nonlocal lives
        lives += 1
        if lives > 1:
            await serve(self, listeners, task_status=task_status)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, self, listeners)
            task_status.started()
            await crash.wait()
            raise ZeroDivisionError

    monkeypatch.setattr(OneOrigin, "serve", serve_and_crash)
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_origin, ports, trio.Event())
            assert await _status(ports) == 503
            crash.set()
            while lives < 2 or await _status(ports) != 503:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert await _status(ports) == 0


async def test_a_port_that_was_taken_meanwhile_is_said_at_once() -> None:
    """Not tried for ever: the start fails."""
    ports = UpPorts.free()
    taken = await trio.open_tcp_listeners(ports.origin, host=HOST)
    with trio.fail_after(DEADLINE_S), pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_origin, ports, trio.Event())
    for listener in taken:
        await listener.aclose()


async def test_there_is_room_for_its_connections() -> None:
    """A low limit that the system gave is raised as far as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_origin, UpPorts.free(), trio.Event())
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
        nursery.cancel_scope.cancel()
