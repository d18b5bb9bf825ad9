"""Memberships from control: an answer, "nobody", and everything else is "ask again"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from khala_contracts import codec, reason_codes
from khala_contracts import http_messages as m
from khala_service.adapters.http_client import open_service_client
from khala_service.errors import Unavailable
from khala_service.http_problems import HttpProblem, error_message
from runtime.adapters.memberships_http import HttpMembershipDirectory
from tests.actors.runtime.rig import ORG, USER

if TYPE_CHECKING:
    from khala_contracts.reason_codes import ReasonCode


async def ask(refusal: ReasonCode | None, *, user_id: str = USER) -> tuple[bool, list[str]]:
    """Ask a control that answers like this; return its answer and the paths that were asked."""
    paths: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        if refusal is None:
            member = m.OrgMember(user_id=user_id, role="member")
            return httpx.Response(200, content=codec.encode_message(member))
        problem = HttpProblem(refusal)
        return httpx.Response(problem.status, content=codec.encode_message(error_message(problem)))

    transport = httpx.MockTransport(answer)
    async with open_service_client("http://control", peer="control", transport=transport) as client:
        return await HttpMembershipDirectory(client).is_member(ORG, user_id), paths


async def test_members_and_others() -> None:
    """One question each."""
    assert await ask(None) == (True, [f"/internal/v1/orgs/{ORG}/members/{USER}"])
    assert (await ask(reason_codes.NOT_FOUND))[0] is False


async def test_ids_stay_in_their_place() -> None:
    """What a caller says is no path."""
    _, paths = await ask(None, user_id="../keys?x=")
    assert paths == [f"/internal/v1/orgs/{ORG}/members/..%2Fkeys%3Fx%3D"]


@pytest.mark.parametrize(
    "refusal", [reason_codes.UNAUTHENTICATED, reason_codes.INTERNAL, reason_codes.UNAVAILABLE]
)
async def test_not_knowing_is_not_no(refusal: ReasonCode) -> None:
    """A control that does not let us ask, or is away, makes nobody a stranger."""
    with pytest.raises(Unavailable):
        await ask(refusal)
