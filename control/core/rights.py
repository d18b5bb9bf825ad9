"""Which of the requested topics a principal may read, and by which right. Pure.

Inputs: the principal with its memberships as they are now, and the owners of run and worker topics as
the runtime gave them. Output: a grant for every topic, or the first topic that is denied.

Keeps: all or nothing; the answer for a topic that does not exist equals the one for a foreign topic;
topics are compared by parsed structure, never by prefix; a class without a rule grants nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from control.core.principals import (
    ADMIN_ROLES,
    KeyPrincipal,
    PersonPrincipal,
    Principal,
)
from control.core.topic_patterns import TopicPattern
from khala_contracts.sync_claims import GrantBasis, TopicGrant
from khala_contracts.topics import ParsedTopic, TopicName


@attrs.frozen
class TopicOwner:
    """Owner of a run or worker, as the runtime knows it. Unknown topics have no `TopicOwner`."""

    owner_user_id: str | None
    org_id: str | None


@attrs.frozen
class Granted:
    """Every topic is granted. Invariant: ascending by topic, no repeats."""

    grants: tuple[TopicGrant, ...]


@attrs.frozen
class Denied:
    """At least one topic is not; this is the first in the order of the request."""

    topic: TopicName


Decision = Granted | Denied

_PersonRule = Callable[[PersonPrincipal, ParsedTopic, TopicOwner | None], TopicGrant | None]


def _grant(topic: ParsedTopic, basis: GrantBasis, org_id: str | None = None) -> TopicGrant:
    return TopicGrant(topic=topic.name, basis=basis, org_id=org_id)


def _as_org_member(person: PersonPrincipal, topic: ParsedTopic, org_id: str) -> TopicGrant | None:
    if org_id in person.roles:
        return _grant(topic, GrantBasis.ORG_MEMBER, org_id)
    return None


def _run_rule(person: PersonPrincipal, topic: ParsedTopic, owner: TopicOwner | None) -> TopicGrant | None:
    if owner is None:
        return None
    if owner.owner_user_id == person.session.user_id:
        return _grant(topic, GrantBasis.OWNER)
    return _as_org_member(person, topic, owner.org_id) if owner.org_id else None


def _worker_rule(person: PersonPrincipal, topic: ParsedTopic, owner: TopicOwner | None) -> TopicGrant | None:
    if owner is not None and owner.owner_user_id == person.session.user_id:
        return _grant(topic, GrantBasis.OWNER)
    return None


def _own_user_rule(
    person: PersonPrincipal, topic: ParsedTopic, _owner: TopicOwner | None
) -> TopicGrant | None:
    if topic.ids["user_id"] == person.session.user_id:
        return _grant(topic, GrantBasis.OWNER)
    return None


def _org_member_rule(
    person: PersonPrincipal, topic: ParsedTopic, _owner: TopicOwner | None
) -> TopicGrant | None:
    return _as_org_member(person, topic, topic.ids["org_id"])


def _org_admin_rule(
    person: PersonPrincipal, topic: ParsedTopic, _owner: TopicOwner | None
) -> TopicGrant | None:
    org_id = topic.ids["org_id"]
    if person.roles.get(org_id) in ADMIN_ROLES:
        return _grant(topic, GrantBasis.ORG_ADMIN, org_id)
    return None


def _own_device_rule(
    person: PersonPrincipal, topic: ParsedTopic, _owner: TopicOwner | None
) -> TopicGrant | None:
    if topic.ids["device_id"] == person.session.device_id and person.owns_inbox:
        return _grant(topic, GrantBasis.DEVICE)
    return None


# SPEC section 2, column "who may read". tests/unit/control/test_rights.py: every class has a rule.
PERSON_RULES: Final[Mapping[str, _PersonRule]] = {
    "run_events": _run_rule,
    "worker_events": _worker_rule,
    "user_runs": _own_user_rule,
    "user_codex": _own_user_rule,
    "notifications": _own_user_rule,
    "org_runs": _org_member_rule,
    "org_workers": _org_member_rule,
    "org_ops": _org_admin_rule,
    "device_inbox": _own_device_rule,
    "app": _org_member_rule,
}

# Classes whose topics have an owner that only the runtime knows.
OWNED_BY_RUNTIME: Final = frozenset({"run_events", "worker_events"})
# What a key without topic patterns may read: what every member of its org may.
KEY_DEFAULT_CLASSES: Final = frozenset({"run_events", "org_runs", "org_workers", "app"})
# What a key may read at all; the rest belongs to a user or a device, never to an org.
KEY_CLASSES: Final = KEY_DEFAULT_CLASSES | {"worker_events", "org_ops"}


def topics_with_owners(topics: Sequence[ParsedTopic]) -> tuple[TopicName, ...]:
    """Return those of the topics whose owner must be asked from the runtime."""
    return tuple(topic.name for topic in topics if topic.topic_class.name in OWNED_BY_RUNTIME)


def decide_grants(
    principal: Principal,
    topics: Sequence[ParsedTopic],
    *,
    owners: Mapping[TopicName, TopicOwner],
) -> Decision:
    """Return a grant for every topic, or the first topic that is denied.

    Args:
        principal: With rights and memberships read for this request.
        topics: No repeats.
        owners: Owners of the known run and worker topics among them; an absent one is unknown.
    """
    grants: list[TopicGrant] = []
    for topic in topics:
        owner = owners.get(topic.name)
        grant = _decide_grant(principal, topic, owner)
        if grant is None:
            return Denied(topic.name)
        grants.append(grant)
    return Granted(tuple(sorted(grants, key=lambda grant: grant.topic)))


def _decide_grant(principal: Principal, topic: ParsedTopic, owner: TopicOwner | None) -> TopicGrant | None:
    match principal:
        case PersonPrincipal():
            return PERSON_RULES[topic.topic_class.name](principal, topic, owner)
        case KeyPrincipal():
            return _key_grant(principal, topic, owner)


def _key_grant(key: KeyPrincipal, topic: ParsedTopic, owner: TopicOwner | None) -> TopicGrant | None:
    class_name = topic.topic_class.name
    if class_name not in KEY_CLASSES or not _key_lists(key, topic):
        return None
    if class_name in OWNED_BY_RUNTIME:
        if owner is None or owner.org_id != key.org_id:
            return None
        # A worker's events are for its owner alone, also inside the org.
        if class_name == "worker_events" and owner.owner_user_id != key.user_id:
            return None
    elif topic.ids["org_id"] != key.org_id:
        return None
    return _grant(topic, GrantBasis.KEY, key.org_id)


def _key_lists(key: KeyPrincipal, topic: ParsedTopic) -> bool:
    if not key.patterns:
        return topic.topic_class.name in KEY_DEFAULT_CLASSES
    return any(pattern.covers(topic) for pattern in key.patterns)


def can_ever_grant(pattern: TopicPattern, *, org_id: str) -> bool:
    """Return whether a key of the org could be granted any topic by this pattern.

    A pattern that names another org, or a class that belongs to users or devices, is a mistake that
    is better reported when the key is created than discovered as a denial later.
    """
    named_org = pattern.ids.get("org_id")
    return pattern.topic_class.name in KEY_CLASSES and named_org in (None, org_id)
