"""What a service key may be created with, and when it is alive. Pure; times are Unix milliseconds."""

from collections.abc import Sequence
from enum import Enum
from typing import Final

import attrs

from control.core.principals import KeyRight
from control.core.refusals import invalid_argument, topic_forbidden, topic_invalid
from control.core.rights import can_ever_grant
from control.core.topic_patterns import PatternInvalid, TopicPattern, parse_pattern

NAME_MAX_CHARS: Final = 80
PATTERNS_MAX: Final = 64
# Live and dead keys of one org. Larger: the list, which is one page, grows without end.
KEYS_PER_ORG_MAX: Final = 500
# Ten years. 0 asks for a key that never expires, so a longer one is a mistake in the unit.
TTL_MAX_S: Final = 10 * 366 * 24 * 3600
# "Last used" tells people which keys are dead; a write per request would make it the hottest row.
LAST_USED_GRAIN_MS: Final = 60_000
# Long enough to roll a secret out to a fleet by hand; whoever suspects a leak says 0.
OVERLAP_DEFAULT_S: Final = 3_600
# A month. Longer: two secrets of one key are the rule, and nobody knows which one is in use.
OVERLAP_MAX_S: Final = 31 * 24 * 3600
# Replaced secrets that work at once. More than one, so that a rotation whose answer was lost can be asked for
# again without ending the secret that everybody still uses.
RETIRED_SECRETS_MAX: Final = 3
# Ended secrets that are kept for a day, so that a refusal can say what it was. More: each use of the key would
# read what a script that rotates in a loop has left.
ENDED_SECRETS_MAX: Final = 8


@attrs.frozen
class KeyOrder:
    """A checked request for a new key. Invariant: rights and patterns have no repeats."""

    org_id: str
    name: str
    rights: tuple[KeyRight, ...]
    patterns: tuple[TopicPattern, ...]
    # None: never expires.
    ttl_s: int | None


@attrs.frozen
class NewKey:
    """A key about to be stored."""

    key_id: str
    order: KeyOrder
    secret_hash: bytes
    created_by: str
    created_at_ms: int
    expires_at_ms: int | None


@attrs.frozen
class KeyInfo:
    """A key as its org's administrators see it; the secret is not among it."""

    key_id: str
    name: str
    org_id: str
    rights: tuple[str, ...]
    topics: tuple[str, ...]
    created_at_ms: int
    expires_at_ms: int | None
    last_used_at_ms: int | None
    revoked_at_ms: int | None
    rotated_at_ms: int | None = None
    # When the last replaced secret stops working, or stopped; None: none was replaced lately.
    old_secret_ends_at_ms: int | None = None


@attrs.frozen
class RetiredSecret:
    """A secret that a rotation has replaced: it opens the same key until ``ends_at_ms``."""

    secret_hash: bytes
    ends_at_ms: int


@attrs.frozen
class KeyRotation:
    """A new secret about to replace the one that a key has.

    Attributes:
        old_ends_at_ms: When every earlier secret ends; equal to ``now_ms``: at once.
        expires_at_ms: New expiry of the key; None: it stays.
    """

    key_id: str
    secret_hash: bytes
    now_ms: int
    old_ends_at_ms: int
    expires_at_ms: int | None


class RotationRefusal(Enum):
    """Why a key gets no new secret."""

    UNKNOWN = "key_unknown_or_foreign"
    ENDED = "key_ended"
    TOO_MANY = "secrets_per_key"


def check_rotation(*, overlap_s: int | None, ttl_s: int) -> tuple[int, int | None]:
    """Return overlap and new lifetime of a rotation, seconds; a lifetime of None leaves the expiry as it is.

    Raises:
        Refused: invalid_argument.
    """
    overlap_s = OVERLAP_DEFAULT_S if overlap_s is None else overlap_s
    if overlap_s > OVERLAP_MAX_S:
        raise invalid_argument("overlap_s", f"at most {OVERLAP_MAX_S}")
    if ttl_s > TTL_MAX_S:
        raise invalid_argument("ttl_s", f"0 (unchanged) or at most {TTL_MAX_S}")
    return overlap_s, ttl_s or None


def check_order(
    *, org_id: str, name: str, rights: Sequence[str], topics: Sequence[str], ttl_s: int
) -> KeyOrder:
    """Check the fields of a request for a new key.

    Raises:
        Refused: invalid_argument, topic_invalid, or forbidden for a pattern under which a key of this
            org could never be granted anything.
    """
    if not (1 <= len(name) <= NAME_MAX_CHARS and name.isprintable() and name == name.strip()):
        raise invalid_argument("name", f"1..{NAME_MAX_CHARS} printable characters")
    if ttl_s > TTL_MAX_S:
        raise invalid_argument("ttl_s", f"0 (never) or at most {TTL_MAX_S}")
    return KeyOrder(
        org_id=org_id,
        name=name,
        rights=_check_rights(rights),
        patterns=_check_patterns(topics, org_id=org_id),
        ttl_s=ttl_s or None,
    )


def _check_rights(rights: Sequence[str]) -> tuple[KeyRight, ...]:
    known = {right.value: right for right in KeyRight}
    if not rights:
        raise invalid_argument("rights", "at least one of publish, work, read, mint")
    for index, right in enumerate(rights):
        if right not in known:
            raise invalid_argument(f"rights[{index}]", "publish, work, read or mint")
        if right in rights[:index]:
            raise invalid_argument(f"rights[{index}]", "no repeats")
    return tuple(known[right] for right in rights)


def _check_patterns(topics: Sequence[str], *, org_id: str) -> tuple[TopicPattern, ...]:
    if len(topics) > PATTERNS_MAX:
        raise invalid_argument("topics", f"at most {PATTERNS_MAX}")
    patterns: list[TopicPattern] = []
    for index, text in enumerate(topics):
        try:
            pattern = parse_pattern(text)
        except PatternInvalid as error:
            raise topic_invalid(f"topics[{index}]", str(error)) from None
        if text in topics[:index]:
            raise invalid_argument(f"topics[{index}]", "no repeats")
        if not can_ever_grant(pattern, org_id=org_id):
            raise topic_forbidden(text)
        patterns.append(pattern)
    return tuple(patterns)


def is_alive(*, expires_at_ms: int | None, revoked_at_ms: int | None, now_ms: int) -> bool:
    """Return whether a key may be used: not revoked, and ``now < expires_at``."""
    return revoked_at_ms is None and (expires_at_ms is None or now_ms < expires_at_ms)


def is_use_worth_noting(*, last_used_at_ms: int | None, now_ms: int) -> bool:
    """Return whether the recorded last use is a minute old or older."""
    return last_used_at_ms is None or now_ms - last_used_at_ms >= LAST_USED_GRAIN_MS
