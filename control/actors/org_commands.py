"""Orgs, their members, and what roles allow; for people, and one question for the runtime.

An org that the caller does not belong to looks the same as one that does not exist.
"""

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication
from control.core.audit import Action, AuditEntry, actor_of
from control.core.org_policy import (
    OrgAction,
    check_name,
    check_reader,
    is_allowed,
    parse_action,
    parse_role,
)
from control.core.principals import KeyPrincipal, Membership, OrgRole, PersonPrincipal
from control.core.refusals import invalid_argument, not_found
from control.core.sessions import MS_PER_S
from control.ports import Clock, Ids, Meters, OrgMember, OrgStore
from khala_contracts.ids import is_id


class OrgCommands:
    """What a person may do with orgs."""

    def __init__(
        self,
        *,
        store: OrgStore,
        authentication: Authentication,
        trail: AuditTrail,
        clock: Clock,
        ids: Ids,
        meters: Meters,
    ) -> None:
        self._store = store
        self._authentication = authentication
        self._trail = trail
        self._clock = clock
        self._ids = ids
        self._meters = meters

    async def create(self, credential: str | None, *, name: str, request_id: str) -> Membership:
        """Make an org; the caller is its first owner.

        Raises:
            Refused: unauthenticated, reauth_required, forbidden for a service key; invalid_argument.
        """
        async with self._trail.watching(Action.ORG_CREATE, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            check_name(name)
        org_id = self._ids.new("org")
        entry = AuditEntry(
            action=Action.ORG_CREATE,
            request_id=request_id,
            actor=attrs.evolve(actor_of(person), org_id=org_id),
            detail={"name": name},
        )
        await self._store.create_org(
            org_id, name, user_id=person.session.user_id, now_ms=self._now_ms(), audit=entry
        )
        self._meters.count_done(Action.ORG_CREATE)
        return Membership(org_id, name, OrgRole.OWNER)

    async def list_orgs(self, credential: str | None, *, request_id: str) -> tuple[Membership, ...]:
        """Return the caller's orgs with its role in each.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for a service key.
        """
        async with self._trail.watching(Action.ORG_READ, request_id=request_id):
            person = await self._authentication.authenticate_person_untrusted(credential)
        return person.memberships

    async def list_members(
        self, credential: str | None, *, org_id: str, request_id: str
    ) -> tuple[OrgMember, ...]:
        """Return the members of an org of the caller.

        Raises:
            Refused: unauthenticated, reauth_required, forbidden; not_found.
        """
        async with self._trail.watching(Action.ORG_READ, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            check_reader(person.roles.get(org_id), OrgAction.MEMBERS_READ)
        return await self._store.list_members(org_id)

    async def find_member(self, org_id: str, user_id: str) -> OrgMember:
        """Return a member of an org, as the runtime asks before it gives a run to somebody.

        Raises:
            Refused: not_found for whoever is none.
        """
        member = await self._store.find_member(org_id, user_id)
        if member is None:
            raise not_found("no_such_member")
        return member

    async def put_member(
        self, credential: str | None, *, org_id: str, user_id: str, role: str, request_id: str
    ) -> OrgMember:
        """Add a user to an org, or give a member another role.

        Raises:
            Refused: unauthenticated, reauth_required; not_found for an org or user that the caller
                cannot see; forbidden without the right; invalid_argument.
        """
        changed = await self._change(
            credential, Action.MEMBER_PUT, org_id, user_id, parse_role(role), request_id=request_id
        )
        assert changed is not None, "only a removal returns nobody"
        return changed

    async def remove_member(
        self, credential: str | None, *, org_id: str, user_id: str, request_id: str
    ) -> None:
        """Remove a member, or leave an org; sockets lose the org's topics.

        Raises:
            Refused: as `put_member`; the last owner stays.
        """
        await self._change(credential, Action.MEMBER_REMOVE, org_id, user_id, None, request_id=request_id)

    async def evaluate(
        self, credential: str | None, *, org_id: str, action: str, request_id: str
    ) -> tuple[bool, OrgRole | None]:
        """Return whether the caller may do something in an org, and the role on which that stands.

        A service key acts as a member of its org. No role is no error: the answer is no.

        Raises:
            Refused: unauthenticated, reauth_required; invalid_argument for an unknown action.
        """
        async with self._trail.watching(Action.POLICY_EVALUATE, request_id=request_id) as watch:
            principal = await self._authentication.authenticate_untrusted(credential)
            watch.actor = actor_of(principal)
            wanted = parse_action(action)
        role = _role_in(principal, org_id)
        return is_allowed(role, wanted), role

    async def _change(
        self,
        credential: str | None,
        action: Action,
        org_id: str,
        user_id: str,
        role: OrgRole | None,
        *,
        request_id: str,
    ) -> OrgMember | None:
        async with self._trail.watching(action, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = attrs.evolve(actor_of(person), org_id=org_id if is_id("org", org_id) else None)
            if not is_id("usr", user_id):
                raise invalid_argument("user_id", "usr_ and 26 characters of base32")
            entry = AuditEntry(
                action=action,
                request_id=request_id,
                actor=watch.actor,
                detail={"member": user_id, "role": role.value if role else ""},
            )
            changed = await self._store.change_member(
                org_id,
                user_id,
                role,
                actor_user_id=person.session.user_id,
                now_ms=self._now_ms(),
                audit=entry,
            )
        self._meters.count_done(action)
        return changed

    def _now_ms(self) -> int:
        return int(self._clock.now() * MS_PER_S)


def _role_in(principal: PersonPrincipal | KeyPrincipal, org_id: str) -> OrgRole | None:
    if isinstance(principal, PersonPrincipal):
        return principal.roles.get(org_id)
    return OrgRole.MEMBER if principal.org_id == org_id else None
