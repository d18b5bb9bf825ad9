"""Fixtures that every test may use: a real PostgreSQL server, and databases of it."""

import signal
from collections.abc import Iterator

import pytest

from tests.postgres_cluster import Database, PostgresTestCluster, running_cluster


def pytest_configure() -> None:
    """Take the signals that whoever started us ignores, as a script does for what it runs in the background.

    The processes that tests start inherit that, and would not see the Ctrl-C that they are tested with.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGQUIT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresTestCluster]:
    """The server of this session."""
    with running_cluster(tmp_path_factory.mktemp("postgres")) as cluster:
        yield cluster


@pytest.fixture
def fresh_database(postgres_cluster: PostgresTestCluster) -> Iterator[Database]:
    """A database with both planes migrated, for this test alone."""
    with postgres_cluster.database("control", "runtime") as database:
        yield database


@pytest.fixture
def runtime_database(postgres_cluster: PostgresTestCluster) -> Iterator[Database]:
    """A database with the runtime plane migrated, for this test alone."""
    with postgres_cluster.database("runtime") as database:
        yield database


@pytest.fixture
def control_database(postgres_cluster: PostgresTestCluster) -> Iterator[Database]:
    """A database with the control plane migrated, for this test alone."""
    with postgres_cluster.database("control") as database:
        yield database


@pytest.fixture
def empty_database(postgres_cluster: PostgresTestCluster) -> Iterator[Database]:
    """A database with roles, schemas and grants, but no table."""
    with postgres_cluster.database() as database:
        yield database
