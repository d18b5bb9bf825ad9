"""Following topics over real WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs
import httpx
import pytest

from khala_client.core.cursor import Cursor
from khala_client.errors import (
    ChainMismatch,
    Forbidden,
    KhalaError,
    ReauthRequired,
    StaleCursor,
    StoreConflict,
    StoreFailed,
    UpgradeRequired,
)
from khala_client.notices import Connected, Disconnected, GapSeen, Notice, Released
from khala_client.store import MemoryStore
from khala_contracts import codec, reason_codes
from khala_contracts.codec import CursorStart, ErrorMessage, GoAway, UnsubscribedReason
from tests.actors.khala_client.following import OTHER, TOPIC, append_when, client, fail_after_two, take
from tests.actors.khala_client.loops import Halves, eventually, on_both_loops
from tests.actors.khala_client.world import World, problem
from tests.unit.khala_client.node_model import LINEAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_client.events import Event
    from khala_contracts.reason_codes import ReasonCode
from khala_contracts.topics import Lineage, Seq


@on_both_loops
async def test_replay_then_live(world: World) -> None:
    """From the beginning to the head, then every frame as it is committed; one token, one socket."""
    log = world.add(TOPIC, 5)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        assert events.cursor is None
        assert await take(events, 5) == [1, 2, 3, 4, 5]
        await world.append(TOPIC, 2)
        assert await take(events, 2) == [6, 7]
        assert events.is_live
        assert events.cursor is not None
        assert (events.cursor.seq, events.cursor.chain) == (7, log.chains[7])
    assert len(world.connections) == 1
    assert len(world.calls("/api/sync/token")) == 1


@pytest.mark.parametrize(
    ("after", "seqs"),
    [("beginning", [1, 2, 3, 4]), ("earliest", [1, 2, 3, 4]), ("now", [4]), (2, [3, 4]), (0, [1, 2, 3, 4])],
)
@on_both_loops
async def test_every_way_to_start(world: World, after: int, seqs: list[int]) -> None:
    """Words and seqs; a bare seq takes lineage and chain of the log."""
    log = world.add(TOPIC, 3)
    async with (
        client(world) as khala,
        khala.subscribe(TOPIC, after=after) as events,
        anyio.create_task_group() as nursery,
    ):
        nursery.start_soon(
            append_when, world, lambda: bool(world.connections and world.connections[0].node.topics)
        )
        assert await take(events, len(seqs)) == seqs
    if after == 2:
        assert world.connections[0].node.starts[0].start == CursorStart(2, LINEAGE, log.chains[2])


@on_both_loops
async def test_a_cursor_kept_by_the_application(world: World) -> None:
    """Given whole, with its chain; one of another history is stale."""
    log = world.add(TOPIC, 4)
    cursor = Cursor(TOPIC, Seq(3), Lineage(LINEAGE), log.chains[3])
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, after=cursor) as events:
            assert await take(events, 1) == [4]
        for wrong in (attrs.evolve(cursor, chain=bytes(32)), attrs.evolve(cursor, lineage=Lineage("lin_2"))):
            async with khala.subscribe(TOPIC, after=wrong) as events:
                with pytest.raises(StaleCursor, match="lineage_mismatch"):
                    await take(events, 1)
        async with khala.subscribe(TOPIC, after=99) as events:
            with pytest.raises(StaleCursor, match="lineage_mismatch"):
                await take(events, 1)


@on_both_loops
async def test_two_topics_on_one_connection(world: World) -> None:
    """The second is granted by a renewal, on the same socket."""
    world.add(TOPIC, 1)
    world.add(OTHER, 2)
    async with client(world) as khala, khala.subscribe(TOPIC) as first:
        assert await take(first, 1) == [1]
        async with khala.subscribe(OTHER) as second:
            assert await take(second, 2) == [1, 2]
            await world.append(TOPIC)
            assert await take(first, 1) == [2]
    assert len(world.connections) == 1
    assert len(world.connections[0].node.tokens) == 2


@on_both_loops
async def test_a_reset_is_resumed(world: World) -> None:
    """After the cursor, on a new connection with a new token, after the backoff."""
    log = world.add(TOPIC, 3)
    notices: list[Notice] = []
    async with client(world) as khala, khala.subscribe(TOPIC, on_notice=notices.append) as events:
        assert await take(events, 3) == [1, 2, 3]
        await world.connections[0].reset()
        log.append(2)
        assert await take(events, 2) == [4, 5]
    assert world.connections[1].node.starts[0].start == CursorStart(3, LINEAGE, log.chains[3])
    assert world.connections[0].node.tokens != world.connections[1].node.tokens
    assert [notice for notice in notices if isinstance(notice, Connected | Disconnected)] == [
        Connected("con_1", "nod_1"),
        Disconnected("unavailable", 0.125),
        Connected("con_1", "nod_1"),
    ]
    assert anyio.current_time() == pytest.approx(0.125, abs=0.01)


@on_both_loops
async def test_lost_and_repeated_frames_are_healed(world: World) -> None:
    """CL-10: detected, told, resumed; what is applied is the log."""
    world.add(TOPIC, 20)
    world.frames_per_message = 1
    seen = 0

    def disturb(data: bytes) -> list[bytes]:
        nonlocal seen
        seen += data[:1] == b"\x0a"
        return [] if seen in {4, 25} else [data, data] if data[:1] == b"\x0a" else [data]

    world.fault = disturb
    notices: list[Notice] = []
    async with client(world) as khala, khala.subscribe(TOPIC, on_notice=notices.append) as events:
        assert await take(events, 20) == list(range(1, 21))
    assert [type(notice) for notice in notices].count(GapSeen) == 2
    assert len(world.connections) == 1


@on_both_loops
async def test_a_forged_frame_ends_it(world: World) -> None:
    """The chain of replay_complete is another: nothing after it is given."""
    log = world.add(TOPIC, 3)
    genuine = log.frames[1]
    log.frames[1] = attrs.evolve(genuine, payload=b"\x0a\x06forged")
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        with pytest.raises(ChainMismatch):
            await take(events, 4)


@on_both_loops
async def test_a_slow_follower_is_paused_not_buffered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, another topic of the same socket flows on, and nothing is lost."""
    monkeypatch.setattr("khala_client.ring.inbox.EVENTS_MAX", 8)
    world.add(TOPIC, 200)
    world.add(OTHER, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as slow, khala.subscribe(OTHER) as other:
        assert await take(slow, 1) == [1]
        for seq in range(1, 5):
            assert await take(other, 1) == [seq]
            await world.append(OTHER)
        assert len(slow._inbox._items) <= 8 + world.frames_per_message + 4
        assert await take(slow, 199) == list(range(2, 201))
    starts = [start for start in world.connections[0].node.starts if start.topic == TOPIC]
    assert len(starts) > 1


@on_both_loops
async def test_a_release_by_the_node_is_taken_up_again(world: World) -> None:
    """slow_consumer: the cursor is valid, the topic asked again."""
    world.add(TOPIC, 2)
    notices: list[Notice] = []
    async with client(world) as khala, khala.subscribe(TOPIC, on_notice=notices.append) as events:
        assert await take(events, 2) == [1, 2]
        connection = world.connections[0]
        await connection.socket.send_message(connection.node.release(TOPIC, UnsubscribedReason.SLOW_CONSUMER))
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(append_when, world, lambda: bool(connection.node.topics))
            assert await take(events, 1) == [3]
    assert [notice.topic for notice in notices if isinstance(notice, Released)] == [TOPIC]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (reason_codes.UPGRADE_REQUIRED, UpgradeRequired),
        (reason_codes.FORBIDDEN, Forbidden),
        (reason_codes.PROTOCOL_ERROR, KhalaError),
    ],
)
@on_both_loops
async def test_endings_for_good(world: World, reason: ReasonCode, kind: type[KhalaError]) -> None:
    """No further token, no further socket; the iterator raises, and goes on raising."""
    world.add(TOPIC, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        await take(events, 1)
        await world.connections[0].fail(reason)
        for _ in range(2):
            with pytest.raises(kind), anyio.fail_after(5):
                await events.__anext__()
        await anyio.sleep(0.05)
    assert len(world.connections) == 1
    assert len(world.calls("/api/sync/token")) == 1


@on_both_loops
async def test_a_revocation_is_tried_once_more_and_then_believed(world: World) -> None:
    """CL-06: at most one reconnect."""
    world.add(TOPIC, 1)
    world.hello_errors.extend([None, reason_codes.REAUTH_REQUIRED, reason_codes.REAUTH_REQUIRED])
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        await take(events, 1)
        await world.connections[0].fail(reason_codes.REAUTH_REQUIRED)
        with pytest.raises(ReauthRequired), anyio.fail_after(60):
            await events.__anext__()
    assert len(world.connections) == 2


@on_both_loops
async def test_admission_is_waited_for(world: World) -> None:
    """rate_limited before welcome: the server's time, then a fresh token."""
    world.add(TOPIC, 1)
    world.hello_errors.extend([reason_codes.RATE_LIMITED, reason_codes.UNAVAILABLE])
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        assert await take(events, 1) == [1]
    assert len(world.connections) == 3
    assert len(world.calls("/api/sync/token")) == 3


@on_both_loops
async def test_a_draining_node_is_left_in_time(world: World) -> None:
    """go_away: frames flow until the return time; then the next connection, without backoff."""
    world.add(TOPIC, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        await take(events, 1)
        await world.connections[0].send(GoAway(2_000, 30_000))
        await world.append(TOPIC)
        assert await take(events, 1) == [2]
        await eventually(lambda: len(world.connections) == 2)
        assert anyio.current_time() == pytest.approx(2.0, abs=0.1)
        await world.append(TOPIC)
        assert await take(events, 1) == [3]


@on_both_loops
async def test_heartbeats_renewals_and_a_dead_node(world: World) -> None:
    """Every 15 s ours; at 2/3 of the token's life a renewal; after 45 s of silence a new connection."""
    world.add(TOPIC, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        await take(events, 1)
        node = world.connections[0].node
        await anyio.sleep(190)
        assert node.heartbeats == 12
        # 300 s of life, 2/3 less half of the jitter of 1/10: 185 s.
        assert len(node.tokens) == 2
        assert len(world.connections) == 1


@on_both_loops
async def test_a_silent_node_is_given_up(world: World) -> None:
    """No frame, no heartbeat, no pong for 45 s."""
    world.add(TOPIC, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        await take(events, 1)
        # Reads the heartbeat of 15 s, and from then on nothing: no pong comes back.
        world.connections[0].is_frozen = True
        await anyio.sleep(44)
        assert len(world.connections) == 1
        world.connections[0].is_open = False
        await eventually(lambda: len(world.connections) == 2)
        assert 45 < anyio.current_time() < 45 + 15 + 1 + 0.5


@on_both_loops
async def test_a_topic_that_may_not_be_read(world: World) -> None:
    """Refused at the mint, by name: it alone ends; the other is followed."""
    world.add(TOPIC, 1)
    world.forbidden.add(OTHER)
    async with client(world) as khala, khala.subscribe(TOPIC) as events, khala.subscribe(OTHER) as denied:
        with pytest.raises(Forbidden), anyio.fail_after(5):
            await denied.__anext__()
        assert await take(events, 1) == [1]


@on_both_loops
async def test_a_topic_added_later_that_may_not_be_read(world: World) -> None:
    """Refused at the renewal: it alone ends; the connection goes on."""
    world.add(TOPIC, 1)
    world.forbidden.add(OTHER)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        assert await take(events, 1) == [1]
        async with khala.subscribe(OTHER) as denied:
            with pytest.raises(Forbidden), anyio.fail_after(5):
                await denied.__anext__()
        await world.append(TOPIC)
        assert await take(events, 1) == [2]
    assert len(world.connections) == 1


@on_both_loops
async def test_a_refused_topic_that_was_left_ends_nobody_else(world: World) -> None:
    """It was left while the token for it was minted."""
    world.add(TOPIC, 1)
    world.forbidden.add(OTHER)
    world.mint_gate = anyio.Event()
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        async with khala.subscribe(OTHER):
            await eventually(lambda: bool(world.calls("/api/sync/token")))
        world.mint_gate.set()
        assert await take(events, 1) == [1]


@on_both_loops
async def test_a_renewal_in_trouble_is_tried_again_in_time(world: World) -> None:
    """When the server said, not with the next heartbeat."""
    world.add(TOPIC, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        assert await take(events, 1) == [1]
        world.http_troubles.append(problem(reason_codes.RATE_LIMITED, retry_after_ms=2_000))
        async with khala.subscribe(OTHER):
            asked_at_s = anyio.current_time()
            await eventually(lambda: len(world.calls("/api/sync/token")) == 3)
            assert anyio.current_time() - asked_at_s == pytest.approx(2.0, abs=0.1)


@on_both_loops
async def test_leaving_does_not_shorten_the_wait(world: World) -> None:
    """Whoever follows again finds the same retry owner, which still owes the server its time."""
    world.add(TOPIC, 1)
    world.http_troubles.append(problem(reason_codes.RATE_LIMITED, retry_after_ms=7_000))
    async with client(world) as khala:
        async with khala.subscribe(TOPIC) as events:
            with anyio.move_on_after(1):
                await events.__anext__()
        await anyio.sleep(1)
        async with khala.subscribe(TOPIC) as events:
            assert await take(events, 1) == [1]
        assert anyio.current_time() == pytest.approx(7.0, abs=0.1)


@on_both_loops
async def test_a_mint_in_trouble_is_tried_again(world: World) -> None:
    """The link is the retry owner: its backoff, the server's time."""
    world.add(TOPIC, 1)
    world.http_troubles.extend(
        [httpx.ConnectError("no"), problem(reason_codes.RATE_LIMITED, retry_after_ms=4_000)]
    )
    notices: list[Notice] = []
    async with client(world) as khala, khala.subscribe(TOPIC, on_notice=notices.append) as events:
        assert await take(events, 1) == [1]
    assert [notice for notice in notices if isinstance(notice, Disconnected)] == [
        Disconnected("unavailable", 0.125),
        Disconnected("rate_limited", 4.0),
    ]


@on_both_loops
async def test_a_mint_that_hangs_is_given_up(world: World) -> None:
    """After 20 s, for another attempt."""
    world.add(TOPIC, 1)
    world.mint_gate = anyio.Event()
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        with anyio.move_on_after(20.05):
            await events.__anext__()
        world.mint_gate.set()
        assert await take(events, 1) == [1]
    assert len(world.calls("/api/sync/token")) == 2


@on_both_loops
async def test_a_key_that_is_no_key(world: World) -> None:
    """401 at the mint: sign in again; nothing is retried."""
    world.add(TOPIC, 1)
    settings = attrs.evolve(world.settings, key="khk_wrong")
    async with (
        world.front(settings, rng=Halves(), wall_clock=lambda: 0.0) as khala,
        khala.subscribe(TOPIC) as events,
    ):
        with pytest.raises(ReauthRequired), anyio.fail_after(5):
            await events.__anext__()
    assert len(world.calls("/api/sync/token")) == 1
    assert world.connections == []


@on_both_loops
async def test_a_renewal_that_is_refused_for_good(world: World) -> None:
    """The session ended in control before the node heard of it: everything ends."""
    world.add(TOPIC, 1)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        assert await take(events, 1) == [1]
        world.http_troubles.append(problem(reason_codes.REAUTH_REQUIRED))
        with pytest.raises(ReauthRequired), anyio.fail_after(200):
            await events.__anext__()
    assert len(world.connections) == 1


@on_both_loops
async def test_a_topic_that_the_node_does_not_know(world: World) -> None:
    """Looks the same."""
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        with pytest.raises(Forbidden), anyio.fail_after(5):
            await events.__anext__()


@on_both_loops
async def test_a_topic_in_trouble_is_asked_again(world: World) -> None:
    """unavailable{topic} with its own time."""
    world.add(TOPIC, 1)
    world.refusals[TOPIC] = ErrorMessage.of(reason_codes.UNAVAILABLE, topic=TOPIC, retry_after_ms=3_000)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        assert await take(events, 1) == [1]
        assert anyio.current_time() == pytest.approx(3.0, abs=0.1)
    assert len(world.connections) == 1


@on_both_loops
async def test_misuse(world: World) -> None:
    """One follower per topic and client, one per topic and store; names by the registry's grammar."""
    world.add(TOPIC, 1)
    store = MemoryStore()
    async with client(world) as khala, khala.subscribe(TOPIC, store=store):
        with pytest.raises(StoreConflict):
            async with khala.subscribe(TOPIC, store=store):
                pass
        with pytest.raises(ValueError, match="followed already"):
            async with khala.subscribe(TOPIC, after="now"):
                pass
        with pytest.raises(KhalaError, match="topic_invalid"):
            async with khala.subscribe("run:*:events"):
                pass


@on_both_loops
async def test_nobody_follows_nothing_is_connected(world: World) -> None:
    """The socket closes with the last subscription, and comes back with the next."""
    world.add(TOPIC, 1)
    async with client(world) as khala:
        await anyio.sleep(0.02)
        assert world.connections == []
        for count in (1, 2):
            async with khala.subscribe(TOPIC, after="beginning") as events:
                await take(events, 1)
            await eventually(lambda: not world.open_connections)
            assert len(world.connections) == count
            assert world.connections[-1].socket.close_code == 1000


@on_both_loops
async def test_following_again_at_once_is_no_failure(world: World) -> None:
    """The socket of before is just being closed: the next one waits for it, and for nothing else."""
    world.add(TOPIC, 1)
    notices: list[Notice] = []
    async with client(world) as khala:
        for _ in range(5):
            async with khala.subscribe(TOPIC, after="beginning", on_notice=notices.append) as events:
                await take(events, 1)
    assert not any(isinstance(notice, Disconnected) for notice in notices)


@on_both_loops
async def test_a_node_that_is_not_there(world: World) -> None:
    """ARC-04: no fallback. The client keeps trying, says so, and reads no stream over HTTP."""
    world.add(TOPIC, 1)
    notices: list[Notice] = []
    settings = attrs.evolve(world.settings, sync_url="ws://127.0.0.1:1/sync/v1/ws")
    async with (
        world.front(settings, rng=Halves(), wall_clock=lambda: 0.0) as khala,
        khala.subscribe(TOPIC, on_notice=notices.append) as events,
    ):
        with anyio.move_on_after(600):
            await events.__anext__()
    ceilings = [0.25 * 2**n for n in range(7)] + [30.0] * 40
    delays = [notice.retry_in_s for notice in notices if isinstance(notice, Disconnected)]
    assert delays == [ceiling / 2 for ceiling in ceilings[: len(delays)]]
    assert len(delays) > 30
    assert {path for path, _ in world.requests} == {"POST /api/sync/token"}


@on_both_loops
async def test_the_blocks_own_exception_comes_out_as_itself(world: World) -> None:
    """Not in a group, although tasks run beside it."""
    world.add(TOPIC, 2)
    with pytest.raises(ZeroDivisionError):
        async with client(world) as khala:
            await fail_after_two(khala, MemoryStore())


class FullDisk(MemoryStore):
    """A store that keeps nothing."""

    def commit(self, events: Sequence[Event]) -> None:
        """See Store.commit."""
        raise StoreFailed(f"no room for {len(events)}")


@on_both_loops
async def test_leaving_hides_no_exception_of_the_block(world: World) -> None:
    """What cannot be kept is told only where nothing else has gone wrong."""
    world.add(TOPIC, 3)
    async with client(world) as khala:
        with pytest.raises(ZeroDivisionError):
            await fail_after_two(khala, FullDisk())
        with pytest.raises(StoreFailed):
            async with khala.subscribe(TOPIC, store=FullDisk()) as events:
                await take(events, 2)


@on_both_loops
async def test_the_blocks_own_exception_keeps_its_cause(world: World) -> None:
    """Which its author gave it with ``raise ... from``."""
    with pytest.raises(LookupError) as raised:
        async with client(world):
            try:
                _ = 1 // 0
            except ZeroDivisionError as error:
                raise LookupError from error
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert isinstance(raised.value.__context__, ZeroDivisionError)


@on_both_loops
async def test_frames_of_a_sound_path_are_decoded_by_the_codec(world: World) -> None:
    """What a follower gives is what was committed."""
    log = world.add(TOPIC, 2)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        with anyio.fail_after(5):
            first = await events.__anext__()
    assert codec.decode_entries(codec.encode_entry(log.frames[0])) == [log.frames[0]]
    assert (first.payload, first.kind, first.chain) == (log.frames[0].payload, "thought", log.chains[1])
    assert first.data["text"] == "x"
