"""What a client holds, against the journal and against what it may read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs

from chaos.checks.journal import by_topic
from chaos.checks.positions import check_chain, check_contiguous
from chaos.checks.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.checks.journal import Journal
    from chaos.transcripts import Line, Right

__all__ = ["History", "check_history", "check_rights"]

# SPEC section 5: what was revoked reaches nobody after this, if it was pushed.
REVOKED_LEEWAY_S: Final = 1.0


@attrs.frozen(kw_only=True)
class History:
    """What one client holds, and what it claims.

    Attributes:
        source: The client's name in the verdict.
        lines: In the order in which it applied them.
        is_complete: It claims to have reached the head of each of its topics.
        after_seq: Position after which it claims to hold everything; None: it began anywhere.
        topics: What it claims to follow, also if it holds nothing of it.
    """

    source: str
    lines: Sequence[Line]
    is_complete: bool = True
    after_seq: int | None = 0
    topics: Iterable[str] = ()


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
    held_of: dict[str, list[Line]] = {topic: [] for topic in topics}
    held_of |= by_topic(lines)
    violations: list[Violation] = []
    for topic, held in held_of.items():
        violations += check_contiguous(topic, (line.seq for line in held), source)
        violations += _check_equal(topic, held, journal, source)
        first = held[0].seq if held else None
        if after_seq is not None and first not in (after_seq + 1, None):
            violations.append(Violation("loss", source, topic, first or 0, f"began after {after_seq}"))
        truth = journal.topics.get(topic)
        last_seq = held[-1].seq if held else (after_seq or 0)
        if is_complete and truth and last_seq != truth[-1].seq:
            violations.append(Violation("loss", source, topic, last_seq, f"head is {truth[-1].seq}"))
    return violations


def check_rights(
    lines: Iterable[Line], rights: Iterable[Right], *, source: str, leeway_s: float = REVOKED_LEEWAY_S
) -> list[Violation]:
    """Judge that a client got nothing that it might not read, whether or not it is true.

    A line that tells when it arrived must lie within a right; one that does not must have had one ever.

    Args:
        lines: The client's.
        rights: Of any clients; those of others are no concern.
        source: The client.
        leeway_s: For how long after its end a right may still be served.
    """
    own: dict[str, list[Right]] = {}
    for right in rights:
        if right.client == source:
            own.setdefault(right.topic, []).append(right)
    violations: list[Violation] = []
    for line in lines:
        granted = own.get(line.topic, [])
        at_s = line.at_s
        if at_s is None:
            is_allowed = bool(granted)
        else:
            is_allowed = any(
                right.from_s <= at_s <= (math.inf if right.until_s is None else right.until_s + leeway_s)
                for right in granted
            )
        if not is_allowed:
            detail = "never granted" if not granted else f"not granted at {at_s}"
            violations.append(Violation("unauthorised", source, line.topic, line.seq, detail))
    return violations


def _check_equal(topic: str, held: Sequence[Line], journal: Journal, source: str) -> list[Violation]:
    floor_seq = journal.floor_seq(topic)
    is_known = topic in journal.topics
    violations: list[Violation] = []
    forgotten = [line for line in held if is_known and line.seq < floor_seq]
    if forgotten:
        # Together with the first line that can be compared: the chain proves all before it.
        violations += check_chain(topic, held[: len(forgotten) + 1], source)
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
