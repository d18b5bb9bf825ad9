"""One judge of what clients hold against what the authority's journal holds.

Reads lines that surviving processes wrote to disk, so it needs neither a running system nor the
code under judgement: of the product it imports the contracts alone. Each file has one JSON object
a line, 64-bit integers as strings:

    journal, histories   {"topic", "seq", "kind", "schema_version", "payload_sha256", "chain"}
    acknowledgements     {"key", "event_id", "topic", "seq", "chain"}

What it judges:

1. the journal: each topic is exactly 1..N (or floor..N) and its chain follows;
2. each history: one contiguous piece of its topic, equal to the journal line by line, ending at
   the head if it claims to be complete;
3. each acknowledgement: the event is in the journal at that position, and no key has two.

A verdict lists every violation; an empty list means that what was promised was kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from khala_contracts.chain import chain_next_hashed, chain_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


@attrs.frozen
class Line:
    """One position of one topic, as the journal or a client holds it."""

    topic: str
    seq: int
    kind: str
    schema_version: int
    payload_sha256: bytes
    chain: bytes


@attrs.frozen
class AckLine:
    """One append that a producer was told is durable."""

    key: str
    event_id: str
    topic: str
    seq: int
    chain: bytes


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


class BrokenTranscriptError(Exception):
    """A file cannot be judged because it is not what it should be."""


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a journal or history file.

    Raises:
        BrokenTranscriptError: Names the file and the line.
    """
    for number, record in _read_json(path):
        try:
            yield Line(
                topic=record["topic"],
                seq=int(record["seq"]),
                kind=record["kind"],
                schema_version=int(record["schema_version"]),
                payload_sha256=bytes.fromhex(record["payload_sha256"]),
                chain=bytes.fromhex(record["chain"]),
            )
        except (KeyError, ValueError, TypeError) as exc:
            msg = f"{path}:{number}: {exc!r}"
            raise BrokenTranscriptError(msg) from exc


def read_acks(path: Path) -> Iterator[AckLine]:
    """Yield the lines of an acknowledgement file. Raises as ``read_lines``."""
    for number, record in _read_json(path):
        try:
            yield AckLine(
                key=record["key"],
                event_id=record["event_id"],
                topic=record["topic"],
                seq=int(record["seq"]),
                chain=bytes.fromhex(record["chain"]),
            )
        except (KeyError, ValueError, TypeError) as exc:
            msg = f"{path}:{number}: {exc!r}"
            raise BrokenTranscriptError(msg) from exc


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                record = json.loads(text)
            except ValueError as exc:
                msg = f"{path}:{number}: not JSON"
                raise BrokenTranscriptError(msg) from exc
            if not isinstance(record, dict):
                msg = f"{path}:{number}: not an object"
                raise BrokenTranscriptError(msg)
            yield number, record


@attrs.define
class Journal:
    """The authority's lines by topic, ascending; what everything else is compared with."""

    topics: Mapping[str, Sequence[Line]]

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Journal:
        """Group lines by topic, in the order given."""
        topics: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            topics[line.topic].append(line)
        return cls(dict(topics))

    def find(self, topic: str, seq: int) -> Line | None:
        """Return the line at a position."""
        lines = self.topics.get(topic)
        if not lines:
            return None
        index = seq - lines[0].seq
        return lines[index] if 0 <= index < len(lines) else None


def check_journal(journal: Journal, *, source: str = "journal") -> list[Violation]:
    """Judge the journal by itself: contiguous, and sealed by its chain."""
    violations: list[Violation] = []
    for topic, lines in journal.topics.items():
        violations += _check_contiguous(topic, lines, source)
        # A journal whose oldest rows are gone starts from a chain that only it knows.
        previous = chain_start(topic) if lines[0].seq == 1 else None
        for line in lines:
            if previous is not None and _chain_after(previous, line) != line.chain:
                violations.append(Violation("chain", source, topic, line.seq, "chain does not follow"))
            previous = line.chain
    return violations


def check_history(
    lines: Sequence[Line], journal: Journal, *, source: str, is_complete: bool
) -> list[Violation]:
    """Judge what one client holds.

    Args:
        lines: The client's lines, in the order in which it applied them.
        journal: What the authority holds.
        source: Name of the client in the verdict.
        is_complete: Whether the client claims to have reached the head of each of its topics.
    """
    by_topic: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_topic[line.topic].append(line)
    violations: list[Violation] = []
    for topic, held in by_topic.items():
        violations += _check_contiguous(topic, held, source)
        violations += _check_equal(topic, held, journal, source)
        truth = journal.topics.get(topic)
        if is_complete and truth and held[-1].seq != truth[-1].seq:
            violations.append(Violation("loss", source, topic, held[-1].seq, f"head is {truth[-1].seq}"))
    return violations


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


def _check_equal(topic: str, held: Sequence[Line], journal: Journal, source: str) -> list[Violation]:
    violations: list[Violation] = []
    for line in held:
        truth = journal.find(topic, line.seq)
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
    """Judge what producers were promised: durable, and applied once for each key."""
    violations: list[Violation] = []
    positions: dict[str, tuple[str, int]] = {}
    for ack in acks:
        truth = journal.find(ack.topic, ack.seq)
        if truth is None:
            violations.append(Violation("lost_ack", source, ack.topic, ack.seq, ack.event_id))
        elif truth.chain != ack.chain:
            violations.append(Violation("ack_chain", source, ack.topic, ack.seq, ack.event_id))
        known = positions.setdefault(ack.key, (ack.topic, ack.seq))
        if known != (ack.topic, ack.seq):
            violations.append(
                Violation("applied_twice", source, ack.topic, ack.seq, f"key also at {known[1]}")
            )
    taken = Counter(positions.values())
    for (topic, seq), count in taken.items():
        if count > 1:
            violations.append(Violation("shared_ack", source, topic, seq, f"{count} keys"))
    return violations


def _chain_after(previous: bytes, line: Line) -> bytes:
    return chain_next_hashed(previous, line.seq, line.schema_version, line.kind, line.payload_sha256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge files; print every violation and a summary; return 1 if there was one, 2 if unreadable."""
    parser = argparse.ArgumentParser(prog="python -m chaos.checker", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--history", type=Path, action="append", default=[])
    parser.add_argument("--acks", type=Path, action="append", default=[])
    parser.add_argument("--complete", action="store_true", help="histories must reach the head")
    options = parser.parse_args(arguments)
    try:
        journal = Journal.of(read_lines(options.journal))
        violations = check_journal(journal, source=str(options.journal))
        for path in options.history:
            held = list(read_lines(path))
            violations += check_history(held, journal, source=str(path), is_complete=options.complete)
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


if __name__ == "__main__":
    sys.exit(main())
