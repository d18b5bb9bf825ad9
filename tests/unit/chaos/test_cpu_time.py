"""CPU time of a tree of processes, read from the outside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chaos.load.cpu_time import cpu_time_of_tree, measures_cpu_time

pytestmark = pytest.mark.skipif(not measures_cpu_time(), reason="no /proc on this system")


def test_a_child_counts_below_its_parent() -> None:
    """What a child burns is seen while it lives."""
    before = cpu_time_of_tree(os.getpid())
    program = "sum(range(2_000_000)); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        after = cpu_time_of_tree(os.getpid())
    assert after["children"] > before["children"]
    assert after["self"] >= before["self"]


def test_a_process_that_is_not_there_used_nothing() -> None:
    """Asked about a pid that ended, the answer is 0 and no error."""
    assert cpu_time_of_tree(2**22 + 1) == {"self": 0.0, "children": 0.0}
