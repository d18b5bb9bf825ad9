"""Tokens, machines and the audit log on two node processes: what opens, what ends, and what is written of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio

from khala_contracts import reason_codes
from khala_contracts.codec import ErrorMessage, ReplayComplete, Welcome
from khala_contracts.topics import format_app
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.system import running_system
from tests.e2e.wire import (
    DEVICE,
    follow,
    hello,
    open_api,
    open_welcomed,
    open_wire,
    read_through,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from tests.e2e.system import System
    from tests.e2e.wire import Api, Person, Wire

pytestmark = pytest.mark.slow

NODES: Final = 2
RACING: Final = 40
# The poll of revocations, and room for a busy machine.
EVICTED_S: Final = 9.0
# A flush of the node every half second, and the same room.
AUDITED_S: Final = 20.0
Row = dict[str, Any]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Every service a process of its own, and two nodes."""
    with running_system(tmp_path_factory.mktemp("access"), split=True, nodes=NODES) as started:
        yield started


@pytest.fixture
async def api(system: System) -> AsyncIterator[Api]:
    """HTTP of the system."""
    async with open_api(system) as opened:
        yield opened


def at_node(system: System, number: int) -> System:
    """Return the system as somebody sees it whose connections arrive at one node."""
    node = system.ready["nodes"][number % NODES]
    return attrs.evolve(system, ready={**system.ready, "sync_url": node["url"]})


async def audit_rows(system: System, api: Api, *, at_least: int, **query: str) -> list[Row]:
    """Return the rows that a query means, once there are so many."""
    token = await trio.Path(system.ready["admin_token_file"]).read_text()
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    with trio.fail_after(AUDITED_S):
        while True:
            answer = await api.get(f"/internal/v1/audit?limit=500&{asked}", token.strip())
            assert answer.status_code == 200, answer.text
            rows: list[Row] = answer.json()["rows"]
            if len(rows) >= at_least:
                return rows
            await trio.sleep(0.1)


def brief(row: Row) -> tuple[str, str, str]:
    """Return what happened."""
    return row["action"], row["outcome"], row["reason"]


async def test_one_token_presented_forty_times_at_once(system: System, api: Api) -> None:
    """Twenty sockets at each of two nodes, one instant: one is welcomed, the others are token_replayed."""
    person = await api.sign_in("forty")
    token = await api.mint(person, f"user:{person.user_id}:runs")
    started, outcomes = trio.Event(), []
    ready = 0

    async def race(number: int) -> None:
        nonlocal ready
        async with open_wire(at_node(system, number)) as wire:
            ready += 1
            await started.wait()
            await wire.send(hello(token))
            answer = await wire.receive()
            if isinstance(answer, Welcome):
                outcomes.append(("welcome", answer.connection_id, answer.node_id))
                return
            assert isinstance(answer, ErrorMessage)
            assert answer.message == reason_codes.TOKEN_REPLAYED.text
            ending = await wire.ending()
            outcomes.append((answer.code, str(ending.close_code), ""))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(RACING):
                nursery.start_soon(race, number)
            while ready < RACING:
                await trio.sleep(0.02)
            started.set()
    welcomed = [outcome for outcome in outcomes if outcome[0] == "welcome"]
    assert len(welcomed) == 1
    assert sorted(outcomes)[: RACING - 1] == [("token_replayed", "4502", "")] * (RACING - 1)
    # Each refusal is a row, with whom the token named; both nodes refused.
    rows = await audit_rows(
        system, api, at_least=RACING - 1, session_id=person.session_id, action="connection.hello"
    )
    assert {brief(row) for row in rows} == {("connection.hello", "refused", "token_replayed:redeem")}
    assert len(rows) == RACING - 1
    assert len({row["connection_id"] for row in rows} | {welcomed[0][1]}) == RACING
    assert {row["node_id"] for row in rows} == {node["name"] for node in system.ready["nodes"]}
    (minted,) = await audit_rows(
        system, api, at_least=1, session_id=person.session_id, action="sync_token.mint"
    )
    assert {row["jti"] for row in rows} == {minted["jti"]}


async def test_an_allow_and_a_deny_are_two_rows(system: System, api: Api) -> None:
    """SEC-11, through real processes: by the connection's id, exactly these."""
    ann, bob = await api.sign_in("ann"), await api.sign_in("bob", OTHER_DEVICE)
    topic, foreign = await api.create_run(ann), await api.create_run(bob)
    token = await api.mint(ann, topic)
    async with open_wire(system) as wire:
        welcome = await wire.greet(token)
        await subscribe(wire, topic)
        assert (await wire.ask(follow(foreign), ErrorMessage)).code == "forbidden"
        rows = await audit_rows(system, api, at_least=2, connection_id=welcome.connection_id)
    assert [brief(row) for row in rows] == [
        ("subscription.open", "done", ""),
        ("subscription.open", "refused", "forbidden:not_granted"),
    ]
    assert [row["detail"]["topic"] for row in rows] == [topic, foreign]
    for row in rows:
        assert (row["user_id"], row["session_id"], row["device_id"]) == (
            ann.user_id,
            ann.session_id,
            ann.device_id,
        )
        assert row["request_id"] == welcome.connection_id
        assert row["jti"].startswith("jti_")
        assert token not in json.dumps(row)


