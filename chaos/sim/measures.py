"""What is bounded, looked at four times a second: the windows of every node, and what waits for each socket.

Keeps the highest sample of each, for the verdict; the bounds follow from the limits of the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from chaos.transcripts import SampleLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.sim.node_process import NodeProgram
    from khala.core.limits import NodeLimits

__all__ = ["Measures", "bounds_of"]

_EVERY_S: Final = 0.25
# The largest frame of a world with its envelope, and what the WebSocket library and last words may add.
FRAME_MAX_BYTES: Final = 1_500
LAST_WORDS_BYTES: Final = 4 * 1024


def bounds_of(limits: NodeLimits) -> dict[str, float]:
    """Return the bound of each sample's name."""
    return {
        "windows_bytes": limits.windows_max_bytes,
        "connection_bytes": max(limits.chunk_max_bytes, FRAME_MAX_BYTES)
        + limits.control_lane_max_bytes
        + LAST_WORDS_BYTES,
    }


class Measures:
    """The highest samples of one world."""

    def __init__(self, nodes: Mapping[str, NodeProgram]) -> None:
        """Look at these nodes."""
        self._nodes = nodes
        self._highest: dict[tuple[str, str], SampleLine] = {}

    @property
    def samples(self) -> list[SampleLine]:
        """The highest of each."""
        return list(self._highest.values())

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self._look()
            await trio.sleep(_EVERY_S)

    def _look(self) -> None:
        for name, program in self._nodes.items():
            node = program.living
            if node is None:
                continue
            self._take(name, "windows_bytes", node.topics.windows_bytes)
            for connection in node.evictions.watched:
                self._take(name, "connection_bytes", connection.outbound.waiting_bytes)

    def _take(self, source: str, name: str, value: float) -> None:
        known = self._highest.get((source, name))
        if known is None or value > known.value:
            self._highest[source, name] = SampleLine(source, name, value, trio.current_time())
