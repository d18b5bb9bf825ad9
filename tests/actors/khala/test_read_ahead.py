"""Reading ahead: the database joins the next page while this one is sent, and it costs nobody else anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.actors.replay import CRASHES_MAX, HANDED_PER_TURN
from khala.core.limits import NodeLimits
from khala_contracts.codec import CursorStart, ErrorMessage, FramesMessage, ServerHeartbeat, StaleCursor
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala.core.pages import Page
    from khala.core.subscription import Subscription
    from khala_contracts.topics import TopicName
    from tests.actors.khala.node_under_test import NodeUnderTest
    from tests.topic_log import TopicLog

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
# A page is several chunks.
PATIENT = NodeLimits(write_stall_timeout_s=1_000, chunk_max_bytes=8_000, drr_quantum_bytes=4_000)


def _long_log() -> TopicLog:
    """100 frames of 1,000 bytes: four pages of 25."""
    return log_of(TOPIC, 100, payload=bytes(1_000))


def _narrow() -> SimulatedTransport:
    """Take less than one page."""
    return SimulatedTransport(buffer_bytes=4_000)


def _asked(node: NodeUnderTest) -> list[int]:
    return [after for _, after in node.journal.pages_asked]


async def test_the_next_page_is_read_while_this_one_is_sent(autojump_clock: MockClock) -> None:
    """A client that has not taken the first page yet finds the second one read, and never waits for a read."""
    async with open_node(_long_log(), limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        client = await node.follow(TOPIC, transport=_narrow())
        assert _asked(node) == [0, 25]
        node.journal.delay_s = 3.0
        waited_at = trio.current_time()
        while len(client.seqs(TOPIC)) < 50:
            await node.settle()
        assert trio.current_time() == waited_at
        while not client.is_live(TOPIC):
            await trio.sleep(0.1)
        assert client.seqs(TOPIC) == list(range(1, 101))
        assert _asked(node) == [0, 25, 50, 75]
        assert node.pages.held_bytes == 0


async def test_one_page_ahead_and_no_more(autojump_clock: MockClock) -> None:
    """INV-7: a client that takes nothing holds its page and the next one, however much follows."""
    async with open_node(_long_log(), limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        client = await node.follow(TOPIC, transport=_narrow())
        await trio.sleep(10)
        assert _asked(node) == [0, 25]
        assert 2 * 25_000 < node.pages.held_bytes < 2 * 27_000
        client.peer.vanish()
        await node.settle()
        assert node.pages.held_bytes == 0


async def test_nothing_is_read_ahead_of_a_barrier(autojump_clock: MockClock) -> None:
    """Where the page reaches the end of the replay, or the window goes on, no further page is read."""
    log = log_of(TOPIC, 25, payload=bytes(1_000))
    async with open_node(log, limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        await node.follow(TOPIC, transport=_narrow())
        await trio.sleep(1)
        assert _asked(node) == [0]


async def test_what_the_window_holds_is_not_read(autojump_clock: MockClock) -> None:
    """A replay that comes to the window from behind goes on there."""
    log = log_of(TOPIC, 25, payload=bytes(1_000))
    async with open_node(log, limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        live = await node.connect(TOPIC)
        live.subscribe(TOPIC, start=CursorStart(25, LINEAGE))
        await node.settle()
        await node.commit(log, 10)
        late = await node.follow(TOPIC)
        assert late.seqs(TOPIC) == list(range(1, 36))
        assert _asked(node) == [0]


@pytest.mark.parametrize("pages_max_bytes", [50_000, 54_000])
async def test_half_of_the_bytes_is_for_those_who_wait(
    autojump_clock: MockClock, pages_max_bytes: int
) -> None:
    """While half of the pages' bytes are in use nothing is read ahead; while less is, it is."""
    limits = attrs.evolve(PATIENT, pages_max_bytes=pages_max_bytes)
    async with open_node(_long_log(), limits=limits) as node:
        node.journal.page_max_frames = 25
        client = await node.follow(TOPIC, transport=_narrow())
        assert 50_000 < 2 * len(_long_log().page(0, max_frames=25, max_bytes=100_000).blob) < 54_000
        assert _asked(node) == ([0, 25] if pages_max_bytes == 54_000 else [0])
        while not client.is_live(TOPIC):
            client.read()
            await trio.sleep(0.01)
        assert client.seqs(TOPIC) == list(range(1, 101))


