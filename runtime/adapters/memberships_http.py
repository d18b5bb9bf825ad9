"""Asks control whether somebody is a member of an org. Nothing is remembered: it is asked seldom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from khala_contracts import http_messages as m
from khala_service.errors import PeerRefused, Unavailable

if TYPE_CHECKING:
    from khala_service.adapters.http_client import ServiceHttpClient

__all__ = ["HttpMembershipDirectory"]

_NOT_A_MEMBER: Final = "not_found"


class HttpMembershipDirectory:
    """MembershipDirectory over control's internal route."""

    def __init__(self, control: ServiceHttpClient) -> None:
        self._control = control

    async def is_member(self, org_id: str, user_id: str) -> bool:
        """Return whether the user is a member of the org now.

        Raises:
            Unavailable: control does not answer, or does not let us ask.
        """
        path = f"/internal/v1/orgs/{quote(org_id, safe='')}/members/{quote(user_id, safe='')}"
        try:
            await self._control.get(path, m.OrgMember)
        except PeerRefused as refused:
            if refused.code == _NOT_A_MEMBER:
                return False
            raise Unavailable(f"control_{refused.code}") from refused
        return True
