"""Identifiers and principals for the pure tests: everything is a value, nothing is random."""

from typing import Final

from control.core.principals import KeyPrincipal, KeyRight, Membership, OrgRole, PersonPrincipal, SessionInfo
from control.core.topic_patterns import parse_pattern
from khala_contracts.ids import format_id
from khala_contracts.sync_claims import Surface
from khala_contracts.topics import ParsedTopic, parse_topic

NOW_MS: Final = 1_800_000_000_000


def make_id(prefix: str, number: int) -> str:
    """Return the id of a number."""
    return format_id(prefix, number.to_bytes(16, "big"))


ANN: Final = make_id("usr", 1)
BOB: Final = make_id("usr", 2)
ACME: Final = make_id("org", 1)
OTHER: Final = make_id("org", 2)
DEVICE: Final = "dev_0123456789abcdef"
OTHER_DEVICE: Final = "dev_fedcba9876543210"


def make_person(
    *,
    user_id: str = ANN,
    role: OrgRole | None = OrgRole.MEMBER,
    owns_inbox: bool = True,
    expires_at_ms: int = NOW_MS + 3_600_000,
) -> PersonPrincipal:
    """Return a person on DEVICE with a role in ACME."""
    session = SessionInfo(
        session_id=make_id("ses", 1),
        user_id=user_id,
        device_id=DEVICE,
        surface=Surface.WEB,
        created_at_ms=NOW_MS,
        expires_at_ms=expires_at_ms,
        revoked_at_ms=None,
    )
    memberships = (Membership(ACME, "acme", role),) if role else ()
    return PersonPrincipal(session=session, login="ann", memberships=memberships, owns_inbox=owns_inbox)


def make_key(*rights: KeyRight, patterns: tuple[str, ...] = ()) -> KeyPrincipal:
    """Return a key of ACME made by ANN."""
    return KeyPrincipal(
        key_id=make_id("key", 1),
        org_id=ACME,
        org_name="acme",
        user_id=ANN,
        rights=frozenset(rights or (KeyRight.READ,)),
        patterns=tuple(parse_pattern(text) for text in patterns),
        expires_at_ms=None,
    )


def topic(text: str) -> ParsedTopic:
    """Parse a topic."""
    return parse_topic(text)


RUN: Final = topic(f"run:{make_id('run', 1)}:events")
WORKER: Final = topic(f"worker:{make_id('wrk', 1)}:events")