async def test_a_reader_that_is_wanted_is_not_used(autojump_clock: MockClock) -> None:
    """While as many replays read as may, none reads ahead."""
    slow_log, other = _long_log(), log_of(OTHER_TOPIC, 3)
    limits = attrs.evolve(PATIENT, journal_readers_max=1)
    async with open_node(slow_log, other, limits=limits) as node:
        node.journal.page_max_frames = 25
        slow = await node.connect(TOPIC, transport=_narrow())
        quick = await node.connect(OTHER_TOPIC)
        node.journal.hold("read_page")
        slow.subscribe(TOPIC)
        await node.settle()
        quick.subscribe(OTHER_TOPIC)
        await node.settle()
        node.journal.open_gate("read_page")
        await node.settle()
        assert quick.seqs(OTHER_TOPIC) == [1, 2, 3]
        assert _asked(node) == [0, 0]
        while not slow.is_live(TOPIC):
            slow.read()
            await trio.sleep(0.01)
        assert slow.seqs(TOPIC) == list(range(1, 101))


async def test_a_client_that_leaves_while_its_next_page_is_read(autojump_clock: MockClock) -> None:
    """The page that comes for nobody is not held."""
    async with open_node(_long_log(), limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        client = await node.connect(TOPIC, transport=_narrow())
        client.subscribe(TOPIC)
        node.journal.delay_s = 1.0
        await trio.sleep(2.5)
        assert _asked(node) == [0, 25]
        client.peer.vanish()
        await trio.sleep(2)
        assert node.pages.held_bytes == 0
        assert node.pages._waiting == {}


async def test_the_floor_passes_the_next_page(autojump_clock: MockClock) -> None:
    """What was read ahead is judged when the client gets there: the page before it is still sent whole."""
    log = _long_log()
    async with open_node(log, limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        client = await node.connect(TOPIC, transport=_narrow())
        client.subscribe(TOPIC)
        node.journal.hold("read_page")
        await node.settle()
        log.floor_seq = 60
        node.journal.open_gate("read_page")
        await node.settle()
        while not client.take_all(StaleCursor):
            await trio.sleep(0.01)
        assert client.take_all(FramesMessage)[-1].frames[-1].seq == 25


async def test_a_read_ahead_that_fails_is_nobodys_end(autojump_clock: MockClock) -> None:
    """While the journal is away the page in hand is sent; the client then waits, and goes on when it is back."""
    async with open_node(_long_log(), limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        node.journal.delay_s = 0.1
        client = await node.connect(TOPIC, transport=_narrow())
        client.subscribe(TOPIC)
        await trio.sleep(0.25)
        assert _asked(node) == [0, 25]
        node.journal.is_down = True
        for _ in range(100):
            client.read()
            await trio.sleep(0.1)
        assert client.seqs(TOPIC) == list(range(1, 51))
        assert [len(waiting) for waiting in node.pages._waiting.values()] == [1]
        assert client.take_all(StaleCursor) == client.take_all(ErrorMessage) == []
        node.journal.is_down = False
        while not client.is_live(TOPIC):
            await trio.sleep(0.1)
        assert client.seqs(TOPIC) == list(range(1, 101))


async def test_another_history_is_not_sent_on(autojump_clock: MockClock) -> None:
    """A page of a restored journal is not sent on; the subscription ends where the old history was read to."""
    log = _long_log()
    async with open_node(log, limits=PATIENT) as node:
        node.journal.page_max_frames = 25
        client = await node.follow(TOPIC, transport=_narrow())
        assert _asked(node) == [0, 25]
        forked = node.journal.restore(log, 40, lineage="lin_00000000000000000000000009")
        forked.append(60, payload=bytes(1_000))
        # No time passes, so no position check has found it.
        while not (stale := client.take_all(StaleCursor)):
            await node.settle()
        assert stale[0].reason.value == "lineage_mismatch"
        assert client.take_all(FramesMessage)[-1].frames[-1].seq == 50


async def test_a_read_ahead_that_crashes_is_nobodys_end(autojump_clock: MockClock) -> None:
    """INV-9: a bug in a read that nobody waits for yet ends nobody; who gets there has it read again."""
    async with open_node(_long_log(), limits=PATIENT, may_crash=True) as node:
        node.journal.page_max_frames = 25
        client = await node.connect(TOPIC, transport=_narrow())
        client.subscribe(TOPIC)
        node.journal.hold("read_page")
        await node.settle()
        node.reads._journal = _Crashing()  # type: ignore[assignment]
        node.journal.open_gate("read_page")
        await trio.sleep(10)
        assert len(node.crash_log.crashes) == CRASHES_MAX + 1
        assert client.connection.subscriptions[TOPIC.name].is_active
        node.reads._journal = node.journal
        while not client.is_live(TOPIC):
            await node.settle()
        assert client.seqs(TOPIC) == list(range(1, 101))


class _Crashing:
    """A journal whose pages cannot be read for a bug of ours."""

    async def read_page(self, topic: TopicName, after_seq: int) -> Page:
        """Crash."""
        raise ZeroDivisionError(f"{topic} {after_seq}")


async def test_a_configured_budget(autojump_clock: MockClock) -> None:
    """KH-16: N frames are replayed and N + 1 are stale, for a budget from the configuration; headroom is of it."""
    log = log_of(TOPIC, 50)
    async with open_node(log, limits=NodeLimits(replay_budget_events={"run_events": 40})) as node:
        inside = await node.connect(TOPIC)
        inside.subscribe(TOPIC, start=CursorStart(10, LINEAGE))
        beyond = await node.connect(TOPIC)
        beyond.subscribe(TOPIC, start=CursorStart(9, LINEAGE))
        await node.settle()
        assert inside.seqs(TOPIC) == list(range(11, 51))
        assert beyond.take(StaleCursor).reason.value == "replay_budget_exceeded"
        await trio.sleep(16)
        (topic,) = inside.take_all(ServerHeartbeat)[0].topics
        assert topic.headroom_frames <= 40


async def test_a_page_for_many_lets_others_run_between(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm that waits for one page is served some at a time: live delivery does not wait for all of it."""
    async with open_node(_long_log()) as node:
        node.journal.delay_s = 1.0
        clients = [await node.connect(TOPIC) for _ in range(3 * HANDED_PER_TURN)]
        for client in clients:
            client.subscribe(TOPIC)
        await trio.sleep(1.5)
        topic = node.registry.find(TOPIC.name)
        assert topic is not None
        take_page, handed, is_begun = topic.take_page, 0, trio.Event()

        def take_and_count(subscription: Subscription, page: Page) -> None:
            nonlocal handed
            handed += 1
            is_begun.set()
            take_page(subscription, page)

        monkeypatch.setattr(topic, "take_page", take_and_count)
        await is_begun.wait()
        # Of two tasks that may run next, either is first.
        assert HANDED_PER_TURN <= handed <= 2 * HANDED_PER_TURN
        await node.settle()
        assert handed == len(clients)
        assert all(client.seqs(TOPIC) == list(range(1, 101)) for client in clients)
        assert len(node.journal.pages_asked) == 1


async def test_a_page_counts_until_the_last_has_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-7: one has sent the whole page before the other gets it, and between the two the bytes are looked at."""
    async with open_node(_long_log(), limits=PATIENT) as node:
        node.journal.delay_s = 1.0
        fast, slow = await node.connect(TOPIC), await node.connect(TOPIC, transport=_narrow())
        fast.subscribe(TOPIC)
        slow.subscribe(TOPIC)
        await trio.sleep(1.5)
        topic = node.registry.find(TOPIC.name)
        assert topic is not None
        take_page, held = topic.take_page, []

        def take_and_look(subscription: Subscription, page: Page) -> None:
            take_page(subscription, page)
            # As whoever reads ahead does.
            held.append(node.pages.held_bytes)

        monkeypatch.setattr(topic, "take_page", take_and_look)
        await trio.sleep(2)
        assert (fast.is_live(TOPIC), slow.is_live(TOPIC)) == (True, False)
        assert held[0] == held[1] == node.pages.held_bytes > 100_000
        slow.peer.vanish()
        await node.settle()
        assert node.pages.held_bytes == 0
