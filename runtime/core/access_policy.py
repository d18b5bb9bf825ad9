"""Who may read or write which topic. One place, pure, decided before any write.

A right is found by the topic's class and the ids in its name; for runs and workers by the owner and
org of the head row. The org never changes, the owner by a transfer only. "No" and "does not exist" are
the same answer to a caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from runtime.core.principals import PrincipalKind, Right

if TYPE_CHECKING:
    from khala_contracts.topics import ParsedTopic
    from runtime.core.principals import Principal

__all__ = [
    "Ownership",
    "can_append",
    "can_read",
    "can_transfer",
    "choose_org",
    "matches_pattern",
    "may_create_runs",
    "may_list_runs",
]

_ADMIN_ROLES: Final = frozenset({"owner", "admin"})
# What a service key may touch without naming it in a pattern, and what it may touch at all. Topics of
# users and devices belong to no org, so a key never reaches them, whoever created it.
_KEY_CLASSES_UNNAMED: Final = frozenset({"run_events", "org_runs", "org_workers", "app"})
_ANY_RUN: Final = "run:*:events"
_KEY_CLASSES: Final = _KEY_CLASSES_UNNAMED | {"worker_events", "org_ops"}


@attrs.frozen
class Ownership:
    """Whose run or worker it is; None where a topic has no such owner."""

    user_id: str | None
    org_id: str | None


def can_read(principal: Principal, topic: ParsedTopic, ownership: Ownership) -> bool:
    """Return whether the principal may see the topic's events and state."""
    return _has_right(principal, Right.READ, topic) and _may_see(principal, topic, ownership)


def can_append(principal: Principal, topic: ParsedTopic, ownership: Ownership) -> bool:
    """Return whether the principal may write events of the topic through the command API."""
    return _has_right(principal, Right.PUBLISH, topic) and _may_see(principal, topic, ownership)


def can_transfer(principal: Principal, ownership: Ownership) -> bool:
    """Return whether the principal may give the run to somebody else: its owner, or an admin of its org.

    No service key may: it works for people, and does not decide whose their work is.
    """
    if principal.kind is not PrincipalKind.PERSON:
        return False
    if ownership.user_id == principal.user_id:
        return True
    return ownership.org_id is not None and principal.org_roles.get(ownership.org_id) in _ADMIN_ROLES


def choose_org(principal: Principal, wanted: str) -> str | None:
    """Return the org a new run belongs to; None: to its owner alone.

    A service key works for its org, so its runs belong there unless it says otherwise.

    Raises:
        PermissionError: The principal is no member of the wanted org.
    """
    if wanted:
        if wanted not in principal.org_roles:
            raise PermissionError
        return wanted
    if principal.kind is PrincipalKind.SERVICE and len(principal.org_roles) == 1:
        return next(iter(principal.org_roles))
    return None


def may_create_runs(principal: Principal) -> bool:
    """Return whether the principal may make runs: a key limited to named topics cannot name a new one."""
    if principal.kind is not PrincipalKind.SERVICE:
        return True
    patterns = principal.topic_patterns
    return Right.PUBLISH in principal.rights and (not patterns or _ANY_RUN in patterns)


def may_list_runs(principal: Principal) -> bool:
    """Return whether the principal may list the runs of its user and orgs."""
    if principal.kind is not PrincipalKind.SERVICE:
        return True
    patterns = principal.topic_patterns
    return Right.READ in principal.rights and (not patterns or _ANY_RUN in patterns)


def _has_right(principal: Principal, right: Right, topic: ParsedTopic) -> bool:
    if principal.kind is not PrincipalKind.SERVICE:
        return True
    if right not in principal.rights:
        return False
    topic_class, patterns = topic.topic_class.name, principal.topic_patterns
    if not patterns:
        return topic_class in _KEY_CLASSES_UNNAMED
    return topic_class in _KEY_CLASSES and any(matches_pattern(topic, pattern) for pattern in patterns)


def _may_see(principal: Principal, topic: ParsedTopic, ownership: Ownership) -> bool:
    ids = topic.ids
    match topic.topic_class.name:
        case "run_events" | "worker_events":
            is_run = topic.topic_class.name == "run_events"
            is_owner = ownership.user_id is not None and ownership.user_id == principal.user_id
            is_member = ownership.org_id is not None and ownership.org_id in principal.org_roles
            if principal.kind is PrincipalKind.SERVICE:
                # A key works for its org: whose runs its creator owns elsewhere is not its business.
                return is_member and (is_run or is_owner)
            return is_owner or (is_run and is_member)
        case "user_runs" | "user_codex" | "notifications":
            return ids["user_id"] == principal.user_id
        case "org_runs" | "org_workers" | "app":
            return ids["org_id"] in principal.org_roles
        case "org_ops":
            return principal.org_roles.get(ids["org_id"]) in _ADMIN_ROLES
        case "device_inbox":
            return bool(principal.device_id) and ids["device_id"] == principal.device_id
        case _:
            # A class that this build does not know how to protect is seen by nobody.
            return False


def matches_pattern(topic: ParsedTopic, pattern: str) -> bool:
    """Return whether the topic is named by a pattern: ``*`` stands for any one id.

    The topic is already parsed, so a star can only ever stand for a well-formed id, never for a
    separator.
    """
    names, wanted = topic.name.split(":"), pattern.split(":")
    return len(names) == len(wanted) and all(w in ("*", n) for n, w in zip(names, wanted, strict=True))
