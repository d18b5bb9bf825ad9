"""What lines say by themselves: positions that ascend by one, and a chain that follows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from chaos.checks.violations import Violation
from khala_contracts.chain import chain_next_hashed, chain_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.transcripts import Line

__all__ = ["check_chain", "check_contiguous", "check_positions"]


def check_contiguous(topic: str, seqs: Iterable[int], source: str) -> list[Violation]:
    """Judge that positions ascend by one, wherever they begin."""
    violations: list[Violation] = []
    for before, seq in pairwise(seqs):
        if seq == before + 1:
            continue
        if seq > before:
            rule, detail = "gap", f"follows {before}"
        elif seq == before:
            rule, detail = "duplicate", "applied twice"
        else:
            rule, detail = "order", f"follows {before}"
        violations.append(Violation(rule, source, topic, seq, detail))
    return violations


def check_positions(
    topic: str, seqs: Sequence[int], *, source: str, after_seq: int | None = 0, head_seq: int | None = None
) -> list[Violation]:
    """Judge bare positions of one topic, where nothing else of the events was kept.

    Args:
        topic: Its name.
        seqs: In the order in which they were applied.
        source: Whose they are.
        after_seq: Position after which all of them must be there; None: they begin anywhere.
        head_seq: Where they must end; None: anywhere.
    """
    violations = check_contiguous(topic, seqs, source)
    first = seqs[0] if seqs else None
    if after_seq is not None and first not in (after_seq + 1, None):
        rule = "loss" if first > after_seq else "order"
        violations.append(Violation(rule, source, topic, first, f"began after {after_seq}"))
    last_seq = seqs[-1] if seqs else (after_seq or 0)
    if head_seq is not None and last_seq != head_seq:
        rule = "loss" if last_seq < head_seq else "foreign"
        violations.append(Violation(rule, source, topic, last_seq, f"head is {head_seq}"))
    return violations


def check_chain(topic: str, lines: Sequence[Line], source: str) -> list[Violation]:
    """Judge that each line's chain follows from the one before."""
    # Lines that begin above 1 start from a chain that is not among them.
    previous = chain_start(topic) if lines and lines[0].seq == 1 else None
    violations: list[Violation] = []
    for line in lines:
        if previous is not None and _chain_after(previous, line) != line.chain:
            violations.append(Violation("chain", source, topic, line.seq, "chain does not follow"))
        previous = line.chain
    return violations


def _chain_after(previous: bytes, line: Line) -> bytes:
    return chain_next_hashed(previous, line.seq, line.schema_version, line.kind, line.payload_sha256)
