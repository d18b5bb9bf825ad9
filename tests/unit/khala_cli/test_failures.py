"""Unit tests of khala.cli.failures."""

from __future__ import annotations

import errno

import httpx
import pytest

from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed, EmbeddedPostgresRefused
from khala.cli.failures import CommandFailed, describe_failure, leaves_of
from khala_client.errors import KhalaError, SettingsRefused, StoreConflict
from khala_contracts.reason_codes import REGISTRY, Advice
from khala_contracts.topics import TopicInvalid
from khala_service.config import ConfigRefused


@pytest.mark.parametrize(
    ("error", "exit_status"),
    [
        (CommandFailed("x"), 1),
        (CommandFailed("x", exit_status=127), 127),
        (ConfigRefused(("a: b",)), 78),
        (EmbeddedPostgresRefused("x"), 78),
        (SettingsRefused("x"), 78),
        (EmbeddedPostgresFailed("x"), 1),
        (StoreConflict("x"), 1),
        (TopicInvalid("x"), 1),
        (KhalaError("not_found"), 1),
        (httpx.ConnectError("x"), 1),
    ],
)
def test_every_failure_has_its_status(error: Exception, exit_status: int) -> None:
    """78 only for what a person must change before it can work; our own failures are 1."""
    failure = describe_failure(error)
    assert failure is not None
    assert failure.exit_status == exit_status
    assert failure.sentences


def test_every_refused_key_is_a_sentence_of_its_own() -> None:
    """All errors of a configuration are named at once."""
    failure = describe_failure(ConfigRefused(("up.port_base: expected an integer", "up.x: unknown key")))
    assert failure is not None
    assert len(failure.sentences) == 2


def test_our_own_mistakes_keep_their_trace() -> None:
    """An exception that no table names is not described, alone or in company."""
    assert describe_failure(KeyError("x")) is None
    assert describe_failure(ExceptionGroup("g", [CommandFailed("x"), KeyError("x")])) is None


def test_what_the_machine_refuses_is_said_and_other_trouble_keeps_its_trace() -> None:
    """A full disk is nobody's mistake; a bad file descriptor is ours."""
    failure = describe_failure(OSError(errno.ENOSPC, "x", "/data/up.json"))
    assert failure is not None
    assert failure.sentences == ("/data/up.json: No space left on device.",)
    failure = describe_failure(OSError(errno.EADDRINUSE, "x"))
    assert failure is not None
    assert failure.sentences == ("Address already in use.",)
    assert describe_failure(OSError(errno.EBADF, "x")) is None


def test_a_group_is_described_by_its_first_failure() -> None:
    """How deep trio has wrapped it does not matter."""
    group = ExceptionGroup("g", [ExceptionGroup("h", [CommandFailed("inner")]), CommandFailed("other")])
    failure = describe_failure(group)
    assert failure is not None
    assert failure.sentences == ("Inner.",)
    assert [str(leaf) for leaf in leaves_of(group)] == ["inner", "other"]


@pytest.mark.parametrize("advice", list(Advice))
def test_every_advice_is_said_in_words(advice: Advice) -> None:
    """Each advice of the registry but giving up adds a sentence."""
    code = next(row.name for row in REGISTRY.values() if row.advice is advice)
    failure = describe_failure(KhalaError(code))
    assert failure is not None
    assert len(failure.sentences) == (1 if advice is Advice.GIVE_UP else 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nobody is signed in", "Nobody is signed in."),
        ("nosuchcmd: command not found", "nosuchcmd: command not found."),
        ("/tmp/x: not a folder", "/tmp/x: not a folder."),
        ("a question?", "A question?"),
    ],
)
def test_sentences_begin_and_end_like_sentences(text: str, sentence: str) -> None:
    """Words are capitalised; names of commands and paths are not touched."""
    failure = describe_failure(CommandFailed(text))
    assert failure is not None
    assert failure.sentences == (sentence,)
