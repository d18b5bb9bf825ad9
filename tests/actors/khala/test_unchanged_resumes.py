"""KH-10, INV-36: who resumes at a head that has not moved is answered by the position check of the whole node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala.core.classification import HeadRights
from khala.core.limits import NodeLimits
from khala_contracts.codec import CursorStart, ErrorMessage, ReplayComplete, StaleCursor, Subscribed
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.topic_log import LINEAGE, OTHER_USER, claims_for, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.topic_log import TopicLog

TOPIC = run_topic(1)


def at_head(log: TopicLog) -> CursorStart:
    """Return the cursor of a client that has applied everything."""
    return CursorStart(log.head_seq, LINEAGE, log.chains[log.head_seq])


async def test_a_thousand_clients_on_fifty_topics(autojump_clock: MockClock) -> None:
    """One statement for each topic at most, whoever comes: 1,000 clients at 250 a second, none read a journal page."""
    logs = [log_of(run_topic(number), 20) for number in range(1, 51)]
    async with open_node(*logs) as node:
        node.journal.delay_s = 0.002
        clients = []
        for number in range(1_000):
            log = logs[number % 50]
            clients.append((await node.follow(log.topic, start=at_head(log)), log))
            await trio.sleep(0.004)
        for client, log in clients:
            assert client.take(Subscribed).head_seq == 20
            assert client.take(ReplayComplete).through_seq == 20
            assert client.position(log.topic) == 20
        assert node.journal.reads["observe"] <= 50
        assert node.counters.observations_read == node.journal.reads["observe"]
        assert node.counters.resumes_unread == 950
        assert node.journal.reads["read_page"] == 0
        # What looks at all of them costs by time, not by clients.
        assert node.journal.reads["read_heads"] <= trio.current_time() / 0.5 + 1


async def test_whoever_is_answered_so_gets_what_follows(autojump_clock: MockClock) -> None:
    """Live frames, and those whose record got lost, as for everybody else."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        client = await node.follow(TOPIC, start=at_head(log))
        assert node.counters.resumes_unread == 1
        await node.commit(log, 2)
        log.append(3)  # nobody is told
        await trio.sleep(0.6)
        assert client.seqs(TOPIC) == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("cursor", "answer"),
    [
        (CursorStart(5, LINEAGE, bytes(32)), StaleCursor),
        (CursorStart(5, "lin_other"), StaleCursor),
        (CursorStart(6, LINEAGE), StaleCursor),
        (CursorStart(4, LINEAGE), Subscribed),
    ],
    ids=["another chain", "another lineage", "ahead", "behind"],
)
async def test_any_other_cursor_is_judged_by_a_read_of_its_own(
    autojump_clock: MockClock, cursor: CursorStart, answer: type[Subscribed | StaleCursor]
) -> None:
    """INV-5: only one thing is answered without a read: nothing has come after this cursor."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        client = await node.follow(TOPIC, start=cursor)
        client.take(answer)
        assert node.journal.reads["observe"] == 2
        assert node.counters.resumes_unread == 0


async def test_an_old_look_answers_nobody(autojump_clock: MockClock) -> None:
    """While position checks get no answer, a subscribe asks the journal, and is told of its trouble."""
    log = log_of(TOPIC, 5)
    async with open_node(log, limits=NodeLimits(position_check_interval_s=0.5)) as node:
        await node.follow(TOPIC)
        await trio.sleep(10.1)
        node.journal.is_down = True
        await trio.sleep(0.8)
        client = await node.follow(TOPIC, start=at_head(log))
        client.take(Subscribed)
        await trio.sleep(0.3)
        late = await node.follow(TOPIC, start=at_head(log))
        assert late.take(ErrorMessage).code == "unavailable"


async def test_a_storm_keeps_no_look_young(autojump_clock: MockClock) -> None:
    """Answers that come from one look are as old as that look, however many there are."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        node.journal.is_down = True
        for _ in range(30):
            await trio.sleep(0.1)
            client = await node.follow(TOPIC, start=at_head(log))
        assert client.take(ErrorMessage).code == "unavailable"


async def test_a_right_that_was_just_won_is_looked_for(autojump_clock: MockClock) -> None:
    """A transfer to this user since the last check: a denial is never told from an old look."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        log.rights = HeadRights(OTHER_USER, None)
        client = await node.connect(TOPIC, claims=claims_for(TOPIC, user_id=OTHER_USER))
        client.subscribe(TOPIC, start=at_head(log))
        await node.settle()
        client.take(Subscribed)
        assert node.counters.resumes_unread == 0


async def test_a_restored_journal_ends_them_as_everybody(autojump_clock: MockClock) -> None:
    """Another history since the last check: whoever was answered from before it is ended by the next."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        node.journal.restore(log, 3, lineage="lin_restored")
        client = await node.follow(TOPIC, start=at_head(log))
        client.take(Subscribed)
        await trio.sleep(0.6)
        assert client.take(StaleCursor).reason.value == "lineage_mismatch"
