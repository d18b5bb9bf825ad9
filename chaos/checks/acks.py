"""What producers were promised, against the journal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chaos.checks.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.checks.journal import Journal
    from chaos.transcripts import AckLine

__all__ = ["check_acks"]


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
