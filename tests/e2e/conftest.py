"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator

import pytest

from tests.e2e.system import System, running_system


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system that the tests of one module share; none of them may kill it."""
    with running_system(tmp_path_factory.mktemp("system")) as started:
        yield started
