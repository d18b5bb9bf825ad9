"""What ``khala load cycles`` does, and what a node holds when nobody is connected."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["Baseline", "CyclesSetup", "Kind"]

Kind = Literal["orderly", "abrupt", "mid_hello", "mid_replay"]


@attrs.frozen
class CyclesSetup:
    """What is done.

    Attributes:
        cycles: After the warm-up.
        warm_up: Cycles before the baseline is taken; what a node remembers of its newest 4,096 subscriptions is full
            by then.
        at_once: Connections at a time.
        runs: Whose events are followed, in turn.
    """

    cycles: int = 50_000
    warm_up: int = 6_000
    at_once: int = 24
    runs: int = 40


@attrs.frozen
class Baseline:
    """What a node holds when nobody is connected; tasks and descriptors without those of database connections."""

    tasks: int
    descriptors: int
    database_connections: int
    rss_bytes: int
    series: frozenset[str]
    crashes: int
