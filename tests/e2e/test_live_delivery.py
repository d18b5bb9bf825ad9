"""Live delivery on real sockets: the switch from replay to live, barriers, renewal, heartbeats, latency.

Every subscription is judged frame by frame (`Follower`): strictly +1, the chain recomputed, one
replay_complete exactly where `subscribed` said. What is asserted here is what follows from the scenario.
"""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    Renew,
    Renewed,
    ReplayComplete,
    ServerHeartbeat,
    Subscribed,
    SubscriptionMode,
    Unsubscribe,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_service.identifiers import SystemIds
from tests.e2e.forge import Forge
from tests.e2e.history import History, begin_history, being_written, random_start, write
from tests.e2e.ledger import Ledger
from tests.e2e.system import System, running_system
from tests.e2e.wire import (
    ANSWER_S,
    BEGINNING,
    BINARY,
    TEXT,
    Api,
    Follower,
    Person,
    Position,
    Wire,
    events_path,
    follow,
    open_api,
    open_welcomed,
    open_wire,
    positions,
    read_through,
    run_of,
    subscribe,
    thought,
)
from tests.integration.runtime.raw_append import APPEND, RawEvent, append_args

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from khala_contracts.codec import ServerMessage

pytestmark = pytest.mark.slow

HEARTBEAT_S = 0.5
FULL_HEARTBEAT_EVERY = 4
# RT-14: from the acknowledgement to the wire.
SEEN_S = 0.5
# SPEC section 1, promise 4.
HEALED_S = 2.0
LEEWAY_S = 30


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with quick heartbeats; every other limit is the default."""
    folder = tmp_path_factory.mktemp("live")
    with running_system(folder, KHALA_NODE_LIMITS_HEARTBEAT_INTERVAL_S=str(HEARTBEAT_S)) as started:
        yield started


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """What PostgreSQL holds."""
    with Ledger.open(system) as opened:
        yield opened


@pytest.fixture
async def api(system: System) -> AsyncIterator[Api]:
    """HTTP of the system."""
    async with open_api(system) as opened:
        yield opened


@pytest.fixture
async def ann(api: Api) -> Person:
    """Somebody with runs."""
    return await api.sign_in()


async def pump(wire: Wire, follower: Follower, wanted: type[object] | None = None) -> ServerMessage:
    """Feed a follower until a message comes that is not of its stream; return that."""
    while True:
        message = await wire.receive()
        if isinstance(message, (FramesMessage, ReplayComplete)):
            follower.take(message)
        elif not isinstance(message, ServerHeartbeat):
            assert wanted is None or isinstance(message, wanted), message
            return message


# -- the switch ----------------------------------------------------------------------------------------


async def test_thirty_clients_join_at_random_while_300_events_a_second_are_written(
    system: System, api: Api, ann: Person
) -> None:
    """No gap, no repeat, replay_complete exactly at through_seq: wherever and whenever a client begins."""
    rng = random.Random(1867)
    history = await begin_history(api, ann, events=1_300)
    written_s = 4.0
    followers: list[Follower] = []
    modes: list[SubscriptionMode] = []

    async def join(subprotocol: str, at_s: float, draw: float) -> None:
        await trio.sleep(at_s)
        opened = open_welcomed(system, api, ann, history.topic, subprotocol=subprotocol)
        async with opened as wire:
            follower = await subscribe(wire, history.topic, random_start(history, draw))
            followers.append(follower)
            modes.append(follower.subscribed.mode)
            with trio.fail_after(written_s + 10):
                while not (history.is_over and follower.completed and follower.position >= history.head.seq):
                    follower.take(await wire.receive())

    async with trio.open_nursery() as nursery:
        for number in range(30):
            subprotocol = TEXT if number % 3 == 0 else BINARY
            nursery.start_soon(join, subprotocol, rng.uniform(0, written_s), rng.random())
        # Three writers, ten events a request: 300 events a second, within the burst.
        await write(api, ann, history, requests=120, batch=10, every_s=0.1)
        # Whoever has everything waits for one more; it also tells a client that is a frame ahead.
        history.is_over = False
        history.note(await api.append(ann, history.topic, thought("last")))
        history.is_over = True
    assert len(followers) == 30
    assert history.head.seq == 1 + 1_300 + 1_200 + 1
    for follower in followers:
        history.check(follower)
    assert set(modes) == {SubscriptionMode.LIVE, SubscriptionMode.REPLAYING}


async def test_a_client_that_reads_slowly_gets_everything(system: System, api: Api, ann: Person) -> None:
    """A small receive buffer and pauses while it is replaying and written to: nothing is lost, nobody is released."""
    history = await begin_history(api, ann)
    large = [{"kind": "thought", "data": {"text": "x" * 8_000}} for _ in range(100)]
    history.note(await api.append(ann, history.topic, *large))
    token = await api.mint(ann, history.topic)
    async with open_wire(system, receive_buffer_bytes=32 * 1024) as wire:
        await wire.greet(token)
        follower = await subscribe(wire, history.topic)
        async with being_written(api, ann, history):
            while follower.completed is None:
                await trio.sleep(0.02)
                follower.take(await wire.receive())
        await read_through(wire, follower, history.head.seq)
        history.check(follower)


# -- subscriptions end, repeat and begin again ----------------------------------------------------------


async def test_unsubscribe_stops_frames(system: System, api: Api, ann: Person) -> None:
    """After the acknowledgement none follows, although the run is written to; the topic can be had again."""
    history = await begin_history(api, ann)
    other = await begin_history(api, ann)
    async with open_welcomed(system, api, ann, history.topic, other.topic) as wire:
        follower = await subscribe(wire, history.topic)
        async with being_written(api, ann, history):
            while len(follower.frames) < 20:
                follower.take(await wire.receive())
            await wire.send(Unsubscribe((history.topic,)))
            left = await pump(wire, follower, Unsubscribed)
            assert left == Unsubscribed(history.topic, UnsubscribedReason.ASKED)
            written = history.head.seq
            while history.head.seq < written + 30:
                await trio.sleep(0.05)
            # Of the other topic there is something, of this one nothing.
            second = await subscribe(wire, other.topic)
            await read_through(wire, second, 1)
            again = await subscribe(
                wire, history.topic, CursorStart(follower.position, follower.subscribed.lineage)
            )
            while len(again.frames) < 40:
                again.take(await wire.receive())
        await read_through(wire, again, history.head.seq)
        assert again.chain == history.head.chain
        # A name that was never subscribed gets the same answer: it is gone.
        repeated = await wire.ask(Unsubscribe((history.topic, history.topic)), Unsubscribed)
        assert repeated == await wire.answer(Unsubscribed) == left


async def test_a_repeated_subscribe_changes_nothing(system: System, api: Api, ann: Person) -> None:
    """`subscribed` comes again, with the head of now; the stream goes on by +1 without another barrier."""
    history = await begin_history(api, ann, events=50)
    for start in (BEGINNING, history.acked[20].start):
        async with open_welcomed(system, api, ann, history.topic) as wire:
            follower = await subscribe(wire, history.topic, start)
            async with being_written(api, ann, history):
                for _ in range(3):
                    wanted = len(follower.frames) + 20
                    while len(follower.frames) < wanted:
                        follower.take(await wire.receive())
                    await wire.send(follow(history.topic, start=start))
                    again = await pump(wire, follower, Subscribed)
                    assert isinstance(again, Subscribed)
                    # What it says is what this subscription began with, at the head of now.
                    assert (again.start_seq, again.chain_at_start, again.lineage) == (
                        follower.subscribed.start_seq,
                        follower.subscribed.chain_at_start,
                        follower.subscribed.lineage,
                    )
                    assert again.head_seq >= follower.subscribed.head_seq
            await read_through(wire, follower, history.head.seq)
            history.check(follower)


async def test_a_subscribe_with_another_cursor_begins_again(system: System, api: Api, ann: Person) -> None:
    """A lower one repeats from there, a higher one leaves out; never two streams at once."""
    history = await begin_history(api, ann, events=300)
    async with open_welcomed(system, api, ann, history.topic) as wire:
        follower = await subscribe(wire, history.topic, history.acked[250].start)
        async with being_written(api, ann, history):
            for seq in (10, 0, 200, 3):
                while follower.completed is None or len(follower.frames) < 60:
                    follower.take(await wire.receive())
                start = history.acked[seq].start if seq else CursorStart(0)
                await wire.send(follow(history.topic, start=start))
                answer = await pump(wire, follower, Subscribed)
                assert isinstance(answer, Subscribed)
                assert answer.start_seq == seq
                follower = Follower.of(answer)
        await read_through(wire, follower, history.head.seq)
        history.check(follower)


# -- authority in band --------------------------------------------------------------------------------


async def test_renew_keeps_the_stream_and_extends_authority(system: System, api: Api, ann: Person) -> None:
    """Two tokens about to end: who renews streams on beyond the end, who does not is closed, token_expired."""
    history = await begin_history(api, ann)
    forge = Forge.of(system, await api.mint(ann, history.topic))
    # Valid for the leeway alone, so that their end is seconds away.
    ending_s = 2.5
    async with open_wire(system) as renewing, open_wire(system) as idle:
        welcome = await renewing.greet(forge.expiring_in(ending_s - LEEWAY_S))
        await idle.greet(forge.expiring_in(ending_s - LEEWAY_S))
        follower, lazy = await subscribe(renewing, history.topic), await subscribe(idle, history.topic)
        async with being_written(api, ann, history):
            while len(follower.frames) < 20:
                follower.take(await renewing.receive())
            await renewing.send(Renew(await api.mint(ann, history.topic)))
            renewed = await pump(renewing, follower, Renewed)
            assert isinstance(renewed, Renewed)
            assert renewed.token_expires_at_ms > welcome.token_expires_at_ms + 250_000
            expired = await pump(idle, lazy, ErrorMessage)
            assert isinstance(expired, ErrorMessage)
            assert (expired.code, expired.advice.value) == ("token_expired", "reauthenticate")
            assert (await idle.ending()).close_code == 4005
            wanted = history.head.seq + 60
            while follower.position < wanted:
                follower.take(await renewing.receive())
        await read_through(renewing, follower, history.head.seq)
        history.check(follower)


async def test_a_renewal_replaces_the_grants(system: System, api: Api, ann: Person) -> None:
    """A topic that the new token lacks ends `forbidden`; the others go on, new ones may be had."""
    kept, lost, gained = [await begin_history(api, ann, events=5) for _ in range(3)]
    async with open_welcomed(system, api, ann, kept.topic, lost.topic) as wire:
        staying, leaving = await subscribe(wire, kept.topic), None
        await read_through(wire, staying, kept.head.seq)
        leaving = await subscribe(wire, lost.topic)
        await read_through(wire, leaving, lost.head.seq)
        await wire.send(Renew(await api.mint(ann, kept.topic, gained.topic)))
        assert await wire.answer(Unsubscribed) == Unsubscribed(lost.topic, UnsubscribedReason.FORBIDDEN)
        await wire.answer(Renewed)
        lost.note(await api.append(ann, lost.topic, thought("unseen")))
        kept.note(await api.append(ann, kept.topic, thought("seen")))
        await read_through(wire, staying, kept.head.seq)
        denied = await wire.ask(follow(lost.topic), ErrorMessage)
        assert (denied.code, denied.topic) == ("forbidden", lost.topic)
        more = await subscribe(wire, gained.topic)
        await read_through(wire, more, gained.head.seq)


async def test_a_renewal_is_judged_like_a_hello(system: System, api: Api, ann: Person) -> None:
    """A spent token, another person's, another session's, another device's, noise: each its code, and the end."""
    history = await begin_history(api, ann)
    bob = await api.sign_in("bob", "dev_fedcba9876543210")
    elsewhere = await api.sign_in("ann", "dev_0000000000000002")
    again = await api.sign_in()
    assert again.session_id != ann.session_id
    forge = Forge.of(system, await api.mint(ann, history.topic))
    spent = await api.mint(ann, history.topic)
    tokens = {
        spent: ("token_replayed", 4502),
        await api.mint(bob, f"user:{bob.user_id}:runs"): ("token_invalid", 4502),
        await api.mint(elsewhere, history.topic): ("token_invalid", 4502),
        await api.mint(again, history.topic): ("token_invalid", 4502),
        forge.expiring_in(-LEEWAY_S - 1): ("token_expired", 4005),
        "noise": ("token_invalid", 4502),
    }
    async with open_wire(system) as wire:
        await wire.greet(spent)
    for token, (code, close_code) in tokens.items():
        async with open_welcomed(system, api, ann, history.topic) as wire:
            await wire.send(Renew(token))
            assert (await wire.ending()).codes == ([code], close_code)


