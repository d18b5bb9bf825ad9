"""Bare positions, where nothing else of the events was kept."""

from __future__ import annotations

import pytest

from chaos.checker import check_positions


@pytest.mark.parametrize(
    ("seqs", "after_seq", "head_seq"),
    [
        ([1, 2, 3], 0, 3),
        ([1, 2, 3], 0, None),
        ([7, 8], 6, 8),
        ([7, 8], None, 8),
        ([], 5, 5),
        ([], None, None),
    ],
)
def test_one_piece_up_to_the_head(seqs: list[int], after_seq: int | None, head_seq: int | None) -> None:
    """From the beginning, from a cursor, from anywhere; nothing where nothing was to come."""
    assert check_positions("t", seqs, source="s", after_seq=after_seq, head_seq=head_seq) == []


@pytest.mark.parametrize(
    ("seqs", "after_seq", "head_seq", "rule"),
    [
        ([1, 3], 0, 3, "gap"),
        ([1, 1], 0, 1, "duplicate"),
        ([1, 2, 1], 0, None, "order"),
        ([2, 3], 0, 3, "loss"),
        ([6, 7], 6, 7, "order"),
        ([1, 2], 0, 3, "loss"),
        ([], 0, 1, "loss"),
        ([1, 2, 3], 0, 2, "foreign"),
    ],
)
def test_everything_else_is_named(
    seqs: list[int], after_seq: int | None, head_seq: int | None, rule: str
) -> None:
    """A hole, a repeat, a step back, a lost beginning or end, and what lies above the head."""
    found = check_positions("t", seqs, source="s", after_seq=after_seq, head_seq=head_seq)
    assert [violation.rule for violation in found] == [rule]
