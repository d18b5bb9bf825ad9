"""Control in memory: sessions, memberships, sync tokens, the log of revocations, the audit log. One for a world.

It decides as control does: a grant per topic by the caller's rights at that moment, the owner of a run as the
authority's head says; a jti opens one connection, for ever; a session that ended is refused in the same step.
Tokens are texts that only this model can read, judged with the clock of the process that verifies them.

The world revokes; the verdict asks who was ever granted what (`grants`), and when rights ended (`log`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.sim.gates import wall_now
from khala.core.revocation_view import Revocation, RevocationKind, RevocationPage
from khala.ports import ControlUnavailableError, TokenRefusedError
from khala_contracts import reason_codes
from khala_contracts.sync_claims import GrantBasis, PrincipalKind, Surface, SyncClaims, TopicGrant
from khala_contracts.topics import TopicInvalid, parse_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from chaos.sim.gates import ControlFaults, PortGate
    from khala.core.access_audit import AuditBatch
    from khala.core.classification import HeadRights
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.topics import ParsedTopic, TopicName

__all__ = ["ControlModel", "MintRefused", "ModelControlClient", "ModelTokens", "SimulatedSession"]

# khala/adapters/sync_tokens.py: how far a token's times may be off the clock of who judges them.
LEEWAY_S: Final = 30
TTL_S: Final = 300
# Rows of the log in one answer.
PAGE_ROWS: Final = 100
RETRY_AFTER_S: Final = 1.0


class MintRefused(Exception):
    """Control will not mint this token.

    Attributes:
        reason: reauth_required, forbidden or topic_invalid.
        topic: The topic at fault, if it is one.
    """

    def __init__(self, reason: ReasonCode, topic: str = "") -> None:
        super().__init__(f"{reason.name} topic={topic or '-'}")
        self.reason = reason
        self.topic = topic


@attrs.define(eq=False)
class SimulatedSession:
    """A person who signed in on a device."""

    session_id: str
    user_id: str
    device_id: str
    is_ended: bool = False


class ControlModel:
    """Control; see the module.

    Attributes:
        grants: Every topic that a user was ever granted a token for, with the time of the first, by user.
        log: The revocations, in commit order.
        audited: Batches of the audit log, by their ids.
        on_revoked: Called after each row of the log, unless the push is lost: to hint through the broker.
    """

    def __init__(
        self, *, rng: Random, faults: ControlFaults, find_rights: Callable[[TopicName], HeadRights | None]
    ) -> None:
        """Answer with these faults.

        Args:
            rng: Draws latencies and faults.
            faults: What goes wrong at the moment.
            find_rights: Whose a run is, as the authority knows it now; None: there is no such run.
        """
        self.rng = rng
        self.faults = faults
        self.grants: dict[str, dict[TopicName, float]] = {}
        self.log: list[Revocation] = []
        self.audited: dict[str, AuditBatch] = {}
        self.on_revoked: Callable[[], None] | None = None
        self._find_rights = find_rights
        self._sessions: dict[str, SimulatedSession] = {}
        # By org: its members.
        self._members: dict[str, dict[str, None]] = {}
        self._tokens: dict[str, SyncClaims] = {}
        self._spent: dict[str, str] = {}

    # -- for the world -------------------------------------------------------------------------------

    def sign_in(self, session_id: str, user_id: str, device_id: str) -> SimulatedSession:
        """Begin a session of a person."""
        session = self._sessions[session_id] = SimulatedSession(session_id, user_id, device_id)
        return session

    def join(self, org_id: str, user_id: str) -> None:
        """Make a person a member of an org."""
        self._members.setdefault(org_id, {})[user_id] = None

    def is_member(self, org_id: str, user_id: str) -> bool:
        """Whether a person is a member now."""
        return user_id in self._members.get(org_id, {})

    def end_session(self, session_id: str) -> None:
        """Revoke a session; once."""
        session = self._sessions[session_id]
        if not session.is_ended:
            session.is_ended = True
            self._note(RevocationKind.SESSION, session_id=session_id, user_id=session.user_id)

    def leave(self, org_id: str, user_id: str) -> None:
        """Take a person's membership; once."""
        if self.is_member(org_id, user_id):
            del self._members[org_id][user_id]
            self._note(RevocationKind.MEMBERSHIP, org_id=org_id, user_id=user_id)

    def may_read(self, user_id: str, topic: TopicName) -> bool:
        """Whether a person may read a topic now: what a new token would grant."""
        parsed = parse_topic(topic)
        return self._grant(parsed, user_id, device_id="") is not None

    def mint_now(self, session_id: str, topics: Sequence[str], *, ttl_s: int = TTL_S) -> str:
        """Return a token for every topic asked for, or refuse and grant none.

        Raises:
            MintRefused: The session has ended, or a topic is denied; a foreign run is as one that is not.
        """
        session = self._sessions.get(session_id)
        if session is None or session.is_ended:
            raise MintRefused(reason_codes.REAUTH_REQUIRED)
        granted: list[TopicGrant] = []
        for name in topics:
            try:
                parsed = parse_topic(name)
            except TopicInvalid as error:
                raise MintRefused(reason_codes.TOPIC_INVALID, name) from error
            grant = self._grant(parsed, session.user_id, session.device_id)
            if grant is None:
                raise MintRefused(reason_codes.FORBIDDEN, name)
            granted.append(grant)
        number = len(self._tokens) + 1
        issued_at_s = int(wall_now())
        claims = SyncClaims(
            session_id=session_id,
            device_id=session.device_id,
            user_id=session.user_id,
            org_ids=tuple(
                sorted(org for org, members in self._members.items() if session.user_id in members)
            ),
            principal_kind=PrincipalKind.PERSON,
            principal_id=session.user_id,
            surface=Surface.DESKTOP,
            jti=f"jti_{number:026d}",
            issued_at_s=issued_at_s,
            expires_at_s=issued_at_s + ttl_s,
            grants=tuple(granted),
        )
        token = f"token-{number}"
        self._tokens[token] = claims
        known = self.grants.setdefault(session.user_id, {})
        for grant in granted:
            known.setdefault(grant.topic, trio.current_time())
        return token

    def _grant(self, parsed: ParsedTopic, user_id: str, device_id: str) -> TopicGrant | None:
        """Return the right by which a person may read a topic, the closest first; None: denied."""
        ids, owner, org_id = parsed.ids, parsed.ids.get("user_id"), parsed.ids.get("org_id")
        if "run_id" in ids or "worker_id" in ids:
            rights = self._find_rights(parsed.name)
            owner, org_id = (None, None) if rights is None else (rights.owner_user_id, rights.org_id)
        if owner == user_id:
            return TopicGrant(parsed.name, GrantBasis.OWNER)
        if ids.get("device_id", "") == device_id != "":
            return TopicGrant(parsed.name, GrantBasis.DEVICE)
        if org_id is not None and self.is_member(org_id, user_id):
            return TopicGrant(parsed.name, GrantBasis.ORG_MEMBER, org_id)
        return None

    def _note(self, kind: RevocationKind, **ids: str) -> None:
        self.log.append(Revocation(len(self.log) + 1, kind, int(wall_now() * 1000), **ids))
        is_lost = self.faults.push_loss > 0 and self.rng.random() < self.faults.push_loss
        if self.on_revoked is not None and not is_lost:
            self.on_revoked()

    # -- for the processes -----------------------------------------------------------------------------

    def open_client(self, gate: PortGate) -> ModelControlClient:
        """Return control as one process reaches it."""
        return ModelControlClient(self, gate)

    def open_tokens(self, gate: PortGate) -> ModelTokens:
        """Return the verifier of one node: it has the keys, so control may be away."""
        return ModelTokens(self._tokens, gate)

    def spend(self, claims: SyncClaims, connection_id: str) -> ReasonCode | None:
        """Redeem a token; see ControlClient."""
        session = self._sessions.get(claims.session_id)
        if session is None or session.is_ended:
            return reason_codes.REAUTH_REQUIRED
        holder = self._spent.setdefault(claims.jti, connection_id)
        return None if holder == connection_id else reason_codes.TOKEN_REPLAYED


