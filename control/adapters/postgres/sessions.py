"""Users, devices, sessions and refresh tokens in PostgreSQL. Implements `ports.SessionStore`.

Every change is one transaction with its audit row. Names that racing requests may want to create at the
same time (an identity, a device's inbox) are locked first, in the order identity, device.
"""

from typing import Final

import attrs

from control.adapters.postgres import statements
from control.adapters.postgres.audit import append_entry
from control.adapters.postgres.revocations import RevocationWriter
from control.adapters.postgres.rows import (
    read_person,
    read_session,
    to_ms,
    to_ms_or_none,
    to_time,
)
from control.core.audit import Action, Actor, AuditEntry, actor_of
from control.core.principals import PersonPrincipal, SessionInfo
from control.core.revocations import SessionSelection, session_ended
from control.core.sessions import RefreshRecord, RefreshRefusal, Reissue, decide_refresh
from control.ports import (
    KeySession,
    KeySessionOrder,
    RefreshDenied,
    RefreshOrder,
    Reissued,
    Rotated,
    SignIn,
)
from khala_contracts.sync_claims import PrincipalKind
from khala_service.adapters.postgres import PostgresConnection, PostgresPool, Row

# Long enough to answer "which sessions did I have last month"; SPEC asks for nothing longer.
KEPT_AFTER_EXPIRY_MS: Final = 30 * 24 * 3_600_000


class PostgresSessions:
    """Sessions of people, and the sessions that key mints stand on."""

    def __init__(self, pool: PostgresPool, revocations: RevocationWriter | None = None) -> None:
        self._pool = pool
        self._revocations = revocations or RevocationWriter()

    async def sign_in(self, order: SignIn, *, request_id: str) -> PersonPrincipal:
        """Open a session; see the port."""
        session = order.session
        async with self._pool.acquire() as connection, connection.transaction():
            user_id = await _ensure_person(connection, order)
            await _see_device(
                connection, user_id, session.device_id, may_own_inbox=True, now_ms=session.created_at_ms
            )
            await connection.execute(
                statements.INSERT_SESSION,
                session.session_id,
                user_id,
                session.device_id,
                session.surface.value,
                to_time(session.created_at_ms),
                to_time(session.expires_at_ms),
                session.refresh_hash,
            )
            row = await connection.fetchrow(statements.FIND_PERSON, session.session_id)
            assert row is not None, "the session was inserted by this transaction"
            person = read_person(row)
            entry = AuditEntry(
                action=Action.SIGN_IN,
                request_id=request_id,
                actor=actor_of(person),
                detail={
                    "issuer": order.issuer,
                    "login": order.login,
                    "surface": session.surface.value,
                },
            )
            await append_entry(connection, entry)
            return person

    async def find_person(self, session_id: str) -> PersonPrincipal | None:
        """Return session and memberships in one statement; see the port."""
        row = await self._pool.fetchrow(statements.FIND_PERSON, session_id)
        return None if row is None else read_person(row)

    async def rotate_refresh(
        self, order: RefreshOrder, *, now_ms: int, request_id: str
    ) -> Rotated | Reissued | RefreshDenied:
        """Decide and carry out a refresh under the token's row lock; see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statements.LOCK_REFRESH, order.presented_hash)
            decision = decide_refresh(
                _read_refresh(row), device_id=order.device_id, now_ms=now_ms, grace_ms=order.grace_ms
            )
            if row is None or decision is RefreshRefusal.UNKNOWN:
                return RefreshDenied(RefreshRefusal.UNKNOWN, None)
            session = read_session(row)
            if isinstance(decision, RefreshRefusal):
                if decision is RefreshRefusal.REUSED:
                    await self._end_family(connection, session, now_ms=now_ms, request_id=request_id)
                return RefreshDenied(decision, session.session_id)
            if isinstance(decision, Reissue):
                return Reissued(session, decision.expires_at_ms, decision.sealed_successor)
            rotated = await connection.execute(
                statements.ROTATE_REFRESH,
                order.presented_hash,
                order.successor_hash,
                to_time(now_ms),
                to_time(decision.expires_at_ms),
                order.sealed_successor if order.grace_ms else None,
            )
            assert rotated == "INSERT 0 1", "the row's lock keeps the decision true"
            entry = AuditEntry(action=Action.REFRESH, request_id=request_id, actor=_actor_in(session))
            await append_entry(connection, entry)
            return Rotated(session, decision.expires_at_ms)

    async def _end_family(
        self, connection: PostgresConnection, session: SessionInfo, *, now_ms: int, request_id: str
    ) -> None:
        """End a session of whose spent refresh tokens somebody holds a copy."""
        selection = SessionSelection(session.user_id, session_id=session.session_id)
        entry = AuditEntry(
            action=Action.SESSION_REVOKE,
            request_id=request_id,
            actor=_actor_in(session),
            detail={"cause": RefreshRefusal.REUSED.value, "session_count": 1},
        )
        await self._revoke(
            connection, selection, cause=RefreshRefusal.REUSED.value, now_ms=now_ms, audit=entry
        )

    async def _revoke(
        self,
        connection: PostgresConnection,
        selection: SessionSelection,
        *,
        cause: str,
        now_ms: int,
        audit: AuditEntry,
    ) -> tuple[str, ...]:
        rows = await connection.fetch(
            statements.REVOKE_SESSIONS,
            selection.user_id,
            selection.principal_kind.value,
            selection.session_id,
            selection.device_id,
            selection.spare_session_id,
            to_time(now_ms),
            cause,
            audit.actor.user_id,
        )
        ended = tuple(sorted(row["session_id"] for row in rows))
        if ended:
            await append_entry(
                connection, attrs.evolve(audit, detail={**audit.detail, "session_count": len(ended)})
            )
            await self._revocations.append(
                connection, [session_ended(session_id) for session_id in ended], cause=cause, now_ms=now_ms
            )
        return ended

    async def revoke_sessions(
        self, selection: SessionSelection, *, cause: str, now_ms: int, audit: AuditEntry
    ) -> tuple[str, ...]:
        """End live sessions; see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            return await self._revoke(connection, selection, cause=cause, now_ms=now_ms, audit=audit)

    async def find_subject(self, org_id: str, external_user_id: str) -> str | None:
        """Return the user that an application's own user is known as; see the port."""
        row = await self._pool.fetchrow(statements.FIND_USER, f"org:{org_id}", external_user_id)
        return None if row is None else str(row["user_id"])

    async def has_device(self, user_id: str, device_id: str) -> bool:
        """Return whether a session of the user was ever opened on the device; see the port."""
        return await self._pool.fetchrow(statements.FIND_DEVICE, user_id, device_id) is not None

    async def list_sessions(
        self, user_id: str, *, device_id: str | None, limit: int
    ) -> tuple[SessionInfo, ...]:
        """Return a user's newest sessions; see the port."""
        rows = await self._pool.fetch(statements.LIST_SESSIONS, user_id, device_id, limit)
        return tuple(read_session(row) for row in rows)

    async def open_key_session(self, order: KeySessionOrder) -> KeySession:
        """Return the live session of (key, user, device); see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            if order.external_user_id is None:
                kind, user_id = PrincipalKind.SERVICE, order.key_user_id
            else:
                kind = PrincipalKind.DERIVED
                user_id = await _ensure_external_user(connection, order, order.external_user_id)
            await _see_device(connection, user_id, order.device_id, may_own_inbox=False, now_ms=order.now_ms)
            row = await connection.fetchrow(
                statements.OPEN_KEY_SESSION,
                order.new_session_id,
                kind.value,
                user_id,
                order.device_id,
                order.key_id,
                order.surface.value,
                to_time(order.now_ms),
                to_time(order.expires_at_ms),
            )
            assert row is not None, "an upsert without a condition returns its row"
            return KeySession(session_id=row["session_id"], user_id=user_id)

    async def forget_successors(self, *, spent_before_ms: int, batch: int) -> int:
        """Forget sealed successors that nobody may have again; see the port."""
        tag = await self._pool.execute(statements.SWEEP_SEALED_SUCCESSORS, to_time(spent_before_ms), batch)
        return int(tag.rpartition(" ")[2])

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove sessions that ended 30 days ago; see the port."""
        tag = await self._pool.execute(
            statements.SWEEP_SESSIONS, to_time(now_ms - KEPT_AFTER_EXPIRY_MS), batch
        )
        return int(tag.rpartition(" ")[2])


