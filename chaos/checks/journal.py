"""The authority's journal: what everything else is compared with, and is judged itself."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from chaos.checks.positions import check_chain, check_contiguous
from chaos.checks.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.transcripts import Line

__all__ = ["Journal", "by_topic", "check_applied_once", "check_journal"]

_NO_FLOORS: Final[Mapping[str, int]] = MappingProxyType({})


@attrs.define
class Journal:
    """The authority's lines by topic, in its order; what everything else is compared with.

    Attributes:
        topics: At least one line each.
        floors: Oldest retained seq of the topics that no longer begin at 1.
    """

    topics: Mapping[str, Sequence[Line]]
    floors: Mapping[str, int] = _NO_FLOORS
    _by_position: Mapping[tuple[str, int], Line] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """Index the lines; of a position that is there twice, ``check_journal`` complains."""
        self._by_position = {
            (topic, line.seq): line for topic, lines in self.topics.items() for line in lines
        }

    @classmethod
    def of(cls, lines: Iterable[Line], *, floors: Mapping[str, int] = _NO_FLOORS) -> Journal:
        """Group lines by topic, in the order given."""
        return cls(by_topic(lines), floors)

    def floor_seq(self, topic: str) -> int:
        """Return the oldest position that must be there."""
        return self.floors.get(topic, 1)

    def find(self, topic: str, seq: int) -> Line | None:
        """Return the line at a position."""
        return self._by_position.get((topic, seq))


def check_journal(journal: Journal, *, source: str = "journal") -> list[Violation]:
    """Judge the journal by itself: whole, contiguous, and sealed by its chain."""
    violations: list[Violation] = []
    for topic, lines in journal.topics.items():
        first, floor_seq = lines[0].seq, journal.floor_seq(topic)
        if first != floor_seq:
            violations.append(Violation("loss", source, topic, first, f"the floor is {floor_seq}"))
        violations += check_contiguous(topic, (line.seq for line in lines), source)
        violations += check_chain(topic, lines, source)
    return violations


def check_applied_once(journal: Journal, *, kind: str, source: str = "journal") -> list[Violation]:
    """Judge that no payload of a kind is there twice, in any topic.

    For journals whose producers write their key into each payload of the kind: a payload that is there
    twice is then a retry that was applied twice, also if only one of the two was acknowledged.
    """
    violations: list[Violation] = []
    first_places: dict[bytes, Line] = {}
    for topic, lines in journal.topics.items():
        for line in lines:
            if line.kind != kind:
                continue
            first = first_places.setdefault(line.payload_sha256, line)
            if first is not line:
                detail = f"the payload is also at topic={first.topic} seq={first.seq}"
                violations.append(Violation("applied_twice", source, topic, line.seq, detail))
    return violations


def by_topic(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Group lines, in the order given."""
    topics: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        topics[line.topic].append(line)
    return dict(topics)
