"""Texts of operating errors: identifiers only."""

from khala_service.errors import DatabaseError, PeerRefused, SerializationTrouble, Unavailable


def test_texts() -> None:
    """What is logged says reason and codes, never PostgreSQL's words about data."""
    assert str(Unavailable("database_busy")) == "database_busy"
    assert str(Unavailable("x", 2.0, outcome_unknown=True)) == "x (outcome unknown)"
    assert str(SerializationTrouble("40001")) == "sqlstate=40001"
    error = DatabaseError("23505", message="canary", detail="canary", hint="canary")
    assert str(error) == "sqlstate=23505 constraint=-"
    assert "canary" not in repr(error)
    refused = PeerRefused("control", "not_found", 404, {"field": "x"})
    assert str(refused) == "peer=control code=not_found status=404"
