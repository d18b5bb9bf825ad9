"""Refusals: what the caller may know apart from what only the log may."""

from control.core import refusals


def test_causes_do_not_reach_the_caller() -> None:
    """All failures of a credential have one code and no details."""
    for make in (
        refusals.unauthenticated,
        refusals.reauth_required,
        refusals.token_expired,
        refusals.forbidden,
    ):
        refused = make("some_cause")
        assert refused.cause == "some_cause"
        assert refused.details == {}
        assert refused.code.http_status in (401, 403)


def test_fields_are_named_and_not_quoted() -> None:
    """The field and what is allowed; the cause groups list items."""
    refused = refusals.invalid_argument("topics[12]", "no repeats")
    assert refused.details == {"field": "topics[12]", "problem": "no repeats"}
    assert refused.cause == "invalid_argument.topics"
    assert refusals.topic_invalid("topics[0]", "x").code.name == "topic_invalid"
    assert refusals.topic_forbidden("t").details == {"topic": "t"}
