"""Who asks: what control said about the bearer of a credential, as a value."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from khala_contracts.sync_claims import PrincipalKind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Principal", "PrincipalKind", "Right"]


class Right(Enum):
    """What a service key may be allowed to do; a person has all rights of its own."""

    PUBLISH = "publish"
    WORK = "work"
    READ = "read"
    MINT = "mint"


@attrs.frozen
class Principal:
    """The bearer of a credential.

    Attributes:
        principal_id: ``usr_...`` of a person, ``key_...`` of a service key.
        user_id: For whom it acts: itself, or the key's creator.
        org_roles: Role in each org by org id: owner, admin or member.
        rights: Of a service key; not looked at for people.
        topic_patterns: Of a service key: names in the registry's grammar in which an id may be
            ``*``; empty: every topic that its org may see.
        device_id: "" for service keys.
        expires_at: Unix seconds after which control must be asked again.
    """

    kind: PrincipalKind
    principal_id: str
    user_id: str
    org_roles: Mapping[str, str]
    rights: frozenset[Right]
    topic_patterns: tuple[str, ...]
    device_id: str
    expires_at: float
