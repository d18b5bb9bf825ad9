"""Domain values as the messages of openagents.control.v1, and the enums of requests back.

The words of shared enums are mapped by `khala_contracts.http_messages`; ours are mapped here.
"""

from collections.abc import Iterable
from typing import Final

from control.actors.authentication import Resolved
from control.actors.session_commands import IssuedTokens
from control.actors.sync_token_commands import MintedToken
from control.core.principals import (
    KeyPrincipal,
    Membership,
    PersonPrincipal,
    SessionInfo,
)
from control.core.redemptions import RedeemOutcome
from control.core.service_keys import KeyInfo
from control.core.sessions import MS_PER_S
from control.ports import OrgMember
from khala_contracts import http_messages as m
from khala_contracts.sync_claims import PrincipalKind, Surface
from khala_contracts.wire_enums import EnumMap

_OUTCOMES: Final = EnumMap(RedeemOutcome, m.RedeemResult.DESCRIPTOR)


def read_surface(number: int) -> Surface | None:
    """Return the surface of a request, None if it names none.

    Raises:
        WireError: malformed_message; a number that this build does not know.
    """
    return m.SURFACES.from_wire_untrusted(number, "surface") if number else None


def session_message(session: SessionInfo, *, of: PersonPrincipal) -> m.Session:
    """Return a session of a user; the orgs are the user's of now."""
    return m.Session(
        session_id=session.session_id,
        user_id=session.user_id,
        device_id=session.device_id,
        surface=m.SURFACES.to_wire(session.surface),
        created_at=session.created_at_ms,
        expires_at=session.expires_at_ms,
        revoked_at=session.revoked_at_ms or 0,
        orgs=[membership_message(membership) for membership in of.memberships],
        login=of.login,
        revoked_reason=session.revoked_reason or "",
        revoked_by=session.revoked_by or "",
    )


def membership_message(membership: Membership) -> m.OrgMembership:
    """Return one org of a user."""
    return m.OrgMembership(org_id=membership.org_id, name=membership.name, role=membership.role.value)


def member_message(member: OrgMember) -> m.OrgMember:
    """Return one member of an org."""
    return m.OrgMember(
        user_id=member.user_id,
        login=member.login,
        role=member.role.value,
        joined_at=member.joined_at_ms,
    )


def person_message(person: PersonPrincipal) -> m.Session:
    """Return the session of a signed-in user with its orgs."""
    return session_message(person.session, of=person)


def tokens_message(tokens: IssuedTokens) -> m.SessionTokens:
    """Return what a sign-in or refresh hands out."""
    return m.SessionTokens(
        access_token=tokens.access_token,
        access_expires_at=tokens.access_expires_at_ms,
        refresh_token=tokens.refresh_token,
        refresh_expires_at=tokens.refresh_expires_at_ms,
        session=person_message(tokens.person),
    )


def minted_message(minted: MintedToken) -> m.SyncTokenResponse:
    """Return a sync token with what it grants."""
    claims = minted.claims
    return m.SyncTokenResponse(
        token=minted.token,
        jti=claims.jti,
        expires_at=claims.expires_at_s * MS_PER_S,
        grants=[
            m.TopicGrant(
                topic=grant.topic,
                basis=m.GRANT_BASES.to_wire(grant.basis),
                org_id=grant.org_id or "",
            )
            for grant in claims.grants
        ],
    )


def key_message(key: KeyInfo) -> m.ServiceKey:
    """Return a key without its secret."""
    return m.ServiceKey(
        key_id=key.key_id,
        name=key.name,
        org_id=key.org_id,
        rights=key.rights,
        topics=key.topics,
        created_at=key.created_at_ms,
        expires_at=key.expires_at_ms or 0,
        last_used_at=key.last_used_at_ms or 0,
        revoked_at=key.revoked_at_ms or 0,
        rotated_at=key.rotated_at_ms or 0,
        old_secret_ends_at=key.old_secret_ends_at_ms or 0,
    )


def principal_message(resolved: Resolved) -> m.Principal:
    """Return the bearer of a credential as other services see it."""
    match resolved.principal:
        case PersonPrincipal(session=session) as person:
            return m.Principal(
                kind=m.PRINCIPAL_KINDS.to_wire(PrincipalKind.PERSON),
                principal_id=session.user_id,
                user_id=session.user_id,
                session_id=session.session_id,
                device_id=session.device_id,
                orgs=[membership_message(membership) for membership in person.memberships],
                expires_at=resolved.expires_at_ms,
            )
        case KeyPrincipal() as key:
            return m.Principal(
                kind=m.PRINCIPAL_KINDS.to_wire(PrincipalKind.SERVICE),
                principal_id=key.key_id,
                user_id=key.user_id,
                orgs=[m.OrgMembership(org_id=key.org_id, name=key.org_name, role="member")],
                rights=sorted(right.value for right in key.rights),
                topics=[pattern.text for pattern in key.patterns],
                expires_at=resolved.expires_at_ms,
            )


def redeemed_message(outcomes: Iterable[RedeemOutcome]) -> m.RedeemResponse:
    """Return the outcomes of a batch in its order."""
    return m.RedeemResponse(results=[_OUTCOMES.to_wire(outcome) for outcome in outcomes])
