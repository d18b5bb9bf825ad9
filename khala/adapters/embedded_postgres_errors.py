"""Why an embedded PostgreSQL is not running. Imports nothing: also clients on systems without it name these."""

from __future__ import annotations


class EmbeddedPostgresRefused(Exception):
    """The database cannot be started as asked; a person must change something. Exit status 78."""


class EmbeddedPostgresFailed(Exception):
    """PostgreSQL did not start, or ended by itself. The message carries its last words.

    Attributes:
        status: Exit status of a process that ended while it started, negative for a signal; else None.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
