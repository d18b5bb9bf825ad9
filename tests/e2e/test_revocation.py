"""Access that ends while sockets are open: every cause, over real processes and sockets, as control pushes it.

Nodes poll so rarely here that what ends in time ends because of a push; without one: test_revocation_lost.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts.codec import (
    ErrorMessage,
    FramesMessage,
    ReplayComplete,
    ServerHeartbeat,
    SubscriptionMode,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.topics import format_device_inbox, format_org_runs
from tests.e2e.ledger import Ledger
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.system import System, running_system
from tests.e2e.wire import (
    ANSWER_S,
    NOW,
    follow,
    hello,
    open_api,
    open_welcomed,
    open_wire,
    read_through,
    refusal,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from khala_contracts.codec import ServerMessage
    from khala_contracts.topics import TopicName
    from tests.e2e.wire import Api, Follower, Person, Wire

pytestmark = pytest.mark.slow

# An inbox belongs to the first user of its device: these have no other.
DORAS = ("dev_d0ra000000000001", "dev_d0ra000000000002")
# Below the 60 s after which a node welcomes nobody; far above every deadline here.
POLL_S = 50
# A push takes milliseconds; the rest is for a machine that is busy with other things.
EVICTED_S = 9.0
MEMBERSHIP_S = 5.0
# Position checks come twice a second.
TRANSFERRED_S = 2.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose nodes hardly poll."""
    folder = tmp_path_factory.mktemp("system")
    with running_system(folder, KHALA_NODE_LIMITS_REVOCATION_POLL_INTERVAL_S=str(POLL_S)) as started:
        yield started


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """What PostgreSQL holds."""
    with Ledger.open(system) as opened:
        yield opened


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
    """SEC-12: of two orgs that both stream, the lost one ends forbidden within 5 s; the other goes on without a gap."""
    async with open_api(system) as api:
        owner, member = await api.sign_in("olga"), await api.sign_in("max", OTHER_DEVICE)
        orgs = [await make_org(api, owner, name, member) for name in ("acme", "zeta")]
        lost, kept = [await api.create_run(owner, org_id=org_id) for org_id in orgs]
        lists = format_org_runs(orgs[0])
        async with open_welcomed(system, api, member, lost, kept, lists) as wire:
            followers = {topic: await go_live(wire, topic) for topic in (lost, kept)}
            await go_live(wire, lists)
            async with trio.open_nursery() as writing:
                appended = {lost: 0, kept: 0}

                async def stream(topic: TopicName) -> None:
                    while True:
                        (at,) = await api.append(owner, topic, thought(appended[topic]))
                        appended[topic] = at.seq
                        await trio.sleep(0.02)

                writing.start_soon(stream, lost)
                writing.start_soon(stream, kept)
                await take_until(wire, followers, lambda: min(f.position for f in followers.values()) > 20)
                began = trio.current_time()
                await remove_member(api, owner, orgs[0], member)
                with trio.fail_after(EVICTED_S):
                    ended: set[str] = set()
                    while ended != {lost, lists}:
                        message = await wire.receive(timeout_s=EVICTED_S)
                        if isinstance(message, Unsubscribed):
                            assert message.reason is UnsubscribedReason.FORBIDDEN
                            ended.add(message.topic)
                        elif not (isinstance(message, FramesMessage) and message.frames[0].topic in ended):
                            take(followers, message)
                assert trio.current_time() - began < MEMBERSHIP_S
                end = followers[lost].position
                goal = appended[kept] + 20
                # The lost topic is no follower any more: a frame of it fails the test.
                del followers[lost]
                await take_until(wire, followers, lambda: followers[kept].position >= goal)
                assert appended[lost] > end
                writing.cancel_scope.cancel()
            denied = await ask_while_streaming(wire, followers, lost)
            assert (denied.code, denied.topic) == ("forbidden", lost)
        unasked = await api.post("/api/sync/token", {"topics": [lost]}, member.access_token)
        assert refusal(unasked) == (403, "forbidden")


async def test_a_revoked_device_leaves_its_sibling_alone(system: System) -> None:
    """SEC-22: every socket of the device ends, and its tokens open nothing; the other device streams on."""
    async with open_api(system) as api:
        lost, again, kept = (
            await api.sign_in("dora", DORAS[0]),
            await api.sign_in("dora", DORAS[0]),
            await api.sign_in("dora", DORAS[1]),
        )
        run, inbox = await api.create_run(kept), format_device_inbox(lost.device_id)
        own_inbox = format_device_inbox(kept.device_id)
        unused = await api.mint(again, run)
        async with (
            open_welcomed(system, api, lost, run, inbox) as one,
            open_welcomed(system, api, again, run) as two,
            open_welcomed(system, api, kept, run, own_inbox) as stays,
        ):
            for wire in (one, two):
                await go_live(wire, run)
            await go_live(one, inbox)
            await go_live(stays, own_inbox)
            follower = await go_live(stays, run)
            assert set(await revoke(api, kept, "DEVICE", device_id=lost.device_id)) == {
                lost.session_id,
                again.session_id,
            }
            for wire in (one, two):
                assert (await wire.ending(timeout_s=EVICTED_S)).codes == (["reauth_required"], 4501)
            await api.append(kept, run, thought("after"))
            await read_through(stays, follower, 2)
        async with open_wire(system) as wire:
            await wire.send(hello(unused, again.device_id))
            assert (await wire.ending()).codes == (["reauth_required"], 4501)
        for person in (lost, again):
            asked = await api.post("/api/sync/token", {"topics": [run]}, person.access_token)
            assert refusal(asked) == (401, "reauth_required")
        # The inbox of a device is for that device, whoever's it is.
        foreign = await api.post("/api/sync/token", {"topics": [inbox]}, kept.access_token)
        assert refusal(foreign) == (403, "forbidden")
        assert await api.mint(kept, run, own_inbox)


