"""Times from commit to client over a drill, as a plot with its faults shaded."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from chaos.drills.verdict import percentile
from chaos.load.svg_plots import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.drills.verdict import Deliveries

__all__ = ["latency_plot"]

BIN_S: Final = 0.5


def latency_plot(
    deliveries: Deliveries,
    *,
    began_at_s: float,
    spans: Sequence[tuple[str, float, float]],
    title: str = "From commit to client, by time of commit",
) -> Lines:
    """Return median, p99 and maximum of each half second; ``spans`` have labels and Unix times."""
    bins: dict[int, list[float]] = defaultdict(list)
    for committed_at_s, latency_s in zip(deliveries.committed_at_s, deliveries.latencies_s, strict=True):
        bins[int((committed_at_s - began_at_s) / BIN_S)].append(latency_s)
    shares = (("median", 0.5), ("p99", 0.99), ("slowest", 1.0))
    return Lines(
        title,
        "seconds since the load began",
        "seconds",
        [
            (name, [(place * BIN_S, percentile(bins[place], share)) for place in sorted(bins)])
            for name, share in shares
        ],
        spans=[(label, begin_s - began_at_s, end_s - began_at_s) for label, begin_s, end_s in spans],
    )
