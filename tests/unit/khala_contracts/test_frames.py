"""Invariants of a frame, at their bounds and one beyond."""

import attrs
import pytest

from khala_contracts.frames import KIND_MAX_BYTES, SCHEMA_VERSION_MAX, SEQ_MAX, Frame
from khala_contracts.topics import TopicName

TOPIC = TopicName("run:x:events")
FRAME = Frame(TOPIC, 1, "thought", b"secret", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": SEQ_MAX},
        {"schema_version": SCHEMA_VERSION_MAX},
        {"kind": "k" * KIND_MAX_BYTES},
        {"kind": "é" * (KIND_MAX_BYTES // 2)},
        {"payload": b""},
        {"kind": "no.such_kind"},
    ],
)
def test_bounds_are_inclusive(change: dict[str, object]) -> None:
    """A frame at a bound exists; an unknown kind is fine."""
    assert attrs.evolve(FRAME, **change) != FRAME  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seq": 0}, "seq"),
        ({"seq": -1}, "seq"),
        ({"seq": SEQ_MAX + 1}, "seq"),
        ({"schema_version": 0}, "schema_version"),
        ({"schema_version": SCHEMA_VERSION_MAX + 1}, "schema_version"),
        ({"topic": ""}, "topic"),
        ({"kind": ""}, "kind"),
        ({"kind": "k" * (KIND_MAX_BYTES + 1)}, "kind"),
        ({"kind": "é" * (KIND_MAX_BYTES // 2) + "k"}, "kind"),
    ],
)
def test_one_beyond_a_bound_is_refused(change: dict[str, object], problem: str) -> None:
    """The message names the field."""
    with pytest.raises(ValueError, match=problem):
        attrs.evolve(FRAME, **change)  # type: ignore[arg-type]


def test_a_frame_is_printed_without_its_payload() -> None:
    """Logs carry identifiers, never payloads."""
    assert "secret" not in repr(FRAME)
