"""Rows of the audit log as values."""

from control.core.audit import (
    DETAIL_TEXT_MAX_CHARS,
    NOBODY,
    TOPICS_RECORDED_MAX,
    Action,
    actor_of,
    refusal_entry,
    topics_detail,
)
from control.core.refusals import Refused, forbidden, invalid_argument, topic_forbidden
from khala_contracts import reason_codes
from khala_contracts.sync_claims import PrincipalKind
from tests.unit.control.samples import ACME, ANN, DEVICE, make_id, make_key, make_person


def test_who_acted() -> None:
    """A person by user, session and device; a key by key, org and the user it acts for."""
    person = actor_of(make_person())
    assert (person.principal_kind, person.principal_id, person.user_id) == (PrincipalKind.PERSON, ANN, ANN)
    assert (person.session_id, person.device_id) == (make_id("ses", 1), DEVICE)
    assert (person.key_id, person.org_id) == (None, None)
    key = actor_of(make_key())
    assert (key.principal_kind, key.principal_id, key.user_id) == (
        PrincipalKind.SERVICE,
        make_id("key", 1),
        ANN,
    )
    assert (key.key_id, key.org_id, key.session_id) == (make_id("key", 1), ACME, None)


def test_refusals_carry_code_and_cause() -> None:
    """The public code and the hidden cause, with what the caller was told."""
    entry = refusal_entry(Action.TOKEN_MINT, topic_forbidden(f"org:{ACME}:runs"), request_id="r")
    assert entry.reason == "forbidden:topic_forbidden"
    assert entry.detail == {"topic": f"org:{ACME}:runs"}
    assert entry.actor == NOBODY
    entry = refusal_entry(Action.KEY_CREATE, forbidden("not_an_admin_of_the_org"), request_id="r")
    assert (entry.reason, entry.detail) == ("forbidden:not_an_admin_of_the_org", {})
    entry = refusal_entry(Action.SIGN_IN, invalid_argument("topics[3]", "no repeats"), request_id="r")
    assert entry.reason == "invalid_argument:invalid_argument.topics"


def test_rows_are_bounded() -> None:
    """Long texts are cut and long lists are counted."""
    refused = Refused(reason_codes.FORBIDDEN, "x", details={"topic": "t" * 10_000})
    entry = refusal_entry(Action.TOKEN_MINT, refused, request_id="r")
    assert len(str(entry.detail["topic"])) == DETAIL_TEXT_MAX_CHARS
    detail = topics_detail([f"t{number}" for number in range(256)])
    assert detail["topic_count"] == 256
    assert detail["topics"] == [f"t{number}" for number in range(TOPICS_RECORDED_MAX)]
