"""sessions.py: what a session is called, and what a script gets of it."""

from __future__ import annotations

import attrs

from khala.cli.sessions import session_record, state_of
from khala_client.resources import SessionInfo

LIVING = SessionInfo("ses_1", "usr_1", "dev_1", "desktop", "ann", 100.0, 1_000.0, None, ())


def test_the_word_for_a_state() -> None:
    """Active until its end, which is exclusive; ended wins over expired."""
    assert state_of(LIVING, 999.9)[0] == "active"
    assert state_of(LIVING, 1_000.0)[0] == "expired"
    ended = attrs.evolve(LIVING, revoked_at_s=200.0)
    assert state_of(ended, 300.0)[0] == state_of(ended, 2_000.0)[0] == "ended"


def test_a_script_gets_who_ended_it_and_why() -> None:
    """And whether it is the one that asks; no token is there to be shown."""
    ended = attrs.evolve(LIVING, revoked_at_s=200.0, revoked_reason="session.revoke", revoked_by="usr_1")
    record = session_record(ended, own_id="ses_1", now_s=300.0)
    assert (record["is_this"], record["state"]) == (True, "ended")
    assert (record["revoked_reason"], record["revoked_by"]) == ("session.revoke", "usr_1")
    assert session_record(LIVING, own_id="ses_2", now_s=300.0)["is_this"] is False
