"""Looks at what nodes keep in memory, once a second while a drill lasts, as samples for the checker."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import httpx

from chaos.load.rig_metrics import parse_metrics
from chaos.transcripts import SampleLine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from chaos.drills.split_system import SplitSystem

__all__ = ["MEMORY_BOUNDS", "MemorySampler", "samples_of"]

EVERY_S: Final = 1.0
# SPEC section 6: of one node, however many clients it has.
MEMORY_BOUNDS: Final[Mapping[str, float]] = {
    "khala_node_windows_bytes": 256 * 1024 * 1024,
    "khala_node_pages_bytes": 128 * 1024 * 1024,
}


def samples_of(source: str, text: str, at_s: float) -> list[SampleLine]:
    """Return what a page of metrics says of what is bounded."""
    return [
        SampleLine(source, name, value, at_s)
        for sample, value in parse_metrics(text).items()
        if (name := sample.partition("{")[0]) in MEMORY_BOUNDS
    ]


class MemorySampler:
    """A thread beside the drill; a node that does not answer is looked at again later.

    Attributes:
        samples: Of all nodes, in the order of time.
    """

    def __init__(self, system: SplitSystem) -> None:
        """Look at the nodes of ``system``."""
        self.samples: list[SampleLine] = []
        self._system = system
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; a request under way is waited for."""
        self._is_over.set()
        self._thread.join()

    def look(self) -> None:
        """Take a sample of each node that answers."""
        for name in self._system.node_names:
            try:
                answer = self._system.admin_get(name, "/metrics").raise_for_status()
            except httpx.HTTPError:
                continue
            self.samples += samples_of(name, answer.text, time.time())

    def _run(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self.look()
