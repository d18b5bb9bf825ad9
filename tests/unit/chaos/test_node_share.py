"""The node's share of a process's time: its tasks and all that they start, and nobody else's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio

from chaos.load.node_share import NODE_TASK, ShareMeter, ShareReader
from khala.app import serve_node

if TYPE_CHECKING:
    from pathlib import Path


def work(seconds: float) -> None:
    """Use so much CPU time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


async def somebody(seconds: float) -> None:
    """Work in two steps."""
    work(seconds / 2)
    await trio.lowlevel.checkpoint()
    work(seconds / 2)


async def the_node() -> None:
    """Work, and let others work for it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(somebody, 0.004)
        work(0.002)


def test_what_the_node_and_its_tasks_take(tmp_path: Path) -> None:
    """6 of 10 ms; what the run needs besides is in neither figure."""
    meter = ShareMeter(tmp_path / "share", node_task=f"{__name__}.the_node")

    async def everything() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(the_node)
            nursery.start_soon(somebody, 0.004)

    trio.run(everything, instruments=[meter])
    with ShareReader(tmp_path / "share") as reader:
        node_s, all_s = reader.read()
    assert node_s == pytest.approx(0.006, abs=0.002)
    assert all_s == pytest.approx(0.010, abs=0.003)
    assert node_s < all_s


def test_the_node_is_found_by_this_name() -> None:
    """The one task that ``khala up`` starts for it."""
    assert f"{serve_node.__module__}.{serve_node.__qualname__}" == NODE_TASK
