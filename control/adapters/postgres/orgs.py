"""Orgs and their members in PostgreSQL. Implements `ports.OrgStore`.

A change of members is decided under the org's name lock, with its audit row and, where somebody may do less
afterwards, its revocation in the same transaction.
"""

from control.adapters.postgres import statements
from control.adapters.postgres.audit import append_entry
from control.adapters.postgres.revocations import RevocationWriter
from control.adapters.postgres.rows import to_ms, to_time
from control.core.audit import AuditEntry
from control.core.org_policy import MEMBERS_MAX, MemberChange, check_change
from control.core.principals import OrgRole
from control.core.refusals import not_found
from control.core.revocations import membership_ended
from control.ports import OrgMember
from khala_service.adapters.postgres import PostgresPool, Row


class PostgresOrgs:
    """Orgs that people make, and who belongs to them."""

    def __init__(self, pool: PostgresPool, revocations: RevocationWriter | None = None) -> None:
        self._pool = pool
        self._revocations = revocations or RevocationWriter()

    async def create_org(
        self, org_id: str, name: str, *, user_id: str, now_ms: int, audit: AuditEntry
    ) -> None:
        """Make an org with its first owner; see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(statements.INSERT_ORG, org_id, name, user_id, to_time(now_ms))
            await append_entry(connection, audit)

    async def list_members(self, org_id: str) -> tuple[OrgMember, ...]:
        """Return the members; see the port."""
        rows = await self._pool.fetch(statements.LIST_MEMBERS, org_id, MEMBERS_MAX)
        return tuple(_member(row) for row in rows)

    async def find_member(self, org_id: str, user_id: str) -> OrgMember | None:
        """Return one member, None if the user is none; see the port."""
        row = await self._pool.fetchrow(statements.FIND_MEMBER, org_id, user_id)
        return None if row is None else _member(row)

    async def change_member(
        self,
        org_id: str,
        user_id: str,
        new_role: OrgRole | None,
        *,
        actor_user_id: str,
        now_ms: int,
        audit: AuditEntry,
    ) -> OrgMember | None:
        """Decide and carry out a change of one member; see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(statements.LOCK_NAME, f"members\n{org_id}")
            row = await connection.fetchrow(statements.LOCK_MEMBERS, org_id, actor_user_id, user_id)
            assert row is not None, "a select without FROM returns one row"
            change = MemberChange(
                actor_role=_role(row["actor_role"]),
                old_role=_role(row["old_role"]),
                new_role=new_role,
                is_own=actor_user_id == user_id,
                owner_count=row["owner_count"],
                member_count=row["member_count"],
            )
            check_change(change)
            if row["login"] is None:
                raise not_found("no_such_user")
            changed: OrgMember | None = None
            if new_role is None:
                await connection.execute(statements.REMOVE_MEMBER, org_id, user_id)
            else:
                put = await connection.fetchrow(
                    statements.PUT_MEMBER, org_id, user_id, new_role.value, to_time(now_ms)
                )
                assert put is not None, "an upsert without a condition returns its row"
                changed = OrgMember(user_id, row["login"], new_role, to_ms(put["created_at"]))
            await append_entry(connection, audit)
            if change.shrinks_rights:
                await self._revocations.append(
                    connection, [membership_ended(org_id, user_id)], cause=audit.action.value, now_ms=now_ms
                )
            return changed


def _member(row: Row) -> OrgMember:
    return OrgMember(row["user_id"], row["login"], OrgRole(row["role"]), to_ms(row["created_at"]))


def _role(text: str | None) -> OrgRole | None:
    return None if text is None else OrgRole(text)
