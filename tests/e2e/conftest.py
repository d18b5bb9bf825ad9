"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator

import pytest

from tests.e2e.system import System, running_system


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system that the tests of all modules share.

    None of them may kill it or change how it runs, and each must bear what others wrote: the runs of the
    development user are those of all tests. A module that cannot has ``own_system`` as its ``system``.
    """
    with running_system(tmp_path_factory.mktemp("shared")) as started:
        yield started


@pytest.fixture(scope="module")
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system for one module; none of its tests may kill it."""
    with running_system(tmp_path_factory.mktemp("own")) as started:
        yield started
