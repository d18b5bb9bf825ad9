"""Hints: the range of a commit, the head of a topic, two hints as one. Copies: tests/actors/runtime/test_relay.py."""

from __future__ import annotations

import attrs

from khala_contracts.chain import chain_start
from khala_contracts.topics import Lineage
from runtime.core.batch_commit import CommittedTopic
from runtime.core.record_copies import TopicNews, hint_of_commit, hint_of_head, join_hints
from tests.actors.runtime.rig import LINEAGE, topic_of

TOPIC = topic_of(1)
HERE = Lineage(LINEAGE)


def commit(first_seq: int, *chains: bytes) -> CommittedTopic:
    """Return a commit of one event per chain."""
    count = len(chains)
    return CommittedTopic(
        TOPIC, "run_events", first_seq, ["thought"] * count, [b"p"] * count, [1] * count,
        b"".join(chain * 32 for chain in chains), b"0" * 32, 5,
    )  # fmt: skip


def test_hint_of_a_commit() -> None:
    """The range and the chains around it, no entries."""
    hint = hint_of_commit(commit(4, b"a", b"b"), lineage=HERE, seen_at_us=7)
    assert (hint.first_seq, hint.last_seq, hint.entries, hint.committed_at_us) == (4, 5, (), 7)
    assert (hint.chain_before, hint.chain_after) == (b"0" * 32, b"b" * 32)


def test_hint_of_a_head() -> None:
    """A topic from its beginning: true whatever was added last."""
    hint = hint_of_head(TOPIC, lineage=HERE, head_seq=9, head_chain=b"h" * 32, seen_at_us=7)
    assert (hint.first_seq, hint.last_seq, hint.entries) == (1, 9, ())
    assert (hint.chain_before, hint.chain_after) == (chain_start(TOPIC), b"h" * 32)


def test_joining() -> None:
    """The joined hint covers both ranges, whichever came first, and was seen when the first came."""
    earlier = attrs.evolve(
        hint_of_commit(commit(4, b"a"), lineage=HERE, seen_at_us=7), chain_before=b"e" * 32
    )
    later = hint_of_commit(commit(5, b"b", b"c"), lineage=HERE, seen_at_us=8)
    joined = join_hints(earlier, later)
    assert (joined.first_seq, joined.last_seq, joined.committed_at_us) == (4, 6, 7)
    assert (joined.chain_before, joined.chain_after) == (earlier.chain_before, later.chain_after)
    assert join_hints(None, later) == later
    swapped = join_hints(later, earlier)
    assert (swapped.first_seq, swapped.last_seq, swapped.committed_at_us) == (4, 6, 8)
    assert (swapped.chain_before, swapped.chain_after) == (joined.chain_before, joined.chain_after)


def test_shrinking() -> None:
    """Copies become the one range that they cover; what was a hint already grows."""
    news = TopicNews(HERE, 7, 0.0, [commit(4, b"a"), commit(5, b"b")], 2)
    news.shrink()
    assert (news.copies, news.size_bytes) == ([], 0)
    news.copies.append(commit(6, b"c"))
    news.shrink()
    (hint,) = news.records()
    assert (hint.first_seq, hint.last_seq, hint.entries) == (4, 6, ())
    assert list(TopicNews(HERE, 7, 0.0).records()) == []