async def test_an_eviction_says_what_the_socket_had(system: System, api: Api) -> None:
    """Revoked while it streams: the row has the last seq of each topic, and it is the client's."""
    person = await api.sign_in("evelyn")
    topic = await api.create_run(person)
    async with open_welcomed(system, api, person, topic) as wire:
        follower = await subscribe(wire, topic)
        await api.append(person, topic, *[thought(number) for number in range(6)])
        await read_through(wire, follower, 7)
        body = {"scope": "REVOKE_SCOPE_ALL"}
        answer = await api.post("/api/auth/sessions/revoke", body, person.access_token)
        assert answer.json()["session_ids"] == [person.session_id]
        assert (await wire.ending(timeout_s=EVICTED_S)).codes == (["reauth_required"], 4501)
    (row,) = await audit_rows(
        system, api, at_least=1, session_id=person.session_id, action="connection.evict"
    )
    assert brief(row) == ("connection.evict", "ended", "reauth_required:revoked")
    assert row["detail"]["last_seqs"] == {topic: str(follower.position)}
    assert row["detail"]["topic_count"] == "1"
    # Who revoked it is in the same log.
    (revoked,) = await audit_rows(system, api, at_least=1, user_id=person.user_id, action="session.revoke")
    assert revoked["outcome"] == "done"


async def test_five_devices_are_put_out_as_asked(system: System, api: Api) -> None:
    """SEC-03: one device, then the others, then all; the caller's socket stays until the last, on both nodes."""
    devices = [f"dev_00000000000000{number:02d}" for number in range(5)]
    people = [await api.sign_in("many", device_id) for device_id in devices]
    caller, topic = people[0], f"user:{people[0].user_id}:runs"
    async with trio.open_nursery() as nursery:
        wires: dict[str, Wire] = {}
        leave = trio.Event()

        async def hold(number: int, person: Person, task_status: trio.TaskStatus[None]) -> None:
            async with open_wire(at_node(system, number)) as wire:
                await wire.greet(await api.mint(person, topic), person.device_id)
                await subscribe(wire, topic)
                assert isinstance(await wire.receive(), ReplayComplete)
                wires[person.device_id] = wire
                task_status.started()
                await leave.wait()

        for number, person in enumerate(people):
            await nursery.start(hold, number, person)

        async def revoke(scope: str, gone: Sequence[Person], stay: Sequence[Person], **ids: str) -> None:
            body = {"scope": f"REVOKE_SCOPE_{scope}", **ids}
            answer = await api.post("/api/auth/sessions/revoke", body, caller.access_token)
            assert sorted(answer.json()["session_ids"]) == sorted(person.session_id for person in gone)
            for person in gone:
                ending = await wires[person.device_id].ending(timeout_s=EVICTED_S)
                assert ending.codes == (["reauth_required"], 4501)
                body = {"refresh_token": person.refresh_token, "device_id": person.device_id}
                assert (await api.post("/api/auth/refresh", body)).status_code == 401
            for person in stay:
                await subscribe(wires[person.device_id], topic)

        await revoke("DEVICE", people[4:], people[:4], device_id=devices[4])
        await revoke("OTHERS", people[1:4], people[:1])
        await revoke("ALL", people[:1], ())
        leave.set()


# -- an application's own users -----------------------------------------------------------------------


@attrs.define
class Backend:
    """Somebody's application: its key, and its users' sockets."""

    api: Api
    owner: Person
    key_id: str
    secret: str = attrs.field(repr=False)

    @property
    def topic(self) -> str:
        """What its users may read."""
        return format_app(self.owner.org_id, "orders")

    async def mint(self, user_id: str, device_id: str) -> str:
        """Return a token for a user of its own."""
        body = {"topics": [self.topic], "subject": {"user_id": user_id, "device_id": device_id}}
        answer = await self.api.post("/api/sync/token", body, self.secret)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def revoke(self, user_id: str, device_id: str = "") -> int:
        """End a user's sessions; return how many those were."""
        body = {"user_id": user_id, "device_id": device_id}
        answer = await self.api.post("/api/auth/revoke-subject", body, self.secret)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["session_ids"])


async def open_backend(api: Api, login: str) -> Backend:
    """Sign an owner in and make the key of its application."""
    owner = await api.sign_in(login)
    body = {"name": "backend", "rights": ["mint"], "org_id": owner.org_id}
    made = (await api.post("/api/keys", body, owner.access_token)).json()
    return Backend(api, owner, made["key"]["key_id"], made["secret"])