async def test_a_run_with_another_owner_ends_for_the_former_one(system: System, ledger: Ledger) -> None:
    """The head row is what counts: within 2 s of its change, forbidden; what else was followed goes on."""
    async with open_api(system) as api:
        former, heir = await api.sign_in("fred"), await api.sign_in("heidi", OTHER_DEVICE)
        given, own = await api.create_run(former), await api.create_run(former)
        async with open_welcomed(system, api, former, given, own) as wire:
            await go_live(wire, given)
            follower = await go_live(wire, own)
            change = "UPDATE runtime.topic_heads SET owner_user_id = $2 WHERE topic = $1 RETURNING topic"
            assert ledger.rows(change, given, heir.user_id)
            ended = await wire.expect(Unsubscribed, timeout_s=TRANSFERRED_S)
            assert (ended.topic, ended.reason) == (given, UnsubscribedReason.FORBIDDEN)
            denied = await wire.ask(follow(given), ErrorMessage)
            assert (denied.code, denied.topic) == ("forbidden", given)
            await api.append(former, own, thought("mine"))
            await read_through(wire, follower, 2)


async def test_a_token_for_one_topic_opens_no_other(system: System) -> None:
    """KH-09: a later subscribe beyond the token is forbidden and leaves the first alone, frame by frame."""
    async with open_api(system) as api:
        ann = await api.sign_in("ann")
        run, other = await api.create_run(ann), await api.create_run(ann)
        async with open_welcomed(system, api, ann, run) as wire:
            follower = await subscribe(wire, run)
            await read_through(wire, follower, 1)
            for number in range(5):
                denied = await wire.ask(follow(other), ErrorMessage)
                assert (denied.code, denied.topic) == ("forbidden", other)
                await api.append(ann, run, thought(number))
                await read_through(wire, follower, number + 2)


async def test_a_permitted_topic_before_its_first_frame(system: System) -> None:
    """KH-43: head 0, and seq 1 arrives when it is written; what does not exist looks like what is another's."""
    async with open_api(system) as api:
        ann, bob = await api.sign_in("ann"), await api.sign_in("bob", OTHER_DEVICE)
        org_id = await make_org(api, ann, "nova")
        runs = format_org_runs(org_id)
        async with open_welcomed(system, api, ann, runs) as wire:
            follower = await subscribe(wire, runs)
            assert (follower.subscribed.head_seq, follower.subscribed.mode) == (0, SubscriptionMode.LIVE)
            await api.create_run(ann, org_id=org_id)
            await read_through(wire, follower, 1)
            said = []
            for foreign in (await api.create_run(bob), f"run:run_{1:026d}:events"):
                denied = await wire.ask(follow(foreign), ErrorMessage)
                said.append((denied.code, denied.message, denied.retryable, denied.docs, str(denied.details)))
            assert said[0] == said[1]
            assert said[0][0] == "forbidden"


# -- words of these tests --------------------------------------------------------------------------------


async def make_org(api: Api, owner: Person, name: str, *members: Person) -> str:
    """Make an org with these members; return its id."""
    org_id: str = (await api.post("/api/orgs", {"name": name}, owner.access_token)).json()["org_id"]
    for member in members:
        body = {"user_id": member.user_id, "role": "member"}
        added = await api.post(f"/api/orgs/{org_id}/members", body, owner.access_token)
        assert added.status_code == 200, added.text
    return org_id


async def remove_member(api: Api, owner: Person, org_id: str, member: Person) -> None:
    """Take somebody's membership away."""
    path = f"{api.control_url}/api/orgs/{org_id}/members/{member.user_id}"
    gone = await api.http.delete(path, headers={"Authorization": f"Bearer {owner.access_token}"})
    assert gone.status_code == 200, gone.text


async def go_live(wire: Wire, topic: TopicName) -> Follower:
    """Subscribe from now on, and read until that is so."""
    follower = await subscribe(wire, topic, NOW)
    await read_through(wire, follower, follower.position)
    return follower


def take(followers: Mapping[TopicName, Follower], message: ServerMessage) -> None:
    """Let the follower of its topic judge a message; other topics must not bring any but lists of runs."""
    match message:
        case FramesMessage(frames=frames):
            topic = frames[0].topic
        case ReplayComplete(topic=topic):
            pass
        case ServerHeartbeat():
            return
        case _:
            raise AssertionError(message)
    if not topic.startswith("org:"):
        followers[topic].take(message)


async def take_until(
    wire: Wire, followers: Mapping[TopicName, Follower], is_reached: Callable[[], bool]
) -> None:
    """Read until it is so."""
    with trio.fail_after(ANSWER_S):
        while not is_reached():
            take(followers, await wire.receive())


async def ask_while_streaming(
    wire: Wire, followers: Mapping[TopicName, Follower], topic: TopicName
) -> ErrorMessage:
    """Subscribe to a topic that must be refused; what streams meanwhile is judged."""
    await wire.send(follow(topic))
    while not isinstance(message := await wire.receive(), ErrorMessage):
        take(followers, message)
    return message
