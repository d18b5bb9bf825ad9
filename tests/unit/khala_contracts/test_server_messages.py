"""Values that a node sends."""

import attrs
import pytest

from khala_contracts import reason_codes
from khala_contracts.reason_codes import Advice
from khala_contracts.server_messages import ErrorMessage, GoAway, StaleCursor, StaleReason
from khala_contracts.topics import TopicName


@attrs.frozen
class Seen:
    """An observation, reduced to what a stale answer carries."""

    lineage: str
    head_seq: int
    floor_seq: int
    floor_chain: bytes


def test_an_error_takes_text_and_advice_from_its_row() -> None:
    """Only the facts of the case are given."""
    error = ErrorMessage.of(
        reason_codes.RATE_LIMITED, topic="t", details={"limit": "x"}, retry_after_ms=250, request_id="r"
    )
    row = reason_codes.RATE_LIMITED
    assert (error.code, error.message, error.docs, error.retryable) == (row.name, row.text, row.docs, True)
    assert (error.advice, error.retry_after_ms, error.topic, error.request_id) == (
        Advice.RETRY_BACKOFF,
        250,
        "t",
        "r",
    )
    assert error.details == {"limit": "x"}


def test_an_error_without_facts_concerns_the_whole_connection() -> None:
    """No topic, no details, no time."""
    error = ErrorMessage.of(reason_codes.INTERNAL)
    assert (error.topic, dict(error.details), error.retry_after_ms, error.request_id) == ("", {}, 0, "")


@pytest.mark.parametrize("reason", StaleReason)
def test_a_stale_answer_carries_the_observation(reason: StaleReason) -> None:
    """SPEC section 1, promise 5; the reason has its row in the registry."""
    answer = StaleCursor.of(TopicName("t"), reason, Seen("lin", 200, 101, bytes(32)))
    assert answer == StaleCursor(TopicName("t"), reason, "lin", 200, 101, bytes(32), None)
    assert f"stale_cursor.{reason.value}" in reason_codes.REGISTRY


def test_tickets_are_not_printed() -> None:
    """They are credentials."""
    assert "sesame" not in repr(GoAway(0, 0, "sesame"))
