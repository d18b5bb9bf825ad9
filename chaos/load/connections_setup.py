"""What ``khala bench connections`` does, and the figures that it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Batch", "ConnectionsResult", "ConnectionsSetup", "Held"]


@attrs.frozen
class ConnectionsSetup:
    """What is done.

    Attributes:
        connections: Held at once, beside those of the warm-up.
        batches: In which they connect; each gives a figure of CPU time.
        paced_batches: Batches of the same size at the default admission.
        runs: Whose events they follow, in turn.
        warm_up: Connections that come first and leave, so that memory for the first of anything is not counted.
        settle_s: Idle time before memory is read.
    """

    connections: int = 5_000
    batches: int = 10
    paced_batches: int = 3
    runs: int = 50
    warm_up: int = 50
    settle_s: float = 10.0

    @property
    def batch_size(self) -> int:
        """Connections of one batch."""
        return self.connections // self.batches


@attrs.frozen
class Batch:
    """Connections that came together."""

    connections: int
    cpu_s: float
    wall_s: float

    @property
    def per_cpu_s(self) -> float:
        """Connections for one CPU second of the node."""
        # The clock of the scheduler has ticks of 10 ms; less than one is one.
        return self.connections / max(self.cpu_s, 0.01)


@attrs.frozen
class Held:
    """Memory of the node while all are idle, above what it was before.

    Attributes:
        kernel_bytes: Buffers of all TCP sockets of the machine, both ends.
        slab_bytes: What the kernel made of objects meanwhile, for whatever reason: sockets, files, polls, both ends.
        idle_cores: CPU of the node meanwhile.
        rss_before_bytes: Of the node without any connection.
    """

    connections: int
    private_bytes: int
    pss_bytes: int
    rss_bytes: int
    rss_before_bytes: int
    kernel_bytes: int
    slab_bytes: int
    idle_cores: float


@attrs.frozen
class ConnectionsResult:
    """What was found."""

    storm: Sequence[Batch]
    paced: Sequence[Batch]
    held: Held
    proved: int
