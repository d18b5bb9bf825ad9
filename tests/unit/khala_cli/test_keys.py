"""Unit tests of khala.cli.keys."""

from __future__ import annotations

import attrs
import pytest

from khala.cli.durations import parse_duration
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


@pytest.mark.parametrize(
    ("ends_at_s", "word"), [(2_000.1, "two secrets"), (2_000.0, "active"), (None, "active")]
)
def test_a_key_in_its_overlap(ends_at_s: float | None, word: str) -> None:
    """While the old secret works the list says so; a key that has ended says only that."""
    key = attrs.evolve(KEY, old_secret_ends_at_s=ends_at_s)
    assert state_of(key, 2_000.0)[0] == word
    assert state_of(attrs.evolve(key, revoked_at_s=1.0), 2_000.0)[0] == "revoked"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("30m", 1_800),
        ("1h", 3_600),
        (" 7d ", 604_800),
        ("999999999", 999_999_999),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    """A number is seconds; a unit says otherwise."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1", "1 h", "1h30m", "1w", "\u0661", "1000000000"])
def test_what_is_no_duration(text: str) -> None:
    """Refused rather than guessed."""
    with pytest.raises(ValueError, match="a number"):
        parse_duration(text)


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
