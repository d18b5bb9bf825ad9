"""Rows of the revocation log."""

import pytest

from control.core.revocations import (
    RETAINED_S,
    Revocation,
    RevocationKind,
    key_ended,
    membership_ended,
    session_ended,
)
from control.core.sync_tokens import TTL_MAX_S
from tests.unit.control.samples import make_id

SESSION, KEY, ORG, USER = (make_id(prefix, 1) for prefix in ("ses", "key", "org", "usr"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (session_ended(SESSION), Revocation(RevocationKind.SESSION, session_id=SESSION)),
        (key_ended(KEY), Revocation(RevocationKind.KEY, key_id=KEY)),
        (membership_ended(ORG, USER), Revocation(RevocationKind.MEMBERSHIP, org_id=ORG, user_id=USER)),
    ],
)
def test_a_row_names_what_ended_and_nothing_else(row: Revocation, expected: Revocation) -> None:
    """The ids that are set follow from the kind."""
    assert row == expected


def test_rows_outlive_every_token() -> None:
    """A token of the longest life, presented at the last moment to a node that was cut off, meets its row."""
    leeway_s, cut_off_s = 30, 300 + 60
    assert TTL_MAX_S + 2 * leeway_s + cut_off_s < RETAINED_S
