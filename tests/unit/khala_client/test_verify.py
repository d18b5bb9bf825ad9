from __future__ import annotations

from hashlib import sha256

import attrs
import pytest

from khala_client.core.verify import Broken, Verified, verify_frames
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.frames import ERASED_KIND, Frame
from tests.unit.khala_client.node_model import LogModel, topic_number

TOPIC = topic_number(1)


@pytest.fixture
def log() -> LogModel:
    """Five frames."""
    log = LogModel(TOPIC)
    log.append(5)
    return log


def erase(frame: Frame) -> Frame:
    """Return the tombstone of a frame."""
    erased = Erased(frame.kind, sha256(frame.payload).digest(), frame.schema_version, "asked for")
    return attrs.evolve(frame, kind=ERASED_KIND, payload=encode_erased(erased), schema_version=1)


def test_a_whole_history_holds(log: LogModel) -> None:
    """From the topic's start to the authority's chain."""
    verified = verify_frames(TOPIC, log.frames, expected_chain=log.chains[5])
    assert verified == Verified(seq=5, chain=log.chains[5], frames=5, erased_frames=0)
    assert str(verified) == "verified through seq 5, 5 frames"


def test_a_part_holds_from_a_known_link(log: LogModel) -> None:
    """Any known (seq, chain) is a start."""
    verified = verify_frames(
        TOPIC, log.frames[2:], after_seq=2, chain=log.chains[2], expected_chain=log.chains[5]
    )
    assert isinstance(verified, Verified)


def test_erasure_leaves_the_proof_and_is_counted(log: LogModel) -> None:
    """SPEC section 1.9: verification still passes and says n of m erased."""
    frames = [erase(frame) if frame.seq in {2, 4} else frame for frame in log.frames]
    verified = verify_frames(TOPIC, frames, expected_chain=log.chains[5])
    assert isinstance(verified, Verified)
    assert str(verified) == "verified through seq 5, 5 frames, 2 of 5 erased"


@pytest.mark.parametrize(
    "change",
    [
        {"payload": b"\x0a\x01y"},
        {"kind": "action"},
        {"schema_version": 2},
    ],
)
def test_any_changed_field_breaks_it(log: LogModel, change: dict[str, object]) -> None:
    """Every wire-visible field is sealed."""
    frames = [attrs.evolve(log.frames[2], **change) if frame.seq == 3 else frame for frame in log.frames]  # type: ignore[arg-type]
    assert verify_frames(TOPIC, frames, expected_chain=log.chains[5]) == Broken(
        5, "another chain than the authority's"
    )


def test_holes_repeats_and_strangers_break_it(log: LogModel) -> None:
    """Consecutive frames of one topic only."""
    stranger = attrs.evolve(log.frames[0], topic=topic_number(2))
    assert verify_frames(TOPIC, log.frames[1:]) == Broken(2, "expected seq 1")
    assert verify_frames(TOPIC, [log.frames[0], log.frames[0]]) == Broken(1, "expected seq 2")
    assert verify_frames(TOPIC, [stranger]) == Broken(1, f"belongs to {topic_number(2)}")


def test_a_start_that_nobody_knows_is_refused() -> None:
    """Above 0 the caller must bring the chain."""
    with pytest.raises(ValueError, match="everybody knows"):
        verify_frames(TOPIC, [], after_seq=1)