async def test_own_users_are_put_out_by_device_by_user_and_by_key(system: System, api: Api) -> None:
    """Live sockets on both nodes: each revocation ends exactly its own, and their tokens open nothing more."""
    backend = await open_backend(api, "shop")
    who = [("ann", DEVICE), ("ann", OTHER_DEVICE), ("bob", DEVICE), ("cleo", DEVICE), ("cleo", OTHER_DEVICE)]
    async with trio.open_nursery() as nursery:
        wires: dict[tuple[str, str], Wire] = {}
        leave = trio.Event()

        async def hold(number: int, user_id: str, device_id: str, task_status: trio.TaskStatus[None]) -> None:
            async with open_wire(at_node(system, number)) as wire:
                await wire.greet(await backend.mint(user_id, device_id), device_id)
                await subscribe(wire, backend.topic)
                assert isinstance(await wire.receive(), ReplayComplete)
                wires[user_id, device_id] = wire
                task_status.started()
                await leave.wait()

        for number, (user_id, device_id) in enumerate(who):
            await nursery.start(hold, number, user_id, device_id)
        unused = await backend.mint("ann", DEVICE)

        async def expect_ended(ended: Sequence[tuple[str, str]], *, stay: Sequence[tuple[str, str]]) -> None:
            for one in ended:
                assert (await wires[one].ending(timeout_s=EVICTED_S)).codes == (["reauth_required"], 4501), (
                    one
                )
            for one in stay:
                # Still served: asking again for the running topic is answered.
                await subscribe(wires[one], backend.topic)

        assert await backend.revoke("ann", DEVICE) == 1
        await expect_ended(who[:1], stay=who[1:])
        async with open_wire(system) as wire:
            await wire.send(hello(unused))
            assert (await wire.ending()).codes == (["reauth_required"], 4501)
        assert await backend.revoke("cleo") == 2
        await expect_ended(who[3:], stay=who[1:3])
        assert await backend.revoke("nobody of ours") == 0
        # A session that was ended does not come back by itself, but its user may be let in anew.
        assert await backend.mint("cleo", DEVICE)
        await api.post(f"/api/keys/{backend.key_id}/revoke", {}, backend.owner.access_token)
        await expect_ended(who[1:3], stay=())
        leave.set()
    refused = await api.post("/api/sync/token", {"topics": [backend.topic]}, backend.secret)
    assert refused.status_code == 401


async def test_a_rotated_key_keeps_its_users(system: System, api: Api) -> None:
    """`khala keys rotate`: users minted by the old secret stay, both secrets revoke them, the old one ends."""
    backend = await open_backend(api, "dev")
    async with open_wire(system) as wire:
        await wire.greet(await backend.mint("ann", DEVICE))
        await subscribe(wire, backend.topic)
        assert isinstance(await wire.receive(), ReplayComplete)
        rotated = system.run("keys", "rotate", backend.key_id, "--overlap", "30m", "--json")
        record = json.loads(rotated.stdout)
        assert (record["type"], record["key_id"]) == ("key", backend.key_id)
        assert record["old_secret_ends_at_s"] - record["rotated_at_s"] == pytest.approx(1_800)
        old, backend.secret = backend.secret, record["secret"]
        listed = [json.loads(line) for line in system.run("keys", "list", "--json").stdout.splitlines()]
        [known] = [key for key in listed if key["key_id"] == backend.key_id]
        assert known == {name: value for name, value in record.items() if name != "secret"}
        assert "two secrets" in system.run("keys", "list").stdout
        assert await backend.mint("ann", DEVICE)
        # The old one still works, and the user that it let in is let out with the new one.
        assert await attrs.evolve(backend, secret=old).mint("bob", DEVICE)
        assert await backend.revoke("ann") == 1
        assert (await wire.ending(timeout_s=EVICTED_S)).codes == (["reauth_required"], 4501)
        alone = system.run("keys", "rotate", backend.key_id, "--overlap", "0").stdout.strip()
        assert alone.startswith("khk_")
        for ended in (old, backend.secret):
            refused = await api.post("/api/sync/token", {"topics": [backend.topic]}, ended)
            assert refused.status_code == 401
        assert await attrs.evolve(backend, secret=alone).mint("ann", DEVICE)
    assert system.run("keys", "rotate", backend.key_id, "--overlap", "soon", check=False).returncode == 2


def test_no_token_is_in_any_log(system: System) -> None:
    """What the tests above presented, genuine or spent: sync tokens and key secrets are in no file of logs."""
    written = "".join(
        path.read_text(errors="replace") for path in (system.data_dir / "logs").rglob("*") if path.is_file()
    )
    written += (system.folder / "up.log").read_text(errors="replace")
    assert len(written) > 1_000
    # Every compact JWS of ours begins with the same header, every secret with its prefix.
    assert "eyJ" not in written
    assert "khk_" not in written
