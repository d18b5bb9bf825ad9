"""Roles of a person."""

import pytest

from control.core.principals import OrgRole
from tests.unit.control.samples import ACME, make_person


@pytest.mark.parametrize(
    ("role", "administers"),
    [(OrgRole.OWNER, True), (OrgRole.ADMIN, True), (OrgRole.MEMBER, False), (None, False)],
)
def test_who_administers(role: OrgRole | None, administers: bool) -> None:
    """Owners and admins."""
    assert make_person(role=role).administered_org_ids == ((ACME,) if administers else ())
