"""One judge of what clients hold against what the authority's journal holds.

Reads lines that surviving processes wrote to disk (transcripts.py), so it needs neither a running
system nor the code under judgement: of the product it imports the contracts alone.

What it judges, and the rules that a verdict names:

1. the journal: each topic is exactly 1..N, or floor..N where the floor is told, never derived from
   what happens to remain; its chain follows (``loss, gap, duplicate, order, chain``);
2. each history: one contiguous piece of its topic, equal to the journal line by line; if it claims to
   be complete it ends at the head, if it claims the beginning it begins there (``gap, duplicate,
   order, foreign, content, chain, loss``);
3. each acknowledgement: the event is in the journal at that position, with that payload where it is
   told, no key has two and no position has two keys (``lost_ack, ack_chain, ack_content,
   applied_twice, shared_ack``);
4. where producers write their key into each payload: no payload is there twice, also of those whose
   acknowledgement never arrived (``applied_twice``).

A verdict lists every violation; an empty list means that what was promised was kept. A history that
lies wholly below the floor cannot be compared and is judged by its own chain.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from chaos.transcripts import AckLine, BrokenTranscriptError, Line, read_acks, read_lines
from khala_contracts.chain import chain_next_hashed, chain_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "AckLine",
    "BrokenTranscriptError",
    "Journal",
    "Line",
    "Violation",
    "check_acks",
    "check_applied_once",
    "check_history",
    "check_journal",
    "main",
    "read_acks",
    "read_lines",
]

_NO_FLOORS: Final[Mapping[str, int]] = MappingProxyType({})


@attrs.frozen
class Violation:
    """One promise that was not kept, where."""

    rule: str
    source: str
    topic: str
    seq: int
    detail: str

    def __str__(self) -> str:
        """Return one line for a report."""
        return f"{self.rule}: {self.source}: topic={self.topic} seq={self.seq}: {self.detail}"


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
        return cls(_by_topic(lines), floors)

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
        violations += _check_contiguous(topic, lines, source)
        violations += _check_chain(topic, lines, source)
    return violations


def check_history(
    lines: Sequence[Line],
    journal: Journal,
    *,
    source: str,
    is_complete: bool,
    after_seq: int | None = None,
    topics: Iterable[str] = (),
) -> list[Violation]:
    """Judge what one client holds.

    Args:
        lines: The client's lines, in the order in which it applied them.
        journal: What the authority holds.
        source: Name of the client in the verdict.
        is_complete: Whether the client claims to have reached the head of each of its topics.
        after_seq: Position after which the client claims to hold everything; None: it began anywhere.
        topics: Topics that the client claims to follow, also if it holds nothing of them.
    """
    by_topic: dict[str, list[Line]] = {topic: [] for topic in topics}
    by_topic |= _by_topic(lines)
    violations: list[Violation] = []
    for topic, held in by_topic.items():
        violations += _check_contiguous(topic, held, source)
        violations += _check_equal(topic, held, journal, source)
        first = held[0].seq if held else None
        if after_seq is not None and first not in (after_seq + 1, None):
            violations.append(Violation("loss", source, topic, first or 0, f"began after {after_seq}"))
        truth = journal.topics.get(topic)
        last_seq = held[-1].seq if held else (after_seq or 0)
        if is_complete and truth and last_seq != truth[-1].seq:
            violations.append(Violation("loss", source, topic, last_seq, f"head is {truth[-1].seq}"))
    return violations


def _by_topic(lines: Iterable[Line]) -> dict[str, list[Line]]:
    topics: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        topics[line.topic].append(line)
    return dict(topics)


def _check_contiguous(topic: str, lines: Sequence[Line], source: str) -> list[Violation]:
    violations: list[Violation] = []
    for before, line in pairwise(lines):
        if line.seq == before.seq + 1:
            continue
        if line.seq > before.seq:
            rule, detail = "gap", f"follows {before.seq}"
        elif line.seq == before.seq:
            rule, detail = "duplicate", "applied twice"
        else:
            rule, detail = "order", f"follows {before.seq}"
        violations.append(Violation(rule, source, topic, line.seq, detail))
    return violations


def _check_chain(topic: str, lines: Sequence[Line], source: str) -> list[Violation]:
    # Lines that begin above 1 start from a chain that is not among them.
    previous = chain_start(topic) if lines and lines[0].seq == 1 else None
    violations: list[Violation] = []
    for line in lines:
        if previous is not None and _chain_after(previous, line) != line.chain:
            violations.append(Violation("chain", source, topic, line.seq, "chain does not follow"))
        previous = line.chain
    return violations


def _check_equal(topic: str, held: Sequence[Line], journal: Journal, source: str) -> list[Violation]:
    floor_seq = journal.floor_seq(topic)
    is_known = topic in journal.topics
    violations: list[Violation] = []
    forgotten = [line for line in held if is_known and line.seq < floor_seq]
    if forgotten:
        # Together with the first line that can be compared: the chain proves all before it.
        violations += _check_chain(topic, held[: len(forgotten) + 1], source)
    for line in held:
        truth = journal.find(topic, line.seq)
        if truth is None and is_known and line.seq < floor_seq:
            continue
        if truth is None:
            rule, detail = "foreign", "the journal has no such event"
        elif line.payload_sha256 != truth.payload_sha256 or line.kind != truth.kind:
            rule, detail = "content", "not what the journal holds"
        elif line != truth:
            rule, detail = "chain", "not the journal's chain or schema version"
        else:
            continue
        violations.append(Violation(rule, source, topic, line.seq, detail))
    return violations


def check_acks(acks: Iterable[AckLine], journal: Journal, *, source: str) -> list[Violation]:
    """Judge what producers were promised: durable, and applied once for each key.

    A retry that got the original answer again is no violation. What lies below the floor was durable
    until retention and is not looked for.
    """
    violations: list[Violation] = []
    answers: dict[str, AckLine] = {}
    for ack in acks:
        truth = journal.find(ack.topic, ack.seq)
        if truth is None and (ack.topic not in journal.topics or ack.seq >= journal.floor_seq(ack.topic)):
            violations.append(Violation("lost_ack", source, ack.topic, ack.seq, ack.event_id))
        elif truth is not None and truth.chain != ack.chain:
            violations.append(Violation("ack_chain", source, ack.topic, ack.seq, ack.event_id))
        elif truth is not None and ack.payload_sha256 not in (None, truth.payload_sha256):
            violations.append(Violation("ack_content", source, ack.topic, ack.seq, ack.event_id))
        known = answers.setdefault(ack.key, ack)
        if known != ack:
            detail = f"key also at topic={known.topic} seq={known.seq} as {known.event_id}"
            violations.append(Violation("applied_twice", source, ack.topic, ack.seq, detail))
    taken = Counter((ack.topic, ack.seq) for ack in answers.values())
    for (topic, seq), count in taken.items():
        if count > 1:
            violations.append(Violation("shared_ack", source, topic, seq, f"{count} keys"))
    for event_id, count in Counter(ack.event_id for ack in answers.values()).items():
        if count > 1:
            topic, seq = next((a.topic, a.seq) for a in answers.values() if a.event_id == event_id)
            violations.append(Violation("shared_ack", source, topic, seq, f"{event_id} at {count} positions"))
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


def _chain_after(previous: bytes, line: Line) -> bytes:
    return chain_next_hashed(previous, line.seq, line.schema_version, line.kind, line.payload_sha256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge files; print every violation and a summary; return 1 if there was one, 2 if unreadable."""
    options = _parse(arguments)
    try:
        journal = Journal.of(read_lines(options.journal), floors=dict(options.floor))
        violations = check_journal(journal, source=str(options.journal))
        for path in options.history:
            violations += check_history(
                list(read_lines(path)),
                journal,
                source=str(path),
                is_complete=options.complete,
                after_seq=options.after,
                topics=options.topic,
            )
        for path in options.acks:
            violations += check_acks(read_acks(path), journal, source=str(path))
    except (BrokenTranscriptError, OSError) as exc:
        sys.stderr.write(f"cannot judge: {exc}\n")
        return 2
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    events = sum(len(lines) for lines in journal.topics.values())
    sys.stdout.write(
        f"{len(violations)} violations; {events} events, {len(journal.topics)} topics, "
        f"{len(options.history)} histories, {len(options.acks)} acknowledgement files\n"
    )
    return 1 if violations else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.checker",
        description="Compare what clients hold with the journal; exit 0, 1 (violations) or 2 (unreadable).",
    )
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--history", type=Path, action="append", default=[])
    parser.add_argument("--acks", type=Path, action="append", default=[])
    parser.add_argument("--complete", action="store_true", help="histories must reach the head")
    parser.add_argument("--after", type=int, metavar="SEQ", help="histories must begin right after SEQ")
    parser.add_argument("--topic", action="append", default=[], help="a topic that every history follows")
    parser.add_argument(
        "--floor",
        action="append",
        type=_parse_floor,
        default=[],
        metavar="TOPIC=SEQ",
        help="the oldest retained position of a topic that no longer begins at 1",
    )
    return parser.parse_args(arguments)


def _parse_floor(text: str) -> tuple[str, int]:
    topic, _, seq = text.rpartition("=")
    if not topic:
        raise ValueError
    return topic, int(seq)


if __name__ == "__main__":
    sys.exit(main())
