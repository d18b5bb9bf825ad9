"""What every JournalReader answers; run on the fake of the actors' tests and on PostgreSQL.

Subclasses give the fixture ``desk``: a reader, and a way to make its journal hold exactly a ``TopicLog``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
import pytest

from khala.core.classification import CursorRow, HeadRights
from khala.core.limits import NodeLimits
from khala.ports import JournalUnavailableError
from khala_contracts.chain import chain_start
from khala_contracts.codec import StaleReason
from tests.topic_log import ORG, OTHER_LINEAGE, OTHER_USER, TopicLog, run_topic

if TYPE_CHECKING:
    from khala.core.pages import Page
    from khala.ports import JournalReader

# Small bounds, so that a few frames reach them. The desk's reader has these.
LIMITS = NodeLimits(page_max_frames=10, page_max_bytes=2_000)
# Payload with which four frames are exactly page_max_bytes.
EXACT = 438
TOPIC, OTHER_TOPIC, ABSENT = run_topic(1), run_topic(2), run_topic(3)


class JournalDesk(Protocol):
    """A journal and the authority behind it."""

    @property
    def reader(self) -> JournalReader:
        """The reader under test, with ``LIMITS``."""

    async def keep(self, log: TopicLog) -> None:
        """Make the journal hold this log: head row and retained rows."""

    async def begin_lineage(self, lineage: str | None) -> None:
        """Make this the current lineage; None: there is none, as before the first start."""

    async def lose_row(self, log: TopicLog, seq: int) -> None:
        """Delete a retained row behind the authority's back."""


def _log(count: int, *, size: int = 1, floor: int = 1) -> TopicLog:
    log = TopicLog(TOPIC)
    if count:
        log.append(count, payload=bytes(size))
    log.floor_seq = floor
    return log


def _assert_page(page: Page, log: TopicLog, after_seq: int, last_seq: int) -> None:
    """The page is exactly these frames of the log, and says what was seen with them."""
    assert (page.after_seq, page.last_seq) == (after_seq, last_seq)
    assert page.blob == b"".join(log.entries[after_seq:last_seq])
    assert page.observation == log.observe()
    if last_seq > after_seq:
        assert page.entries(after_seq, last_seq) == log.entries[after_seq:last_seq]
        assert page.last_chain == log.chains[last_seq]


