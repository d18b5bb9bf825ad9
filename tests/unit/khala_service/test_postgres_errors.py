"""The one table from asyncpg's exceptions to ours."""

import asyncpg
import pytest

from khala_service.adapters.postgres_errors import translate_error, translated
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable


@pytest.mark.parametrize(
    ("error", "reason", "breaks"),
    [
        (asyncpg.ConnectionDoesNotExistError("x"), "database_connection_lost", True),
        (asyncpg.AdminShutdownError("x"), "database_connection_lost", True),
        (asyncpg.CrashShutdownError("x"), "database_connection_lost", True),
        (asyncpg.CannotConnectNowError("x"), "database_connection_lost", True),
        (asyncpg.IdleInTransactionSessionTimeoutError("x"), "database_idle_in_transaction", True),
        (asyncpg.InterfaceError("connection is closed"), "database_connection_lost", True),
        (asyncpg.InterfaceError("pool is closing"), "database_connection_lost", True),
        (asyncpg.InternalClientError("x"), "database_protocol_error", True),
        (ConnectionRefusedError(111, "x"), "database_unreachable", True),
        (TimeoutError(), "database_timeout", True),
        (asyncpg.QueryCanceledError("x"), "database_statement_timeout", False),
        (asyncpg.LockNotAvailableError("x"), "database_lock_timeout", False),
        (asyncpg.TooManyConnectionsError("x"), "database_out_of_resources", False),
        (asyncpg.DiskFullError("x"), "database_out_of_resources", False),
        (asyncpg.OutOfMemoryError("x"), "database_out_of_resources", False),
        (asyncpg.ConfigurationLimitExceededError("x"), "database_out_of_resources", False),
        (asyncpg.PostgresIOError("x"), "database_system_error", False),
        (asyncpg.ReadOnlySQLTransactionError("x"), "database_read_only", False),
        (asyncpg.InvalidPasswordError("x"), "database_login_refused", False),
        (asyncpg.InvalidCatalogNameError("x"), "database_missing", False),
    ],
)
def test_operating_errors(error: Exception, reason: str, breaks: bool) -> None:
    """Unknown iff the connection broke and the statement may have committed."""
    for may_have_committed in (True, False):
        translation = translate_error(error, may_have_committed=may_have_committed)
        assert isinstance(translation, Unavailable)
        assert translation.reason == reason
        assert translation.outcome_unknown == (breaks and may_have_committed)


def test_serialization() -> None:
    """Rolled back by PostgreSQL because of somebody else."""
    for error in (asyncpg.SerializationError("x"), asyncpg.DeadlockDetectedError("x")):
        assert isinstance(translate_error(error, may_have_committed=True), SerializationTrouble)


def test_refused_statements() -> None:
    """Everything else that PostgreSQL says is about the statement."""
    for error, sqlstate in (
        (asyncpg.UniqueViolationError("x"), "23505"),
        (asyncpg.InsufficientPrivilegeError("x"), "42501"),
        (asyncpg.RaiseError("x"), "P0001"),
        (asyncpg.exceptions.DataError("x"), "22000"),
    ):
        translation = translate_error(error, may_have_committed=True)
        assert isinstance(translation, DatabaseError)
        assert translation.sqlstate == sqlstate


def test_our_own_bugs_pass_unchanged() -> None:
    """Two queries at once on one connection is no trouble of the database."""
    error = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    assert translate_error(error, may_have_committed=True) is error
    with pytest.raises(asyncpg.InterfaceError), translated(may_have_committed=True):
        raise error
    with pytest.raises(KeyError), translated(may_have_committed=True):
        raise KeyError("x")
