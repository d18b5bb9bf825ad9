"""Minting sync tokens and redeeming them.

Order of a mint: who asks, what is asked (grammar, bounds), who owns the runs among it (the runtime, asked
anew), what may be granted (pure, all or nothing), then session, audit row and signature. Rights are read
for this request; nothing is cached. A token that was signed but whose reply was lost is never redeemed
and ends by itself.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication
from control.core.audit import Action, AuditEntry, actor_of, topics_detail
from control.core.principals import KeyPrincipal, PersonPrincipal, Principal
from control.core.redemptions import RedeemOutcome, Redemption, check_batch
from control.core.refusals import topic_forbidden
from control.core.rights import Denied, decide_grants, topics_with_owners
from control.core.sessions import MS_PER_S
from control.core.sync_tokens import (
    Subject,
    SyncHolder,
    SyncLimits,
    SyncOrder,
    check_order,
    decide_ttl_s,
    make_claims,
)
from control.ports import (
    Clock,
    Ids,
    KeySessionOrder,
    Meters,
    RedemptionStore,
    RuntimeOwners,
    SessionStore,
    TokenSigner,
)
from khala_contracts.sync_claims import (
    PrincipalKind,
    Surface,
    SyncClaims,
    TopicGrant,
    to_claims,
)

# A service or derived session outlives its newest token by this much, so that a token judged with the
# leeway of a node's clock still has a session.
SESSION_MARGIN_MS: Final = 60_000


@attrs.frozen(repr=False)
class MintedToken:
    """A signed sync token and what it says. Not printable."""

    token: str
    claims: SyncClaims


class SyncTokenCommands:
    """Sync tokens: minted for people and machines, redeemed for nodes."""

    def __init__(
        self,
        *,
        authentication: Authentication,
        sessions: SessionStore,
        redemptions: RedemptionStore,
        owners: RuntimeOwners,
        trail: AuditTrail,
        signer: TokenSigner,
        clock: Clock,
        ids: Ids,
        limits: SyncLimits,
        meters: Meters,
    ) -> None:
        self._authentication = authentication
        self._sessions = sessions
        self._redemptions = redemptions
        self._owners = owners
        self._trail = trail
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._meters = meters

    async def mint(
        self,
        credential: str | None,
        *,
        topics: Sequence[str],
        ttl_s: int,
        device_id: str,
        surface: Surface | None,
        subject: Subject | None,
        request_id: str,
    ) -> MintedToken:
        """Return a token that grants every topic asked for, or refuse and grant none.

        Raises:
            Refused: unauthenticated, reauth_required; invalid_argument or topic_invalid with the
                field; forbidden, with the first topic that is denied if it is a topic.
            Unavailable: The runtime was asked for owners and did not answer.
        """
        async with self._trail.watching(Action.TOKEN_MINT, request_id=request_id) as watch:
            principal = await self._authentication.authenticate_untrusted(credential)
            watch.actor = actor_of(principal)
            order = check_order(
                principal,
                topics=topics,
                ttl_s=ttl_s,
                device_id=device_id,
                surface=surface,
                subject=subject,
                limits=self._limits,
            )
            grants = await self._decide(principal, order)
            now_ms = int(self._clock.now() * MS_PER_S)
            lifetime_s = decide_ttl_s(
                order, ends_at_ms=_ends_at_ms(principal), now_ms=now_ms, limits=self._limits
            )
            holder = await self._open_holder(principal, order, now_ms=now_ms, ttl_s=lifetime_s)
        claims = make_claims(
            holder,
            grants,
            jti=self._ids.new("jti"),
            now_s=now_ms // MS_PER_S,
            ttl_s=lifetime_s,
        )
        await self._trail.note(
            AuditEntry(
                action=Action.TOKEN_MINT,
                request_id=request_id,
                actor=attrs.evolve(
                    watch.actor,
                    principal_kind=holder.principal_kind,
                    user_id=holder.user_id,
                    session_id=holder.session_id,
                    device_id=holder.device_id,
                ),
                jti=claims.jti,
                detail=topics_detail([grant.topic for grant in grants]),
            )
        )
        token = self._signer.sign(to_claims(claims))
        return MintedToken(token=token, claims=claims)

    async def redeem(self, batch: Sequence[Redemption]) -> tuple[RedeemOutcome, ...]:
        """Answer for each token whether this connection is the one that it opens.

        Idempotent per (jti, connection): asked again, the same answer, unless it was revoked since.

        Raises:
            Refused: invalid_argument; nothing of the batch was redeemed.
            Unavailable: The outcome may be unknown; asking again is safe.
        """
        now_ms = int(self._clock.now() * MS_PER_S)
        check_batch(batch, now_ms=now_ms)
        outcomes = await self._redemptions.redeem(batch, now_ms=now_ms)
        self._meters.count_redemptions(outcomes)
        return outcomes

    async def _decide(self, principal: Principal, order: SyncOrder) -> tuple[TopicGrant, ...]:
        asked = topics_with_owners(order.topics)
        owners = await self._owners.owners_of(asked) if asked else {}
        decision = decide_grants(principal, order.topics, owners=owners)
        if isinstance(decision, Denied):
            raise topic_forbidden(decision.topic)
        return decision.grants

    async def _open_holder(
        self, principal: Principal, order: SyncOrder, *, now_ms: int, ttl_s: int
    ) -> SyncHolder:
        match principal:
            case PersonPrincipal(session=session):
                return SyncHolder(
                    session_id=session.session_id,
                    principal_kind=PrincipalKind.PERSON,
                    principal_id=session.user_id,
                    user_id=session.user_id,
                    device_id=order.device_id,
                    surface=order.surface,
                    org_ids=tuple(sorted(principal.roles)),
                )
            case KeyPrincipal():
                return await self._open_key_holder(principal, order, now_ms=now_ms, ttl_s=ttl_s)

    async def _open_key_holder(
        self, key: KeyPrincipal, order: SyncOrder, *, now_ms: int, ttl_s: int
    ) -> SyncHolder:
        subject = order.subject
        session = await self._sessions.open_key_session(
            KeySessionOrder(
                new_session_id=self._ids.new("ses"),
                key_id=key.key_id,
                key_user_id=key.user_id,
                org_id=key.org_id,
                external_user_id=subject.external_user_id if subject else None,
                new_user_id=self._ids.new("usr"),
                device_id=order.device_id,
                surface=order.surface,
                now_ms=now_ms,
                expires_at_ms=now_ms + ttl_s * MS_PER_S + SESSION_MARGIN_MS,
            )
        )
        return SyncHolder(
            session_id=session.session_id,
            principal_kind=PrincipalKind.DERIVED if subject else PrincipalKind.SERVICE,
            principal_id=key.key_id,
            user_id=session.user_id,
            device_id=order.device_id,
            surface=order.surface,
            org_ids=(key.org_id,),
        )


def _ends_at_ms(principal: Principal) -> int | None:
    match principal:
        case PersonPrincipal(session=session):
            return session.expires_at_ms
        case KeyPrincipal():
            return principal.expires_at_ms
