"""Unit tests of khala_service.database_roles."""

from __future__ import annotations

import pytest

from khala_service.config import Secret
from khala_service.database_roles import foreign_role_error


@pytest.mark.parametrize(
    "role",
    ["khala_control", "khala_control_owner", "khala_runtime", "khala_runtime_owner", "khala_reade%72x"],
)
def test_the_role_of_another_service_is_named(role: str) -> None:
    """Owners, too: what migrates does not serve. The password is not said."""
    error = foreign_role_error("node", Secret(f"postgresql://{role}:secret@db/khala"), "khala_reader")
    if role.endswith("x"):
        assert error is None  # a role of a deployment's own
    else:
        assert error == (
            f"node.database_dsn: {role} is not a role for this service, which connects as khala_reader"
        )


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://khala_reader:x@db/khala",
        "postgresql://khala%5Freader@db/x",
        "postgresql://",
        "",
        "http://[x",
    ],
)
def test_its_own_role_and_what_cannot_be_read_are_not_judged(dsn: str) -> None:
    """A connection that cannot be made says so itself."""
    assert foreign_role_error("node", Secret(dsn), "khala_reader") is None
