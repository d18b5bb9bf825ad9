"""What ``khala bench nodes`` does, and what comes out of one measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CROWD", "MEMORY", "PAIRS", "NodesSetup", "Part", "Shape"]

# Names of the two shapes, and of the side that all others are compared with.
CROWD: Final = "crowd"
PAIRS: Final = "pairs"
MEMORY: Final = "memory, 1 node"
# So little that it was nothing: no ratio may have a zero below it.
_CPU_LEAST_S: Final = 0.001


@attrs.frozen
class Shape:
    """Who follows what, and what is appended to it in one measurement.

    Attributes:
        name: ``crowd`` or ``pairs``.
        runs: That are appended to.
        followers: Connections that follow each of them.
        requests: To each run.
        events_per_request: One transaction, one record, one write for each follower.
        at_once: Runs that have a request in flight.
    """

    name: str
    runs: int
    followers: int
    requests: int
    events_per_request: int
    at_once: int

    def slice(self, slices: int) -> Shape:
        """Return one of so many equal slices of it."""
        assert self.requests % slices == 0
        return attrs.evolve(self, requests=self.requests // slices)

    @property
    def events(self) -> int:
        """Events appended."""
        return self.runs * self.requests * self.events_per_request

    @property
    def deliveries(self) -> int:
        """Frames times followers."""
        return self.events * self.followers


@attrs.frozen
class NodesSetup:
    """What is measured.

    Attributes:
        crowd: Connections of each side; all of them follow one run.
        crowd_requests: To that run in one measurement, an event each, one in flight.
        runs: Further runs, each followed by two of these connections.
        run_requests: To each of them in one measurement.
        events_per_request: Of those.
        payload_bytes: Of each event.
        rounds: Each a measurement of every side.
        slices: Of a measurement; the sides take turns slice by slice.
        idle_s: For which nothing is appended, for each side, to see what a node costs then.
    """

    crowd: int = 500
    crowd_requests: int = 300
    runs: int = 50
    run_requests: int = 20
    events_per_request: int = 10
    payload_bytes: int = 200
    rounds: int = 3
    slices: int = 5
    idle_s: float = 3.0

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Return the crowd, then the pairs."""
        return (
            Shape(CROWD, 1, self.crowd, self.crowd_requests, 1, at_once=1),
            Shape(PAIRS, self.runs, 2, self.run_requests, self.events_per_request, at_once=16),
        )


@attrs.frozen
class Part:
    """One measurement of one side.

    Attributes:
        deliveries: Frames times followers, each of them counted where it came.
        writes: Times that a node handed bytes of a topic to a connection.
        seconds: From the first append to the last frame.
        node_cpu_s: Of all node processes of the side.
        system_cpu_s: Of the other processes, by name. Where everything is one process, ``up`` is what is not
            the node's.
    """

    deliveries: int
    writes: int
    seconds: float
    node_cpu_s: float
    system_cpu_s: Mapping[str, float]

    @classmethod
    def of(cls, slices: Sequence[Part]) -> Part:
        """Return the measurement that these slices make up."""
        return cls(
            sum(part.deliveries for part in slices),
            sum(part.writes for part in slices),
            sum(part.seconds for part in slices),
            sum(part.node_cpu_s for part in slices),
            {name: sum(part.system_cpu_s[name] for part in slices) for name in slices[0].system_cpu_s},
        )

    @property
    def cpu_s_per_million(self) -> float:
        """CPU seconds of node processes for a million deliveries."""
        return max(self.node_cpu_s, _CPU_LEAST_S) / self.deliveries * 1e6

    @property
    def deliveries_per_s(self) -> float:
        """By the clock on the wall."""
        return self.deliveries / self.seconds
