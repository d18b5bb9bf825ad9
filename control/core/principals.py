"""Who may act: people through a session, machines through a service key.

Values read from the database in one statement and valid for one request; nothing here is cached.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import attrs

from control.core.topic_patterns import TopicPattern
from khala_contracts.sync_claims import Surface


class OrgRole(Enum):
    """Role of a user in an org."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class KeyRight(Enum):
    """What a service key may be used for.

    PUBLISH and READ are enforced by the runtime for HTTP; READ and MINT by control for sync tokens;
    WORK where workers register.
    """

    PUBLISH = "publish"
    WORK = "work"
    READ = "read"
    MINT = "mint"


# Roles that may create and revoke keys of the org and see its operations.
ADMIN_ROLES: Final = frozenset({OrgRole.OWNER, OrgRole.ADMIN})


@attrs.frozen
class Membership:
    """One org of a user."""

    org_id: str
    name: str
    role: OrgRole


@attrs.frozen
class SessionInfo:
    """One session as its user may see it. Times are Unix milliseconds."""

    session_id: str
    user_id: str
    device_id: str
    surface: Surface
    created_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int | None
    # Why and by whom (a user id; None: by the system); None while it lives.
    revoked_reason: str | None = None
    revoked_by: str | None = None


@attrs.frozen
class PersonPrincipal:
    """A signed-in user."""

    session: SessionInfo
    login: str
    memberships: tuple[Membership, ...]
    # The topic device:{device_id}:inbox belongs to this user's device (first come).
    owns_inbox: bool

    @property
    def roles(self) -> Mapping[str, OrgRole]:
        """Return the role by org id."""
        return {membership.org_id: membership.role for membership in self.memberships}

    @property
    def administered_org_ids(self) -> tuple[str, ...]:
        """Return the orgs of which the user is owner or admin."""
        return tuple(org.org_id for org in self.memberships if org.role in ADMIN_ROLES)


@attrs.frozen
class KeyPrincipal:
    """A machine with a service key, acting within one org."""

    key_id: str
    org_id: str
    org_name: str
    # The key's creator: owner of what the key creates.
    user_id: str
    rights: frozenset[KeyRight]
    # Empty: every topic that the org's members may see.
    patterns: tuple[TopicPattern, ...]
    expires_at_ms: int | None


Principal = PersonPrincipal | KeyPrincipal
