"""Figures of alternating pairs: median and range, and the ratio pair by pair.

Machines drift by 30 % within a minute, so a figure says little alone; the ratio of two runs that
followed each other says much. The environment is stated with every report.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class Spread:
    """Median and range of repeated measurements."""

    median: float
    minimum: float
    maximum: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def as_json(self) -> dict[str, float]:
        """Return a JSON object, four significant digits."""
        return {
            "median": _short(self.median),
            "min": _short(self.minimum),
            "max": _short(self.maximum),
            "count": self.count,
        }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def describe_environment() -> dict[str, str | int | float]:
    """Return what a reader needs to compare figures; call it before the first measurement."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 0,
        # What else was running. Alternating pairs bear it, absolute figures do not.
        "load_1m_before": round(os.getloadavg()[0], 2),
    }
