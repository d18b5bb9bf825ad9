"""Unit tests of khala.cli.keys."""

from __future__ import annotations

import attrs
import pytest

from khala.cli.failures import CommandFailed
from khala.cli.keys import choose_org, key_record, state_of
from khala_client.resources import OrgMembership, ServiceKey

KEY = ServiceKey(
    key_id="key_1",
    name="bot",
    org_id="org_1",
    rights=("read",),
    topics=(),
    created_at_s=1_000.0,
    expires_at_s=None,
    last_used_at_s=None,
    revoked_at_s=None,
    secret="khk_secret",
)
ACME, OTHER = OrgMembership("org_1", "acme", "owner"), OrgMembership("org_2", "other", "member")


def test_a_record_has_everything_but_the_secret() -> None:
    """Lists are read by others; the secret is shown once, by `create`."""
    assert "khk_secret" not in str(key_record(KEY))
    assert {field.name for field in attrs.fields(ServiceKey)} - {"secret"} == key_record(KEY).keys() - {
        "type"
    }


@pytest.mark.parametrize(
    ("expires_at_s", "revoked_at_s", "word"),
    [
        (None, None, "active"),
        (2_000.1, None, "active"),
        (2_000.0, None, "expired"),
        (None, 1_500.0, "revoked"),
        (1_000.0, 1_500.0, "revoked"),
    ],
)
def test_the_state_of_a_key(expires_at_s: float | None, revoked_at_s: float | None, word: str) -> None:
    """It ends at its expiry, not after it; revoked is said first."""
    key = attrs.evolve(KEY, expires_at_s=expires_at_s, revoked_at_s=revoked_at_s)
    assert state_of(key, 2_000.0)[0] == word


def test_the_org_is_named_by_id_or_name_or_is_the_only_one() -> None:
    """A guess between two is refused, with both named."""
    assert choose_org("", (ACME,)) == "org_1"
    assert choose_org("acme", (ACME, OTHER)) == "org_1"
    assert choose_org("org_2", (ACME, OTHER)) == "org_2"
    for wanted in ("", "nobody"):
        with pytest.raises(CommandFailed, match=r"--org: acme \(org_1\), other \(org_2\)"):
            choose_org(wanted, (ACME, OTHER))
    with pytest.raises(CommandFailed, match="none"):
        choose_org("", ())
