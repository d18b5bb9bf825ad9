"""Who may follow which topic, judged at subscribe and again at every position check.

A sync token names each topic together with the right by which control granted it. For runs and
workers the runtime writes the owner and the org on the head row, and both must still agree; the
other classes are decided by the ids in the topic's own name. Denial looks the same whether or
not the topic exists (SPEC section 1, promise 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts.sync_claims import GrantBasis

if TYPE_CHECKING:
    from khala.core.classification import HeadRights
    from khala_contracts.sync_claims import SyncClaims, TopicGrant
    from khala_contracts.topics import ParsedTopic, TopicName

# Classes whose owner is written on the head row by the runtime; a topic without a row does not exist.
AUTHORITY_OWNED_CLASSES = frozenset({"run_events", "worker_events"})


def find_grant(claims: SyncClaims, topic: TopicName) -> TopicGrant | None:
    """Return the token's grant for exactly this topic; names compare as bytes."""
    for grant in claims.grants:
        if grant.topic == topic:
            return grant
    return None


def is_allowed(
    claims: SyncClaims, grant: TopicGrant, parsed: ParsedTopic, rights: HeadRights, *, exists: bool
) -> bool:
    """Return whether the right named by the grant still holds for this topic."""
    if parsed.topic_class.name in AUTHORITY_OWNED_CLASSES:
        return exists and _holds_on_head(claims, grant, rights)
    return _holds_by_name(claims, grant, parsed)


def _holds_on_head(claims: SyncClaims, grant: TopicGrant, rights: HeadRights) -> bool:
    match grant.basis:
        case GrantBasis.OWNER:
            return rights.owner_user_id is not None and rights.owner_user_id == claims.user_id
        case GrantBasis.ORG_MEMBER | GrantBasis.ORG_ADMIN | GrantBasis.KEY:
            return rights.org_id is not None and rights.org_id == grant.org_id
        case GrantBasis.DEVICE:
            return False


def _holds_by_name(claims: SyncClaims, grant: TopicGrant, parsed: ParsedTopic) -> bool:
    ids = parsed.ids
    match grant.basis:
        case GrantBasis.OWNER:
            return ids.get("user_id") == claims.user_id
        case GrantBasis.DEVICE:
            return ids.get("device_id") == claims.device_id
        case GrantBasis.ORG_MEMBER | GrantBasis.ORG_ADMIN | GrantBasis.KEY:
            return ids.get("org_id") is not None and ids.get("org_id") == grant.org_id
