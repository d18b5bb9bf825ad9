"""``khala explain`` on a real system: each answer about a frame that went, or did not go, in a known way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from khala_contracts.codec import (
    CursorStart,
    Lagging,
    StaleCursor,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_service.identifiers import SystemIds
from tests.e2e.ledger import Ledger
from tests.e2e.system import System, running_system
from tests.e2e.wire import (
    Api,
    Person,
    Position,
    follow,
    open_api,
    open_welcomed,
    open_wire,
    read_through,
    subscribe,
    thought,
)
from tests.integration.runtime.raw_append import APPEND, RawEvent, append_args

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from khala_contracts.topics import TopicName

pytestmark = pytest.mark.slow

# A client that takes nothing is told and released long before the write stall would end it.
RELEASE_S = 1.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that loses patience early; every other limit is the default."""
    with running_system(
        tmp_path_factory.mktemp("explain"),
        KHALA_NODE_LIMITS_LAGGING_AFTER_WARM_S="0.2",
        KHALA_NODE_LIMITS_RELEASE_AFTER_WARM_S=str(RELEASE_S),
        KHALA_NODE_LIMITS_SLOW_RATE_WINDOW_S=str(RELEASE_S),
    ) as started:
        yield started


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """Writes to the database behind the services' backs."""
    with Ledger.open(system) as opened:
        yield opened


@attrs.frozen
class Explanation:
    """One answer of the command."""

    document: dict[str, Any]

    @property
    def reasons(self) -> list[str]:
        """What happened, in the order in which it is told."""
        return [entry["reason"] for entry in self.document["timeline"]]

    def entry(self, reason: str) -> dict[str, Any]:
        """The one entry of this reason."""
        (found,) = [entry for entry in self.document["timeline"] if entry["reason"] == reason]
        return dict(found)


async def explain(system: System, topic: str, seq: int, *arguments: str) -> Explanation:
    """Run the command."""
    data_dir = ("--data-dir", str(system.data_dir))
    done = await trio.to_thread.run_sync(
        lambda: system.run("explain", topic, str(seq), "--json", *data_dir, *arguments)
    )
    return Explanation(json.loads(done.stdout))


async def begin(api: Api) -> tuple[Person, TopicName, Position]:
    """Sign in and start a run."""
    ann = await api.sign_in("ann")
    topic = await api.create_run(ann)
    return ann, topic, await api.watermark(ann, topic)


async def test_a_delivered_frame(system: System) -> None:
    """Committed, told, appended from the copy, fanned out, taken by the kernel: each with its time."""
    async with open_api(system) as api:
        ann, topic, before = await begin(api)
        async with open_wire(system) as wire:
            welcome = await wire.greet(await api.mint(ann, topic))
            follower = await subscribe(wire, topic)
            # Live, so that the next frame is written by the fan-out.
            await read_through(wire, follower, before.seq)
            (position,) = await api.append(ann, topic, thought("live"))
            await read_through(wire, follower, position.seq)
            told = await explain(system, topic, position.seq)
            way = ["committed", "published", "announced", "appended", "delivered", "fanned_out"]
            assert sorted(told.reasons) == sorted(way)
            # One machine, and one clock: what comes first on the way comes first on the timeline.
            assert told.reasons[0] == "committed"
            assert (
                told.reasons.index("announced")
                < told.reasons.index("appended")
                < told.reasons.index("delivered")
            )
            delivered = told.entry("delivered")
            assert delivered["place"] == welcome.connection_id
            assert "written by the fan-out" in delivered["text"]
            committed_us = told.entry("committed")["first_us"]
            assert 0 <= delivered["first_us"] - committed_us < 2_000_000
            assert (told.document["delivered"], told.document["undelivered"]) == (1, 0)
            # An older frame of the same subscription came in its replay.
            replayed = await explain(system, topic, 1)
            assert "sent in its turn" in replayed.entry("delivered")["text"]
            assert "before" in replayed.reasons
            # Another connection's fate is not this one's.
            other = await explain(system, topic, position.seq, "--connection", "con_other")
            assert "delivered" not in other.reasons


async def test_a_healed_frame(system: System, ledger: Ledger) -> None:
    """No hint ever came: the position check saw it, and it was read from the journal."""
    async with open_api(system) as api:
        ann, topic, before = await begin(api)
        async with open_wire(system) as wire:
            await wire.greet(await api.mint(ann, topic))
            follower = await subscribe(wire, topic)
            (row,) = ledger.rows("SELECT generation FROM runtime.generation")
            unannounced = RawEvent(SystemIds().new("evt"), payload=b"\x0a\x05quiet")
            ledger.run(APPEND, *append_args([(topic, [unannounced])], generation=row["generation"]))
            await read_through(wire, follower, before.seq + 1)
            told = await explain(system, topic, before.seq + 1)
            assert {"committed", "not_published", "checked", "healed", "delivered"} <= set(told.reasons)
            assert "announced" not in told.reasons
            assert "no record of it had come" in told.entry("healed")["text"]