class ModelControlClient:
    """ControlClient, RevocationSource, AuditLog and MembershipDirectory of one process; mints for clients."""

    def __init__(self, model: ControlModel, gate: PortGate) -> None:
        self._model = model
        self._gate = gate

    async def redeem(self, claims: SyncClaims, connection_id: str) -> ReasonCode | None:
        """Spend a token for a connection; see ControlClient."""
        await self._ask("control.redeem")
        outcome = self._model.spend(claims, connection_id)
        await self._answer()
        return outcome

    async def read_revocations(self, after_seq: int) -> RevocationPage:
        """Return the rows of the log after a position; see RevocationSource."""
        await self._ask("control.revocations")
        log = self._model.log
        page = RevocationPage(log[after_seq : after_seq + PAGE_ROWS], len(log), 1)
        await self._answer()
        return page

    async def append_audit(self, batch: AuditBatch) -> None:
        """Have a batch written; see AuditLog."""
        await self._ask("control.audit")
        known = self._model.audited.setdefault(batch.batch_id, batch)
        assert known == batch, "one batch id, two batches"
        await self._answer()

    async def is_member(self, org_id: str, user_id: str) -> bool:
        """Return whether the person is a member now; see MembershipDirectory."""
        await self._ask("control.member")
        answer = self._model.is_member(org_id, user_id)
        await self._answer()
        return answer

    async def mint(self, session_id: str, topics: Sequence[str], *, ttl_s: int = TTL_S) -> str:
        """Return a sync token.

        Raises:
            MintRefused: see ControlModel.mint_now.
            ControlUnavailableError: No answer; a token whose answer was lost is never used.
        """
        await self._ask("control.mint")
        token = self._model.mint_now(session_id, topics, ttl_s=ttl_s)
        await self._answer()
        return token

    async def _ask(self, kind: str) -> None:
        await self._gate.cross(kind)
        self._reach()
        delay_s = self._model.faults.reply.draw(self._model.rng)
        if delay_s:
            # The way there; the way back is as long.
            await trio.sleep(delay_s / 2)
            await self._cross_alive()

    async def _answer(self) -> None:
        model = self._model
        delay_s = model.faults.reply.draw(model.rng)
        if delay_s:
            await trio.sleep(delay_s / 2)
        await self._cross_alive()
        if model.faults.lost_reply > 0 and model.rng.random() < model.faults.lost_reply:
            raise ControlUnavailableError(RETRY_AFTER_S)

    async def _cross_alive(self) -> None:
        if self._gate.is_severed:
            await trio.sleep_forever()
        self._reach()

    def _reach(self) -> None:
        if self._model.faults.is_down:
            raise ControlUnavailableError(RETRY_AFTER_S)


class ModelTokens:
    """TokenVerifier of one node."""

    def __init__(self, tokens: dict[str, SyncClaims], gate: PortGate) -> None:
        self._tokens = tokens
        self._gate = gate

    async def verify(self, token: str) -> SyncClaims:
        """Return the claims of a token that is valid by this process's clock; see TokenVerifier."""
        await self._gate.cross("tokens.verify")
        claims = self._tokens.get(token)
        if claims is None:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "signature")
        now_s = self._gate.clock.now()
        if claims.issued_at_s > now_s + LEEWAY_S:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "not_yet_valid")
        if now_s >= claims.expires_at_s + LEEWAY_S:
            raise TokenRefusedError(reason_codes.TOKEN_EXPIRED, "expired")
        return claims
