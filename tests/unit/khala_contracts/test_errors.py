"""The exception for what breaks the contract."""

from khala_contracts import reason_codes
from khala_contracts.errors import WireError


def test_it_names_reason_field_and_constant_detail() -> None:
    """What the peer is told and what the log shows."""
    error = WireError(reason_codes.MALFORMED_MESSAGE, "not null", "events[3].kind")
    assert error.reason is reason_codes.MALFORMED_MESSAGE
    assert error.reason_code == "malformed_message"
    assert error.details == {"field": "events[3].kind", "problem": "not null"}
    assert str(error) == "malformed_message: events[3].kind: not null"


def test_the_field_may_be_the_whole_message() -> None:
    """Then it appears nowhere."""
    error = WireError(reason_codes.MALFORMED_MESSAGE, "one JSON document")
    assert error.details == {"problem": "one JSON document"}
    assert str(error) == "malformed_message: one JSON document"
