from __future__ import annotations

import pytest

from khala_client.errors import (
    ChainMismatch,
    Forbidden,
    KhalaError,
    ReauthRequired,
    RecordingRefused,
    StaleCursor,
    Unavailable,
    UpgradeRequired,
    error_for,
)
from khala_client.ring.upgrades import upgrade_refused
from khala_contracts.reason_codes import REGISTRY, Advice


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)
def test_every_code_has_its_exception(row: object) -> None:
    """The type says what to do, and agrees with the registry's advice."""
    name = str(getattr(row, "name"))  # noqa: B009 - parametrised rows are untyped
    error = error_for(name)
    advice = REGISTRY[name].advice
    assert error.code == name
    assert error.message == REGISTRY[name].text
    assert error.advice is advice
    assert (
        error.retryable
        == isinstance(error, Unavailable)
        == (advice in {Advice.RETRY_NOW, Advice.RETRY_BACKOFF})
    )
    assert isinstance(error, ReauthRequired) == (advice is Advice.REAUTHENTICATE)
    assert isinstance(error, UpgradeRequired) == (advice is Advice.UPGRADE)
    assert isinstance(error, StaleCursor) == (advice is Advice.REBOOTSTRAP)
    assert isinstance(error, Forbidden) == (name == "forbidden")


def test_an_unknown_code_is_internal_and_final() -> None:
    """What it was is kept, so that a report can name it."""
    error = error_for("a_code_of_tomorrow", "tomorrow", retryable=True)
    assert (error.code, error.retryable, error.details) == ("internal", False, {"code": "a_code_of_tomorrow"})
    assert error.advice is Advice.GIVE_UP


def test_the_server_may_say_that_it_is_not_retryable() -> None:
    """Its word wins over the registry's."""
    assert not error_for("unavailable", retryable=False).retryable
    assert isinstance(error_for("forbidden", retryable=True), Unavailable)


def test_what_is_printed() -> None:
    """Code, text and identifiers."""
    error = error_for("seq_conflict", details={"head_seq": "4"}, topic="run:x:events", request_id="req_1")
    assert str(error) == f"seq_conflict: {error.message} (topic=run:x:events head_seq=4 request_id=req_1)"
    assert str(KhalaError("internal", "oops", retryable=False)) == "internal: oops"
    assert error_for("forbidden", details={"topic": "run:x:events"}).topic == "run:x:events"


def test_stale_says_what_was_observed() -> None:
    """And a mismatch of chains is one of lineage."""
    stale = StaleCursor("t", "retention_expired", head_seq=9, floor_seq=4)
    assert (stale.code, stale.reason, stale.head_seq, stale.floor_seq) == (
        "stale_cursor.retention_expired",
        "retention_expired",
        9,
        4,
    )
    mismatch = ChainMismatch("t", 7)
    assert (mismatch.code, mismatch.seq) == ("stale_cursor.lineage_mismatch", 7)


def test_upgrade_names_the_oldest_build() -> None:
    """Empty if the server did not say."""
    assert error_for("upgrade_required", details={"min_build_id": "0.2.0"}).details["min_build_id"] == "0.2.0"
    assert UpgradeRequired("upgrade_required").min_build_id == ""


def test_a_refused_recording_says_where() -> None:
    """Line, path, reason; each if it is known."""
    assert str(RecordingRefused("no")) == "no"
    assert str(RecordingRefused("no", line=3)) == "line 3: no"
    assert str(RecordingRefused("no", line=3, where="a[0]")) == "line 3, a[0]: no"


@pytest.mark.parametrize(
    ("status", "body", "code", "retry_after_ms"),
    [
        (429, b'{"code":"rate_limited","retry_after_ms":1250}', "rate_limited", 1_250),
        (429, b"Too many", "rate_limited", 0),
        (429, b'{"retry_after_ms":"soon"}', "rate_limited", 0),
        (429, b"[]", "rate_limited", 0),
        (429, None, "rate_limited", 0),
        (503, b'{"retry_after_ms":5}', "unavailable", 0),
        (403, None, "origin_forbidden", 0),
        (404, None, "not_found", 0),
    ],
)
def test_a_refused_upgrade(status: int, body: bytes | None, code: str, retry_after_ms: int) -> None:
    """KH-12: a node that turns us away says when to return; a proxy's words are no time."""
    error = upgrade_refused(status, body)
    assert (error.code, error.retry_after_ms) == (code, retry_after_ms)
    assert error.retryable is (status in (429, 503))
