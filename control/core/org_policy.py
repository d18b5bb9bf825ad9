"""What each role may do in an org, and which changes of members are allowed. Pure; one table.

org.read members.read runs.read runs.create  ops.read keys.manage members.manage  owners.manage
owner      x          x           x         x           x         x             x               x
admin      x          x           x         x           x         x             x
member     x          x           x         x
none
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import attrs

from control.core.principals import ADMIN_ROLES, OrgRole
from control.core.refusals import forbidden, invalid_argument, not_found

NAME_MAX_BYTES: Final = 256
# An org of more is a directory's affair: members then come from the identity provider.
MEMBERS_MAX: Final = 1_000


class OrgAction(Enum):
    """What can be done in an org."""

    ORG_READ = "org.read"
    MEMBERS_READ = "members.read"
    RUNS_READ = "runs.read"
    RUNS_CREATE = "runs.create"
    OPS_READ = "ops.read"
    KEYS_MANAGE = "keys.manage"
    # Adds and removes members and admins.
    MEMBERS_MANAGE = "members.manage"
    # Makes owners, and takes the role from them.
    OWNERS_MANAGE = "owners.manage"


_MEMBER: Final = frozenset(
    {OrgAction.ORG_READ, OrgAction.MEMBERS_READ, OrgAction.RUNS_READ, OrgAction.RUNS_CREATE}
)
_ADMIN: Final = _MEMBER | {OrgAction.OPS_READ, OrgAction.KEYS_MANAGE, OrgAction.MEMBERS_MANAGE}
ALLOWED: Final[Mapping[OrgRole | None, frozenset[OrgAction]]] = {
    OrgRole.OWNER: _ADMIN | {OrgAction.OWNERS_MANAGE},
    OrgRole.ADMIN: _ADMIN,
    OrgRole.MEMBER: _MEMBER,
    None: frozenset(),
}
_RANK: Final = {None: 0, OrgRole.MEMBER: 1, OrgRole.ADMIN: 2, OrgRole.OWNER: 3}


@attrs.frozen
class MemberChange:
    """One change of one member, with everything that the decision looks at, locked.

    Attributes:
        actor_role: Role of whoever asks; None: no member.
        old_role: Role of the user concerned; None: no member yet.
        new_role: Role asked for; None: to be removed.
        is_own: Whether the actor is the user concerned.
        owner_count: Owners of the org before the change.
        member_count: Members of the org before the change.
    """

    actor_role: OrgRole | None
    old_role: OrgRole | None
    new_role: OrgRole | None
    is_own: bool
    owner_count: int
    member_count: int

    @property
    def shrinks_rights(self) -> bool:
        """Whether the user may do less afterwards: nodes must hear of it."""
        return _RANK[self.new_role] < _RANK[self.old_role]


def is_allowed(role: OrgRole | None, action: OrgAction) -> bool:
    """Return what the table says."""
    return action in ALLOWED[role]


def check_change(change: MemberChange) -> None:
    """Check a change of members.

    Raises:
        Refused: not_found for an org that the actor cannot see, and for a member who is none;
            forbidden without the right; invalid_argument for the last owner, or beyond MEMBERS_MAX.
    """
    if change.actor_role is None:
        raise not_found("org_unknown_or_foreign")
    if change.new_role is None and change.old_role is None:
        raise not_found("no_such_member")
    concerns_owners = OrgRole.OWNER in (change.old_role, change.new_role)
    needed = OrgAction.OWNERS_MANAGE if concerns_owners else OrgAction.MEMBERS_MANAGE
    is_stepping_down = change.is_own and _RANK[change.new_role] <= _RANK[change.old_role]
    if not (is_stepping_down or is_allowed(change.actor_role, needed)):
        raise forbidden("role_does_not_allow")
    if change.old_role is OrgRole.OWNER and change.new_role is not OrgRole.OWNER and change.owner_count == 1:
        raise invalid_argument("role", "an org keeps at least one owner")
    if change.old_role is None and change.member_count >= MEMBERS_MAX:
        raise invalid_argument("user_id", f"an org has at most {MEMBERS_MAX} members")


def parse_role(text: str) -> OrgRole:
    """Return a role.

    Raises:
        Refused: invalid_argument.
    """
    for role in OrgRole:
        if role.value == text:
            return role
    raise invalid_argument("role", "owner, admin or member")


def parse_action(text: str) -> OrgAction:
    """Return an action.

    Raises:
        Refused: invalid_argument.
    """
    for action in OrgAction:
        if action.value == text:
            return action
    raise invalid_argument("action", ", ".join(action.value for action in OrgAction))


def check_name(name: str) -> None:
    """Check the name of an org.

    Raises:
        Refused: invalid_argument.
    """
    if not (name.isprintable() and name.strip() == name and 1 <= len(name.encode()) <= NAME_MAX_BYTES):
        raise invalid_argument("name", f"1..{NAME_MAX_BYTES} printable bytes without space around")


def check_reader(role: OrgRole | None, action: OrgAction) -> None:
    """Check that a role allows reading.

    Raises:
        Refused: not_found for an org that the actor cannot see; forbidden without the right.
    """
    if role is None:
        raise not_found("org_unknown_or_foreign")
    if not is_allowed(role, action):
        raise forbidden("role_does_not_allow")


assert {role for role in OrgRole if is_allowed(role, OrgAction.KEYS_MANAGE)} == ADMIN_ROLES
