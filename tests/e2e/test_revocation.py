"""Access that ends while sockets are open: every cause, over real processes and sockets, by control's log alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts.codec import ErrorMessage, Unsubscribed, UnsubscribedReason
from khala_contracts.topics import format_org_runs
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.wire import follow, hello, open_api, open_welcomed, open_wire, read_through, subscribe, thought

if TYPE_CHECKING:
    from tests.e2e.system import System
    from tests.e2e.wire import Api, Person

pytestmark = pytest.mark.slow

# The poll is every 5 s; without any push this is the worst case, with room for a busy machine.
EVICTED_S = 9.0


async def revoke(api: Api, person: Person, scope: str, **ids: str) -> list[str]:
    """End sessions of a person; return which."""
    answer = await api.post(
        "/api/auth/sessions/revoke", {"scope": f"REVOKE_SCOPE_{scope}", **ids}, person.access_token
    )
    assert answer.status_code == 200, answer.text
    ended: list[str] = answer.json()["session_ids"]
    return ended


async def test_an_ended_session_leaves_the_stream(system: System) -> None:
    """Its socket ends with 4501 and hears nothing afterwards; the other device goes on; its token opens nothing."""
    async with open_api(system) as api:
        here, there = await api.sign_in("rita"), await api.sign_in("rita", OTHER_DEVICE)
        topic = await api.create_run(here)
        unused = await api.mint(here, topic)
        async with (
            open_welcomed(system, api, here, topic) as ends,
            open_welcomed(system, api, there, topic) as stays,
        ):
            followers = [await subscribe(wire, topic) for wire in (ends, stays)]
            await read_through(ends, followers[0], 1)
            await read_through(stays, followers[1], 1)
            assert await revoke(api, there, "OTHERS") == [here.session_id]
            ending = await ends.ending(timeout_s=EVICTED_S)
            assert ending.codes == (["reauth_required"], 4501)
            await api.append(there, topic, thought("after"))
            await read_through(stays, followers[1], 2)
        async with open_wire(system) as wire:
            await wire.send(hello(unused))
            assert (await wire.ending()).codes == (["reauth_required"], 4501)


async def test_the_reuse_of_a_refresh_token_ends_the_sockets(system: System) -> None:
    """A copy of a spent token, on another device: whoever it was stolen from is told to sign in again."""
    async with open_api(system) as api:
        person = await api.sign_in("rob")
        topic = await api.create_run(person)
        async with open_welcomed(system, api, person, topic) as wire:
            body = {"refresh_token": person.refresh_token, "device_id": person.device_id}
            assert (await api.post("/api/auth/refresh", body)).status_code == 200
            stolen = {**body, "device_id": OTHER_DEVICE}
            assert (await api.post("/api/auth/refresh", stolen)).status_code == 401
            assert (await wire.ending(timeout_s=EVICTED_S)).codes == (["reauth_required"], 4501)


async def test_a_lost_membership_ends_the_orgs_topics_only(system: System) -> None:
    """SEC-12: the org's topic ends forbidden, the member's own run goes on; asking again is denied."""
    async with open_api(system) as api:
        owner, member = await api.sign_in("olga"), await api.sign_in("max", OTHER_DEVICE)
        org_id = (await api.post("/api/orgs", {"name": "acme"}, owner.access_token)).json()["org_id"]
        body = {"user_id": member.user_id, "role": "member"}
        added = await api.post(f"/api/orgs/{org_id}/members", body, owner.access_token)
        assert added.status_code == 200, added.text
        own, theirs = await api.create_run(member), format_org_runs(org_id)
        async with open_welcomed(system, api, member, own, theirs) as wire:
            follower = await subscribe(wire, own)
            await read_through(wire, follower, 1)
            await subscribe(wire, theirs)
            path = f"{api.control_url}/api/orgs/{org_id}/members/{member.user_id}"
            gone = await api.http.delete(path, headers={"Authorization": f"Bearer {owner.access_token}"})
            assert gone.status_code == 200, gone.text
            with trio.fail_after(EVICTED_S):
                while not isinstance(message := await wire.receive(timeout_s=EVICTED_S), Unsubscribed):
                    pass
            assert (message.topic, message.reason) == (theirs, UnsubscribedReason.FORBIDDEN)
            await api.append(member, own, thought("still mine"))
            await read_through(wire, follower, 2)
            denied = await wire.ask(follow(theirs), ErrorMessage)
            assert (denied.code, denied.topic) == ("forbidden", theirs)
