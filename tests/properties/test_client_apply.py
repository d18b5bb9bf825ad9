"""The apply rule under any order of frames: state equals the in-order fold, counts are exact (KH-24)."""

from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from khala_client.core.apply import Applied, ApplyRule, Duplicate, Gap
from khala_contracts.chain import chain_after, chain_start
from khala_contracts.frames import Frame
from tests.unit.khala_client.node_model import topic_number

TOPIC = topic_number(1)
payloads = st.lists(st.binary(max_size=8), min_size=1, max_size=12)


def frames_of(bodies: list[bytes]) -> list[Frame]:
    """Return a topic's frames with these payloads."""
    return [Frame(TOPIC, seq, "thought", body, 1) for seq, body in enumerate(bodies, start=1)]


@settings(deadline=None)
@given(payloads, st.lists(st.integers(0, 40), max_size=80))
def test_whatever_arrives_the_applied_frames_are_a_prefix(bodies: list[bytes], arrivals: list[int]) -> None:
    """INV-A1..A3: contiguous from the start, sealed by the topic's chain, and every frame counted once."""
    frames = frames_of(bodies)
    rule = ApplyRule(TOPIC, seq=0, chain=chain_start(TOPIC))
    applied: list[Frame] = []
    duplicates = gaps = 0
    for index in arrivals:
        frame = frames[index % len(frames)]
        match rule.offer(frame):
            case Applied(taken, chain):
                applied.append(taken)
                assert chain == reduce(chain_after, applied, chain_start(TOPIC))
            case Duplicate(seq):
                duplicates += 1
                assert seq <= len(applied)
            case Gap(expected_seq, seq):
                gaps += 1
                assert expected_seq == len(applied) + 1 < seq
    assert applied == frames[: len(applied)]
    assert (rule.seq, rule.chain) == (len(applied), reduce(chain_after, applied, chain_start(TOPIC)))
    assert (rule.counts.applied, rule.counts.duplicates, rule.counts.gaps) == (len(applied), duplicates, gaps)
    assert len(applied) + duplicates + gaps == len(arrivals)


@settings(deadline=None)
@given(payloads, st.randoms(use_true_random=False))
def test_resuming_after_every_gap_ends_with_the_fold(bodies: list[bytes], rng: object) -> None:
    """Shuffled and repeated deliveries, resumed after the cursor: the end state is the in-order fold."""
    frames = frames_of(bodies)
    rule = ApplyRule(TOPIC, seq=0, chain=chain_start(TOPIC))
    applied: list[bytes] = []
    for _ in range(len(frames)):
        arriving = frames * 2
        rng.shuffle(arriving)  # type: ignore[attr-defined]
        # What a resume brings: everything after the cursor, the next frame among it.
        judgements = [rule.offer(frame) for frame in (*arriving, *frames[rule.seq : rule.seq + 1])]
        applied += [judged.frame.payload for judged in judgements if isinstance(judged, Applied)]
    assert applied == bodies
