"""Rows of the audit log: a closed set of actions, identifiers and numbers only.

There is no field that could hold a credential, and no free text from a request except names that the
log exists to record. Texts that failed to parse are recorded by their place, not their content.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final

import attrs

from control.core.principals import KeyPrincipal, PersonPrincipal, Principal
from control.core.refusals import Refused
from khala_contracts.sync_claims import PrincipalKind

DetailValue = str | int | Sequence[str]
# 256 topics in each of a storm's mints would make the log larger than the journal.
TOPICS_RECORDED_MAX: Final = 16
DETAIL_TEXT_MAX_CHARS: Final = 200
_NO_DETAIL: Mapping[str, DetailValue] = MappingProxyType({})


class Action(Enum):
    """What was done or refused."""

    SIGN_IN = "session.sign_in"
    # The provider has answered; the command that began has a minute to come for its session.
    SIGN_IN_CODE = "session.sign_in_code"
    REFRESH = "session.refresh"
    LOGOUT = "session.logout"
    SESSION_REVOKE = "session.revoke"
    SUBJECT_REVOKE = "subject.revoke"
    ORG_CREATE = "org.create"
    ORG_READ = "org.read"
    MEMBER_PUT = "member.put"
    MEMBER_REMOVE = "member.remove"
    POLICY_EVALUATE = "policy.evaluate"
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    KEY_ROTATE = "key.rotate"
    KEY_LIST = "key.list"
    SESSION_READ = "session.read"
    TOKEN_MINT = "sync_token.mint"  # noqa: S105  # the name of an action
    TOKEN_REDEEM = "sync_token.redeem"  # noqa: S105  # the name of an action
    PRINCIPAL_RESOLVE = "principal.resolve"
    # Refusals that were counted instead of written; detail.count says how many.
    REFUSALS_SUPPRESSED = "audit.refusals_suppressed"
    # What nodes report; see core/node_audit.py.
    CONNECTION_UPGRADE = "connection.upgrade"
    CONNECTION_HELLO = "connection.hello"
    CONNECTION_RENEW = "connection.renew"
    CONNECTION_EVICT = "connection.evict"
    SUBSCRIPTION_OPEN = "subscription.open"
    SUBSCRIPTION_EVICT = "subscription.evict"
    # Of nodes and runtimes; detail names the limit and its value.
    LIMIT_EXCEED = "limit.exceed"
    # Events of a node that were counted instead of written; detail says of what, why and how many.
    NODE_UNWRITTEN = "audit.node_unwritten"


@attrs.frozen
class Actor:
    """Who acted, as far as known."""

    principal_kind: PrincipalKind | None = None
    principal_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    device_id: str | None = None
    key_id: str | None = None
    org_id: str | None = None


NOBODY: Final = Actor()


@attrs.frozen
class AuditEntry:
    """One row. Invariant: ``reason`` is empty iff the action was done."""

    action: Action
    request_id: str
    actor: Actor = NOBODY
    reason: str = ""
    jti: str | None = None
    detail: Mapping[str, DetailValue] = _NO_DETAIL


def actor_of(principal: Principal) -> Actor:
    """Return the columns that name an authenticated principal."""
    match principal:
        case PersonPrincipal(session=session):
            return Actor(
                principal_kind=PrincipalKind.PERSON,
                principal_id=session.user_id,
                user_id=session.user_id,
                session_id=session.session_id,
                device_id=session.device_id,
            )
        case KeyPrincipal():
            return Actor(
                principal_kind=PrincipalKind.SERVICE,
                principal_id=principal.key_id,
                user_id=principal.user_id,
                key_id=principal.key_id,
                org_id=principal.org_id,
            )


def refusal_entry(action: Action, refused: Refused, *, request_id: str, actor: Actor = NOBODY) -> AuditEntry:
    """Return the row of a refusal: its code and cause, and the field or topic at fault."""
    detail: dict[str, DetailValue] = {
        name: text[:DETAIL_TEXT_MAX_CHARS] for name, text in refused.details.items()
    }
    return AuditEntry(
        action=action,
        request_id=request_id,
        actor=actor,
        reason=f"{refused.code.name}:{refused.cause}",
        detail=detail,
    )


def topics_detail(topics: Sequence[str]) -> dict[str, DetailValue]:
    """Return the count of topics and the first of them."""
    return {"topic_count": len(topics), "topics": list(topics[:TOPICS_RECORDED_MAX])}