class JournalSuite:
    """Subclass it and give the fixture ``desk``."""

    # -- observe and read_heads --------------------------------------------------------------------

    async def test_a_topic_as_it_is(self, desk: JournalDesk) -> None:
        """Head, floor, chains, totals, reason and rights are those of the authority."""
        log = _log(9, floor=4)
        log.floor_reason = StaleReason.COMPACTION_BOUNDARY
        log.rights = HeadRights(OTHER_USER, ORG)
        await desk.keep(log)
        (seen,) = await desk.reader.observe([(TOPIC.name, 0)])
        assert seen.observation == log.observe()
        assert await desk.reader.read_heads([TOPIC.name]) == [log.observe()]

    @pytest.mark.parametrize("rights", [HeadRights(None, None), HeadRights(OTHER_USER, None)])
    async def test_rights_may_be_absent(self, desk: JournalDesk, rights: HeadRights) -> None:
        """No owner or no org is None, never an empty text that could equal another."""
        log = attrs.evolve(_log(0), rights=rights)
        await desk.keep(log)
        (seen,) = await desk.reader.read_heads([TOPIC.name])
        assert seen.rights == rights

    @pytest.mark.parametrize("count", [0, 3])
    async def test_everything_or_nothing_is_there(self, desk: JournalDesk, count: int) -> None:
        """A topic without frames, and one of which every frame was pruned."""
        log = _log(count, floor=count + 1)
        await desk.keep(log)
        (seen,) = await desk.reader.observe([(TOPIC.name, count + 1)])
        assert seen.observation == log.observe()
        assert seen.cursor_row is None

    async def test_a_topic_that_does_not_exist(self, desk: JournalDesk) -> None:
        """It looks like an empty one of the current lineage, and says that it does not exist."""
        await desk.begin_lineage(OTHER_LINEAGE)
        (seen,) = await desk.reader.observe([(ABSENT.name, 5)])
        (head,) = await desk.reader.read_heads([ABSENT.name])
        assert seen.cursor_row is None
        for observation in (seen.observation, head):
            assert not observation.exists
            assert (observation.lineage, observation.head_seq, observation.floor_seq) == (OTHER_LINEAGE, 0, 1)
            start = chain_start(ABSENT.name)
            assert (observation.head_chain, observation.floor_chain) == (start, start)
            assert observation.rights == HeadRights(None, None)

    @pytest.mark.parametrize("seq", [1, 3, 4, 5, 9, 10, 2**63 - 1])
    async def test_the_row_at_a_cursor(self, desk: JournalDesk, seq: int) -> None:
        """A retained row comes with its chain and total; a position without a frame has no row.

        Below the floor the row may still be there: core/classification.py never looks at it.
        """
        log = _log(9, floor=4)
        await desk.keep(log)
        (seen,) = await desk.reader.observe([(TOPIC.name, seq)])
        if seq < log.floor_seq:
            assert seen.cursor_row in {None, CursorRow(log.chains[seq], log.bytes_totals[seq])}
        else:
            assert seen.cursor_row == log.row(seq)

    @pytest.mark.parametrize("seq", [0, -1])
    async def test_no_row_before_the_first(self, desk: JournalDesk, seq: int) -> None:
        """A seq of 0 or below has no row."""
        await desk.keep(_log(3))
        (seen,) = await desk.reader.observe([(TOPIC.name, seq)])
        assert seen.cursor_row is None

    async def test_answers_keep_the_order_of_the_questions(self, desk: JournalDesk) -> None:
        """Each question has one answer, in its place; a topic may be asked about twice."""
        log, other = _log(5), TopicLog(OTHER_TOPIC)
        other.append(2)
        await desk.keep(log)
        await desk.keep(other)
        asked = [(OTHER_TOPIC.name, 1), (TOPIC.name, 2), (ABSENT.name, 0), (TOPIC.name, 5)]
        seen = await desk.reader.observe(asked)
        assert [one.observation.topic for one in seen] == [topic for topic, _ in asked]
        assert [one.cursor_row for one in seen] == [other.row(1), log.row(2), None, log.row(5)]
        heads = await desk.reader.read_heads([TOPIC.name, ABSENT.name, OTHER_TOPIC.name])
        assert [head.head_seq for head in heads] == [5, 0, 2]
        assert await desk.reader.observe([]) == []
        assert await desk.reader.read_heads([]) == []

    async def test_what_was_known_changes_no_answer(self, desk: JournalDesk) -> None:
        """Heads are what they are, whatever was known of them: nothing, the same, or something old."""
        log, other = _log(5), TopicLog(OTHER_TOPIC)
        other.append(2)
        await desk.keep(log)
        await desk.keep(other)
        asked = [TOPIC.name, ABSENT.name, OTHER_TOPIC.name]
        fresh = await desk.reader.read_heads(asked)
        assert await desk.reader.read_heads(asked, fresh) == fresh
        old = [attrs.evolve(head, head_seq=1, rights=HeadRights("usr_0", None)) for head in fresh]
        assert await desk.reader.read_heads(asked, old) == fresh
        assert await desk.reader.read_heads(asked, [None, old[1], fresh[2]]) == fresh

    async def test_another_lineage(self, desk: JournalDesk) -> None:
        """What is said is the current lineage."""
        await desk.begin_lineage(OTHER_LINEAGE)
        log = _log(3)
        log.lineage = OTHER_LINEAGE
        await desk.keep(log)
        (seen,) = await desk.reader.observe([(TOPIC.name, 1)])
        assert seen.observation.lineage == OTHER_LINEAGE

    async def test_without_a_lineage_nothing_is_judged(self, desk: JournalDesk) -> None:
        """Before the first start, or during a restore: unavailable, never an answer."""
        await desk.keep(_log(3))
        await desk.begin_lineage(None)
        with pytest.raises(JournalUnavailableError):
            await desk.reader.observe([(TOPIC.name, 1)])
        with pytest.raises(JournalUnavailableError):
            await desk.reader.read_heads([TOPIC.name])
        with pytest.raises(JournalUnavailableError):
            await desk.reader.read_page(TOPIC.name, 0)

    # -- pages ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("after", "last"), [(0, 10), (1, 11), (4, 12), (11, 12), (12, 12)])
    async def test_bound_in_frames(self, desk: JournalDesk, after: int, last: int) -> None:
        """A page has at most page_max_frames, and ends at the head."""
        log = _log(12)
        await desk.keep(log)
        _assert_page(await desk.reader.read_page(TOPIC.name, after), log, after, last)

    @pytest.mark.parametrize(
        ("size", "frames"), [(100, 10), (400, 4), (EXACT, 4), (EXACT + 1, 3), (3_000, 1)]
    )
    async def test_bound_in_bytes(self, desk: JournalDesk, size: int, frames: int) -> None:
        """A page has at most page_max_bytes, but at least one frame, however large."""
        log = _log(12, size=size)
        fitting = max(1, min(10, LIMITS.page_max_bytes // len(log.entries[0])))
        assert fitting == frames
        await desk.keep(log)
        for after in (0, 1):
            _assert_page(await desk.reader.read_page(TOPIC.name, after), log, after, after + frames)

    @pytest.mark.parametrize(
        ("after", "last"), [(0, 0), (2, 2), (3, 9), (4, 9), (8, 9), (9, 9), (10, 10), (10**12, 10**12)]
    )
    async def test_a_page_at_the_floor_and_the_head(self, desk: JournalDesk, after: int, last: int) -> None:
        """Retained from 4 on, head 9: a page starts at after + 1 or is empty; it never skips."""
        log = _log(9, floor=4)
        await desk.keep(log)
        _assert_page(await desk.reader.read_page(TOPIC.name, after), log, after, last)

    async def test_a_page_of_a_topic_that_does_not_exist(self, desk: JournalDesk) -> None:
        """It is empty and says so."""
        page = await desk.reader.read_page(ABSENT.name, 0)
        assert page.last_seq == 0
        assert not page.observation.exists

    async def test_pages_join_to_the_whole(self, desk: JournalDesk) -> None:
        """Reading on after each page's end gives every retained frame once."""
        log = _log(37, size=150, floor=5)
        await desk.keep(log)
        position, blobs = 4, []
        while (page := await desk.reader.read_page(TOPIC.name, position)).last_seq > position:
            blobs.append(page.blob)
            position = page.last_seq
        assert b"".join(blobs) == b"".join(log.entries[4:])

    @pytest.mark.parametrize(("lost", "after"), [(5, 4), (6, 4), (9, 8)])
    async def test_a_hole_is_trouble(self, desk: JournalDesk, lost: int, after: int) -> None:
        """INV-5: a retained row is missing, first or later: unavailable, never a gap or a stale cursor."""
        log = _log(9)
        await desk.keep(log)
        await desk.lose_row(log, lost)
        with pytest.raises(JournalUnavailableError):
            await desk.reader.read_page(TOPIC.name, after)