def _read_refresh(row: Row | None) -> RefreshRecord | None:
    if row is None:
        return None
    return RefreshRecord(
        session_id=row["session_id"],
        device_id=row["device_id"],
        session_expires_at_ms=to_ms(row["expires_at"]),
        session_revoked_at_ms=to_ms_or_none(row["revoked_at"]),
        expires_at_ms=to_ms(row["token_expires_at"]),
        used_at_ms=to_ms_or_none(row["used_at"]),
        sealed_successor=row["sealed_successor"],
    )


def _actor_in(session: SessionInfo) -> Actor:
    return Actor(
        principal_kind=PrincipalKind.PERSON,
        principal_id=session.user_id,
        user_id=session.user_id,
        session_id=session.session_id,
        device_id=session.device_id,
    )


async def _ensure_user(
    connection: PostgresConnection,
    *,
    issuer: str,
    subject: str,
    login: str,
    new_user_id: str,
    now_ms: int,
) -> tuple[str, bool]:
    """Return the user of an identity and whether it was made now."""
    found = await connection.fetchrow(statements.FIND_USER, issuer, subject)
    if found is None:
        await connection.execute(statements.LOCK_NAME, f"identity\n{issuer}\n{subject}")
        found = await connection.fetchrow(statements.FIND_USER, issuer, subject)
    if found is not None:
        return str(found["user_id"]), False
    await connection.execute(statements.INSERT_USER, new_user_id, login, issuer, subject, to_time(now_ms))
    return new_user_id, True


async def _ensure_person(connection: PostgresConnection, order: SignIn) -> str:
    now_ms = order.session.created_at_ms
    user_id, is_new = await _ensure_user(
        connection,
        issuer=order.issuer,
        subject=order.subject,
        login=order.login,
        new_user_id=order.new_user_id,
        now_ms=now_ms,
    )
    if is_new:
        await connection.execute(
            statements.INSERT_PERSONAL_ORG, order.new_org_id, order.login, user_id, to_time(now_ms)
        )
    return user_id


async def _ensure_external_user(
    connection: PostgresConnection, order: KeySessionOrder, external_user_id: str
) -> str:
    # The issuer names the org: two orgs' users with one id are two users, and neither is a person's.
    user_id, _ = await _ensure_user(
        connection,
        issuer=f"org:{order.org_id}",
        subject=external_user_id,
        login=external_user_id,
        new_user_id=order.new_user_id,
        now_ms=order.now_ms,
    )
    return user_id


async def _see_device(
    connection: PostgresConnection,
    user_id: str,
    device_id: str,
    *,
    may_own_inbox: bool,
    now_ms: int,
) -> None:
    if may_own_inbox:
        await connection.execute(statements.LOCK_NAME, f"device\n{device_id}")
    await connection.execute(statements.SEE_DEVICE, user_id, device_id, may_own_inbox, to_time(now_ms))
