"""From an exception to a sentence and an exit status; the one table for every command.

0 done, 1 it did not work, 2 wrong usage (click), 78 refused configuration (EX_CONFIG of sysexits.h:
a supervisor must not restart what a person has to change). An exception that is not in the table is
our mistake and keeps its stack trace.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import attrs
import httpx

from khala.adapters.embedded_nats_errors import EmbeddedNatsFailed, EmbeddedNatsRefused
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed, EmbeddedPostgresRefused
from khala_client.errors import (
    KhalaError,
    ProfileRefused,
    RecordingRefused,
    SettingsRefused,
    StoreConflict,
    StoreFailed,
    StoreRefused,
)
from khala_contracts.reason_codes import Advice
from khala_contracts.topics import TopicInvalid
from khala_service.config import ConfigRefused

__all__ = ["EXIT_FAILED", "EXIT_REFUSED", "CommandFailed", "Failure", "describe_failure", "leaves_of"]

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 78

_ADVICE: Final = {
    Advice.RETRY_NOW: "Try again.",
    Advice.RETRY_BACKOFF: "Try again in a moment.",
    Advice.REAUTHENTICATE: "Sign in again: `khala login`; where `khala up` runs, `khala login --dev`.",
    Advice.REBOOTSTRAP: "This position cannot be continued; start with --from earliest.",
    Advice.UPGRADE: "Upgrade khala.",
    Advice.GIVE_UP: "",
}
_REFUSED: Final = (EmbeddedNatsRefused, EmbeddedPostgresRefused, SettingsRefused, ProfileRefused)
_FAILED: Final = (
    EmbeddedNatsFailed,
    EmbeddedPostgresFailed,
    RecordingRefused,
    StoreConflict,
    StoreFailed,
    StoreRefused,
    TopicInvalid,
)
# What the machine refuses, whatever the program does. Any other OSError is unexpected: its trace is kept.
_OPERATING_ERRNOS: Final = frozenset(
    {errno.EACCES, errno.EADDRINUSE, errno.EDQUOT, errno.ENOENT, errno.ENOSPC, errno.EPERM, errno.EROFS}
)


class CommandFailed(Exception):
    """A command's own failure: a sentence, and the status to exit with."""

    def __init__(self, sentence: str, *, exit_status: int = EXIT_FAILED) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status


@attrs.frozen
class Failure:
    """What to print on standard error, and the status to exit with."""

    sentences: tuple[str, ...]
    exit_status: int


def describe_failure(error: BaseException) -> Failure | None:
    """Return how to report an exception; None if it is a mistake in Khala itself.

    Of a group, the first known failure counts if everything in it is known.
    """
    described = [_describe_one(leaf) for leaf in leaves_of(error)]
    known = [failure for failure in described if failure is not None]
    return known[0] if known and len(known) == len(described) else None


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group, however nested; the exception itself if it is none."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]


def _describe_one(error: BaseException) -> Failure | None:
    match error:
        case CommandFailed():
            return Failure((_sentence(str(error)),), error.exit_status)
        case ConfigRefused():
            return Failure(tuple(_sentence(line) for line in error.errors), EXIT_REFUSED)
        case KhalaError():
            advice = _ADVICE[error.advice]
            return Failure((_sentence(str(error)), *((advice,) if advice else ())), EXIT_FAILED)
        case httpx.HTTPError():
            return Failure(
                (_sentence(f"no answer: {type(error).__name__}"), _ADVICE[Advice.RETRY_BACKOFF]), EXIT_FAILED
            )
        case OSError() if error.errno in _OPERATING_ERRNOS:
            where = f"{error.filename}: " if error.filename else ""
            return Failure((_sentence(f"{where}{os.strerror(error.errno)}"),), EXIT_FAILED)
        case _ if isinstance(error, _REFUSED):
            return Failure((_sentence(str(error)),), EXIT_REFUSED)
        case _ if isinstance(error, _FAILED):
            return Failure((_sentence(str(error)),), EXIT_FAILED)
        case _:
            return None


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:] if text.split(" ", 1)[0].isalpha() and text[:1].islower() else text
    return text if text.endswith((".", "!", "?", ")")) else f"{text}."