# -- heartbeats -----------------------------------------------------------------------------------------


async def test_heartbeats_carry_head_and_chain_of_the_journal(system: System, api: Api, ann: Person) -> None:
    """A topic that moved is named in the next one, and every topic in each fourth; (head, chain) is the journal's."""
    moving, still = await begin_history(api, ann), await begin_history(api, ann, events=4)
    async with trio.open_nursery() as nursery:
        for subprotocol in (BINARY, TEXT):
            nursery.start_soon(hear_heartbeats, system, api, ann, moving, still, subprotocol)


async def hear_heartbeats(
    system: System, api: Api, person: Person, moving: History, still: History, subprotocol: str
) -> None:
    """Follow two topics, of which one moves after each heartbeat, until one more than all were named."""
    topics = (moving.topic, still.topic)
    async with open_welcomed(system, api, person, *topics, subprotocol=subprotocol) as wire:
        for history in (moving, still):
            follower = await subscribe(wire, history.topic)
            await read_through(wire, follower, follower.subscribed.head_seq)
        named: dict[str, list[int]] = {topic: [] for topic in topics}
        times: list[float] = []
        while len(times) < FULL_HEARTBEAT_EVERY + 1:
            message = await wire.receive()
            if isinstance(message, FramesMessage):
                continue
            assert isinstance(message, ServerHeartbeat)
            times.append(trio.current_time())
            assert abs(message.server_time_ms / 1000 - time.time()) < 5
            for topic in message.topics:
                history = moving if topic.topic == moving.topic else still
                assert topic.chain == history.acked[topic.head_seq].chain
                # All of the budget is left to a client that has everything.
                assert topic.headroom_frames == 20_000
                assert topic.headroom_ms == 7 * 24 * 3600 * 1000
                named[topic.topic].append(topic.head_seq)
            moving.note(await api.append(person, moving.topic, thought("on")))
    periods = [later - earlier for earlier, later in pairwise(times)]
    assert abs(sum(periods) / len(periods) - HEARTBEAT_S) < HEARTBEAT_S / 2, periods
    assert named[moving.topic] == sorted(named[moving.topic])
    assert len(named[moving.topic]) == FULL_HEARTBEAT_EVERY + 1
    assert len(named[still.topic]) == 3, "when it was subscribed, once more, and in the one that names all"


