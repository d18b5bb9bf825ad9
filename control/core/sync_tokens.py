"""What a sync token may be asked for and what it says. Pure; signing is an adapter's.

A sync token opens one WebSocket connection and lists, per topic, the right by which the topic was
granted. Made and judged by one schema, `khala_contracts.sync_claims`. Keeps: all or nothing; topics
are parsed by the registry's grammar before anything else looks at them; never longer than its session.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from control.core.principals import KeyPrincipal, KeyRight, PersonPrincipal, Principal
from control.core.refusals import forbidden, invalid_argument, reauth_required, topic_invalid
from control.core.sessions import MS_PER_S
from khala_contracts.ids import is_device_id
from khala_contracts.sync_claims import PrincipalKind, Surface, SyncClaims, TopicGrant
from khala_contracts.topics import ParsedTopic, TopicInvalid, parse_topic

# SPEC section 5. Longer: rights lost without notice last longer. Shorter: more mints.
TTL_MIN_S: Final = 60
TTL_DEFAULT_S: Final = 300
TTL_MAX_S: Final = 900
# Equal to the subscriptions of one connection (SPEC section 6): one token opens one connection.
TOPICS_MAX: Final = 256
SUBJECT_MAX_BYTES: Final = 256


@attrs.frozen
class SyncLimits:
    """Bounds of a sync token, seconds and topics."""

    ttl_min_s: int = TTL_MIN_S
    ttl_default_s: int = TTL_DEFAULT_S
    ttl_max_s: int = TTL_MAX_S
    topics_max: int = TOPICS_MAX


@attrs.frozen
class Subject:
    """A user of somebody's own application, by that application's id."""

    external_user_id: str
    device_id: str


@attrs.frozen
class SyncOrder:
    """A checked request. Invariant: 1..topics_max topics, no repeats."""

    topics: tuple[ParsedTopic, ...]
    ttl_s: int
    device_id: str
    surface: Surface
    subject: Subject | None


@attrs.frozen
class SyncHolder:
    """For whom a token is: the session it stands on and the principal it acts for."""

    session_id: str
    principal_kind: PrincipalKind
    principal_id: str
    user_id: str
    device_id: str
    surface: Surface
    org_ids: tuple[str, ...]


def check_order(
    principal: Principal,
    *,
    topics: Sequence[str],
    ttl_s: int,
    device_id: str,
    surface: Surface | None,
    subject: Subject | None,
    limits: SyncLimits,
) -> SyncOrder:
    """Check the fields of a request for a sync token against the one who asks.

    Args:
        principal: Who asks.
        topics: As received.
        ttl_s: 0 takes the default.
        device_id: May be empty for a person (the session's own is meant) and beside a subject.
        surface: None takes the session's own, ``web`` for a subject, ``service`` for a key.
        subject: The user of its own that a key mints for; None: for itself.
        limits: Bounds of topics and lifetime.

    Raises:
        Refused: invalid_argument or topic_invalid with the field; forbidden for a device that is not
            the session's, a subject named by a person, or a key without the right.
    """
    parsed = _check_topics(topics, limits=limits)
    if ttl_s == 0:
        ttl_s = limits.ttl_default_s
    if not limits.ttl_min_s <= ttl_s <= limits.ttl_max_s:
        raise invalid_argument("ttl_s", f"0 or {limits.ttl_min_s}..{limits.ttl_max_s}")
    match principal:
        case PersonPrincipal():
            device_id, surface = _person_context(principal, device_id, surface, subject)
        case KeyPrincipal():
            device_id, surface = _key_context(principal, device_id, surface, subject)
    return SyncOrder(topics=parsed, ttl_s=ttl_s, device_id=device_id, surface=surface, subject=subject)


def _check_topics(topics: Sequence[str], *, limits: SyncLimits) -> tuple[ParsedTopic, ...]:
    if not 1 <= len(topics) <= limits.topics_max:
        raise invalid_argument("topics", f"1..{limits.topics_max}")
    parsed: dict[str, ParsedTopic] = {}
    for index, text in enumerate(topics):
        try:
            topic = parse_topic(text)
        except TopicInvalid as error:
            raise topic_invalid(f"topics[{index}]", error.detail) from None
        if topic.name in parsed:
            raise invalid_argument(f"topics[{index}]", "no repeats")
        parsed[topic.name] = topic
    return tuple(parsed.values())


def _person_context(
    person: PersonPrincipal, device_id: str, surface: Surface | None, subject: Subject | None
) -> tuple[str, Surface]:
    if subject is not None:
        raise forbidden("subject_without_mint_right")
    if device_id not in ("", person.session.device_id):
        raise forbidden("foreign_device")
    if surface not in (None, person.session.surface):
        raise forbidden("foreign_surface")
    return person.session.device_id, person.session.surface


def _key_context(
    key: KeyPrincipal, device_id: str, surface: Surface | None, subject: Subject | None
) -> tuple[str, Surface]:
    if subject is None:
        if KeyRight.READ not in key.rights:
            raise forbidden("key_without_read_right")
        if not is_device_id(device_id):
            raise invalid_argument("device_id", "dev_ and 8..64 of 0-9 a-z")
        return device_id, surface or Surface.SERVICE
    if KeyRight.MINT not in key.rights:
        raise forbidden("key_without_mint_right")
    check_subject(subject.external_user_id, field="subject.user_id")
    if not is_device_id(subject.device_id):
        raise invalid_argument("subject.device_id", "dev_ and 8..64 of 0-9 a-z")
    if device_id not in ("", subject.device_id):
        raise invalid_argument("device_id", "empty, or equal to subject.device_id")
    return subject.device_id, surface or Surface.WEB


def check_subject(external_user_id: str, *, field: str) -> None:
    """Check the name by which an application knows one of its own users.

    Raises:
        Refused: invalid_argument, naming the field.
    """
    if not (external_user_id.isprintable() and 1 <= len(external_user_id.encode()) <= SUBJECT_MAX_BYTES):
        raise invalid_argument(field, f"1..{SUBJECT_MAX_BYTES} printable bytes")


def decide_ttl_s(order: SyncOrder, *, ends_at_ms: int | None, now_ms: int, limits: SyncLimits) -> int:
    """Return the token's lifetime: as asked, but not beyond its session or key.

    Args:
        order: What was asked for.
        ends_at_ms: When the session or key ends; None if never.
        now_ms: When the token begins.
        limits: Bounds of the lifetime.

    Raises:
        Refused: reauth_required; the rest is shorter than the shortest token.
    """
    if ends_at_ms is None:
        return order.ttl_s
    ttl_s = min(order.ttl_s, (ends_at_ms - now_ms) // MS_PER_S)
    if ttl_s < limits.ttl_min_s:
        raise reauth_required("session_ending")
    return ttl_s


def make_claims(
    holder: SyncHolder, grants: Sequence[TopicGrant], *, jti: str, now_s: int, ttl_s: int
) -> SyncClaims:
    """Return the content of a sync token that is valid from now on for `ttl_s` seconds."""
    return SyncClaims(
        session_id=holder.session_id,
        device_id=holder.device_id,
        user_id=holder.user_id,
        org_ids=holder.org_ids,
        principal_kind=holder.principal_kind,
        principal_id=holder.principal_id,
        surface=holder.surface,
        jti=jti,
        issued_at_s=now_s,
        expires_at_s=now_s + ttl_s,
        grants=tuple(grants),
    )
