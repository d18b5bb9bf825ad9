"""Jain's index of fairness, from sums that several nodes can add up. Pure.

    index = (sum of x)^2 / (n * sum of x^2)          R. Jain, D.-M. Chiu, W. Hawe, DEC-TR-301, 1984

It is 1 if all x are equal, and 1/n if one of them has everything.
"""

from __future__ import annotations

__all__ = ["jain_index"]


def jain_index(judged: int, total: float, squares: float) -> float:
    """Return the index, 0..1.

    Args:
        judged: How many were looked at; 0 gives 1, since nobody was wronged.
        total: Sum of what each got of its share.
        squares: Sum of their squares; 0 gives 0: something was due to somebody and nobody got anything.
    """
    if judged <= 0:
        return 1.0
    if squares <= 0:
        return 0.0
    return min(1.0, total * total / (judged * squares))