async def test_a_stale_subscription(system: System) -> None:
    """Refused with a reason, and with what was observed."""
    async with open_api(system) as api:
        ann, topic, head = await begin(api)
        async with open_wire(system) as wire:
            welcome = await wire.greet(await api.mint(ann, topic))
            forged = CursorStart(head.seq, head.lineage, bytes(32))
            stale = await wire.ask(follow(topic, start=forged), StaleCursor)
            (position,) = await api.append(ann, topic, thought("for nobody"))
            told = await explain(system, topic, position.seq, "--connection", welcome.connection_id)
            entry = told.entry(f"stale_cursor.{stale.reason.value}")
            assert entry["place"] == welcome.connection_id
            assert f"its cursor was {head.seq}" in entry["text"]
            assert (told.document["delivered"], told.document["undelivered"]) == (0, 1)


async def test_a_released_subscription(system: System) -> None:
    """A client that reads nothing: told, released, its other frames explained; another one is not slowed."""
    async with open_api(system) as api:
        ann, topic, _ = await begin(api)
        async with (
            open_wire(system, receive_buffer_bytes=4_096) as slow,
            open_welcomed(system, api, ann, topic) as quick,
        ):
            welcome = await slow.greet(await api.mint(ann, topic))
            await subscribe(slow, topic)
            follower = await subscribe(quick, topic)
            # More than the kernels of both ends hold.
            position = await _write_until_released(system, api, ann, topic, welcome.connection_id)
            await read_through(quick, follower, position.seq)
            told = await explain(system, topic, position.seq, "--connection", welcome.connection_id)
            released = told.entry("released")
            assert released["place"] == welcome.connection_id
            assert "its cursor stays valid" in released["text"]
            assert told.document["undelivered"] == 1
            # Reading on, the client gets what was begun, then learns of it.
            received: list[object] = []
            while not any(isinstance(message, Unsubscribed) for message in received[-1:]):
                received.append(await slow.receive())
            assert received[-1] == Unsubscribed(topic, UnsubscribedReason.SLOW_CONSUMER)
            assert any(isinstance(message, Lagging) for message in received)


async def _write_until_released(
    system: System, api: Api, ann: Person, topic: TopicName, connection_id: str
) -> Position:
    """Append until the command says that the connection was released; return the last position."""
    with trio.fail_after(30):
        while True:
            batch = [thought("x" * 60_000) for _ in range(10)]
            *_, last = await api.append(ann, topic, *batch)
            told = await explain(system, topic, last.seq, "--connection", connection_id)
            if "released" in told.reasons:
                return last


async def test_what_is_not_there(system: System) -> None:
    """Not committed yet; committed where nobody follows; nobody's token."""
    async with open_api(system) as api:
        ann, topic, head = await begin(api)
        (position,) = await api.append(ann, topic, thought("unread"))
        assert (await explain(system, topic, position.seq)).reasons == [
            "committed",
            "published",
            "not_followed",
        ]
        ahead = await explain(system, topic, position.seq + 1)
        assert ahead.reasons == ["not_committed", "not_followed"]
        assert f"the head is {head.seq + 1}" in ahead.entry("not_committed")["text"]


def test_who_may_ask(system: System, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A deployment is named by its URLs; with another token than the operators' nothing is said."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("not-the-operators-token\n")
    urls = ("--runtime-url", system.ready["runtime_url"], "--node-url", system.ready["admin_url"])
    refused = system.run(
        "explain",
        f"run:run_{1:026d}:events",
        "1",
        "--json",
        *urls,
        "--admin-token-file",
        str(token),
        check=False,
    )
    assert refused.returncode == 1
    assert set(json.loads(refused.stdout)["failures"].values()) == {"HTTP 401"}
    named = system.run(
        "explain",
        f"run:run_{1:026d}:events",
        "1",
        *urls,
        "--admin-token-file",
        system.ready["admin_token_file"],
    )
    assert "nothing was ever written" in named.stdout


async def test_several_nodes_are_asked(tmp_path: Path) -> None:
    """Separate processes: the frame's way to the node of its follower, and nothing on the other one."""
    with running_system(tmp_path, split=True, nodes=2) as split:
        async with open_api(split) as api:
            ann, topic, _ = await begin(api)
            async with open_welcomed(split, api, ann, topic) as wire:
                follower = await subscribe(wire, topic)
                (position,) = await api.append(ann, topic, thought("over there"))
                await read_through(wire, follower, position.seq)
                told = await explain(split, topic, position.seq)
        assert {"committed", "delivered", "not_followed"} <= set(told.reasons)
        assert {told.entry("appended" if "appended" in told.reasons else "healed")["place"]} == {"node-1"}
        assert told.entry("not_followed")["place"] == "node-2"