# -- from the commit to the wire --------------------------------------------------------------------------


async def test_an_acknowledged_event_is_on_the_wire_within_half_a_second(
    system: System, api: Api, ann: Person
) -> None:
    """RT-14: the (topic, seq) of the answer is seen within 500 ms, and is that very event."""
    history = await begin_history(api, ann)
    seen_at: dict[int, float] = {}
    async with open_welcomed(system, api, ann, history.topic) as wire, trio.open_nursery() as nursery:
        follower = await subscribe(wire, history.topic)
        await read_through(wire, follower, 1)

        async def read() -> None:
            while True:
                follower.take(await wire.receive())
                seen_at.setdefault(follower.position, trio.current_time())

        nursery.start_soon(read)
        delays = []
        for number in range(30):
            [ack] = await api.append(ann, history.topic, thought(number))
            acked_at = trio.current_time()
            assert (ack.topic, ack.seq) == (history.topic, number + 2)
            with trio.fail_after(ANSWER_S):
                while ack.seq not in seen_at:
                    await trio.sleep(0.001)
            delays.append(seen_at[ack.seq] - acked_at)
            assert follower.chain == ack.chain
        nursery.cancel_scope.cancel()
    assert max(delays) < SEEN_S, delays


async def test_reads_say_where_to_subscribe(system: System, api: Api, ann: Person) -> None:
    """RT-19: after the watermark of any read comes its very next event, while writers run."""
    history = await begin_history(api, ann, events=20)
    run_id = run_of(history.topic)

    async def from_run() -> Position:
        return await api.watermark(ann, history.topic)

    async def from_list() -> Position:
        runs = (await api.get("/v1/runs", ann.access_token)).json()["runs"]
        [found] = [run["watermark"] for run in runs if run["run_id"] == run_id]
        return positions([found])[0]

    async def from_page() -> Position:
        answer = await api.get(f"{events_path(history.topic)}?after_seq=5&limit=10", ann.access_token)
        document = answer.json()
        assert [event["seq"] for event in document["events"]] == [str(seq) for seq in range(6, 16)]
        return positions([document["watermark"]])[0]

    async def from_topic() -> Position:
        info = (await api.get(f"/v1/topics/{history.topic}", ann.access_token)).json()
        return positions([{**info, "seq": info["head_seq"], "chain": info["head_chain"]}])[0]

    async with being_written(api, ann, history, events_per_s=200):
        for round_number in range(2):
            for read in (from_run, from_list, from_page, from_topic):
                position = await read()
                async with open_welcomed(system, api, ann, history.topic) as wire:
                    follower = await subscribe(wire, history.topic, position.start)
                    assert follower.position == position.seq, (round_number, read)
                    assert follower.chain == position.chain
                    wanted = history.head.seq + 10
                    while follower.completed is None or follower.position < wanted:
                        follower.take(await wire.receive())
                    assert follower.frames[0].seq == position.seq + 1
                    known = [frame.seq for frame in follower.frames if frame.seq in history.acked]
                    assert len(known) > 0


