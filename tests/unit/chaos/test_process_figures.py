"""CPU time and memory of processes, by our own one."""

from __future__ import annotations

import mmap
import os
import time

import pytest

from chaos.load.process_figures import (
    can_measure,
    cpu_s_of_process,
    cpu_s_of_tree,
    kernel_socket_bytes,
    memory_of_process,
)

pytestmark = pytest.mark.skipif(not can_measure(), reason="no /proc as on Linux")

NO_PROCESS = 2**22 + 1


def test_cpu_time_is_that_of_the_process() -> None:
    """By the kernel's own clock of it; a tree is read in ticks of 10 ms."""
    before = time.process_time()
    ours = cpu_s_of_process(os.getpid())
    assert before <= ours <= time.process_time()
    assert cpu_s_of_tree(os.getpid()) >= ours - 0.05


def test_memory_grows_by_what_is_touched() -> None:
    """Private and proportional size alike."""
    before = memory_of_process(os.getpid())
    with mmap.mmap(-1, 8 * 1024 * 1024) as pages:
        pages.write(b"x" * len(pages))
        after = memory_of_process(os.getpid())
    for name in ("rss_bytes", "pss_bytes", "private_bytes"):
        assert getattr(after, name) - getattr(before, name) >= 7 * 1024 * 1024, name


def test_a_process_that_has_ended_is_said() -> None:
    """Figures of it would be of nobody."""
    with pytest.raises(ProcessLookupError):
        cpu_s_of_process(NO_PROCESS)
    with pytest.raises(ProcessLookupError):
        memory_of_process(NO_PROCESS)


def test_the_kernel_says_what_its_sockets_hold() -> None:
    """In bytes."""
    assert kernel_socket_bytes() % mmap.PAGESIZE == 0
