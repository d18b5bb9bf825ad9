"""Translates what asyncpg raises into the errors of `khala_service.errors`, in one table.

The rule for `outcome_unknown`: true iff the statement had been given to a connection, was not inside
an open transaction, and the connection broke before its answer. Inside an open transaction a broken
connection means a rollback; a statement that PostgreSQL answered with an error wrote nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable

# SQLSTATE prefix or code -> reason. The longest match wins.
_UNAVAILABLE: Final[dict[str, str]] = {
    "08": "database_connection_lost",
    "25006": "database_read_only",  # connected to a standby during a failover
    "25P03": "database_idle_in_transaction",
    "25P04": "database_transaction_timeout",
    "28": "database_login_refused",
    "3D000": "database_missing",
    "53": "database_out_of_resources",
    "55P03": "database_lock_timeout",
    "57014": "database_statement_timeout",
    "57P": "database_connection_lost",  # administrator or crash ended the backend
    "58": "database_system_error",
}
# Every reason of Unavailable that comes from the database; also a label of metrics, hence closed.
UNAVAILABLE_REASONS: Final = frozenset(
    {
        *_UNAVAILABLE.values(),
        "database_busy",
        "database_protocol_error",
        "database_timeout",
        "database_unreachable",
    }
)
_BROKEN_CONNECTION: Final = frozenset({"database_connection_lost", "database_idle_in_transaction"})
_SERIALIZATION: Final = frozenset({"40001", "40P01"})
# asyncpg reports the use of a connection or pool that is gone by text only.
_GONE_TEXTS: Final = ("is closed", "is closing", "has been released", "was closed")

DRIVER_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def translate_error(error: Exception, *, may_have_committed: bool) -> Exception:
    """Return the error of ours that stands for `error`, or `error` itself if it is our own bug.

    Args:
        error: One of DRIVER_ERRORS.
        may_have_committed: The statement was given to a connection outside a transaction, or it
            was COMMIT: if the connection broke, nobody knows whether it took effect.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error, may_have_committed=may_have_committed)
    if isinstance(error, asyncpg.DataError | asyncpg.exceptions.DataError):
        return DatabaseError("22000", message=str(error))
    if isinstance(error, TimeoutError):
        return Unavailable("database_timeout", outcome_unknown=may_have_committed)
    if isinstance(error, OSError):
        return Unavailable("database_unreachable", outcome_unknown=may_have_committed)
    if isinstance(error, asyncpg.InterfaceError) and any(t in str(error) for t in _GONE_TEXTS):
        return Unavailable("database_connection_lost", outcome_unknown=may_have_committed)
    if isinstance(error, asyncpg.InternalClientError):
        return Unavailable("database_protocol_error", outcome_unknown=may_have_committed)
    return error


@contextmanager
def translated(*, may_have_committed: bool) -> Iterator[None]:
    """Raise the translation of whatever asyncpg raises inside the block."""
    try:
        yield
    except DRIVER_ERRORS as error:
        translation = translate_error(error, may_have_committed=may_have_committed)
        if translation is error:
            raise
        raise translation from error


def _translate_sqlstate(error: asyncpg.PostgresError, *, may_have_committed: bool) -> Exception:
    sqlstate = str(getattr(error, "sqlstate", None) or "XX000")
    if sqlstate in _SERIALIZATION:
        return SerializationTrouble(sqlstate)
    for length in (5, 3, 2):
        reason = _UNAVAILABLE.get(sqlstate[:length])
        if reason is not None:
            broken = reason in _BROKEN_CONNECTION
            return Unavailable(reason, outcome_unknown=broken and may_have_committed)
    return DatabaseError(
        sqlstate,
        message=str(getattr(error, "message", None) or ""),
        detail=getattr(error, "detail", None),
        hint=getattr(error, "hint", None),
        constraint=getattr(error, "constraint_name", None),
    )