# -- what no broker announced, and connections that die ---------------------------------------------------


async def test_an_event_that_no_broker_announced_arrives(
    system: System, api: Api, ann: Person, ledger: Ledger
) -> None:
    """Promise 4: committed behind the runtime's back, with nothing after it, it is there within 2 s."""
    history = await begin_history(api, ann, events=3)
    async with open_welcomed(system, api, ann, history.topic) as wire:
        follower = await subscribe(wire, history.topic)
        await read_through(wire, follower, history.head.seq)
        [row] = ledger.rows("SELECT generation FROM runtime.generation")
        event = RawEvent(SystemIds().new("evt"), payload=b"\x0a\x05quiet")
        arguments = append_args([(history.topic, [event])], generation=row["generation"])
        began = trio.current_time()
        ledger.run(APPEND, *arguments)
        await read_through(wire, follower, history.head.seq + 1)
        assert trio.current_time() - began < HEALED_S
        assert follower.frames[-1].payload == event.payload
        # The authority goes on after it, and so does the stream.
        history.note(await api.append(ann, history.topic, thought("loud")))
        await read_through(wire, follower, history.head.seq)
        assert follower.chain == history.head.chain


async def test_dying_database_connections_reach_no_wire(
    system: System, api: Api, ann: Person, ledger: Ledger
) -> None:
    """Every session of the node's role is ended again and again: late at most; no gap, no repeat, never stale."""
    history = await begin_history(api, ann, events=400)
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'khala_reader'"
    refused: list[str] = []
    async with open_welcomed(system, api, ann, history.topic) as wire, trio.open_nursery() as nursery:
        follower = await subscribe(wire, history.topic)

        async def join() -> None:
            """Begin anew, replaying, until it is served; trouble is `unavailable` and leaves the cursor valid."""
            async with open_welcomed(system, api, ann, history.topic) as late:
                start = history.acked[2].start
                while True:
                    await late.send(follow(history.topic, start=start))
                    answer = await late.answer(object)
                    if isinstance(answer, Subscribed):
                        break
                    assert isinstance(answer, ErrorMessage)
                    assert (answer.code, answer.retryable) == ("unavailable", True)
                    assert answer.retry_after_ms > 0
                    refused.append(answer.code)
                    await trio.sleep(0.05)
                joined = Follower.of(answer)
                await read_through(late, joined, joined.subscribed.head_seq, timeout_s=20)

        async with being_written(api, ann, history):
            for _ in range(6):
                ledger.rows(end_all)
                nursery.start_soon(join)
                await trio.sleep(0.15)
        await read_through(wire, follower, history.head.seq)
        history.check(follower)
