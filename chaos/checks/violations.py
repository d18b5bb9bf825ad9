"""What a verdict is made of."""

from __future__ import annotations

import attrs

__all__ = ["Violation"]


@attrs.frozen
class Violation:
    """One promise that was not kept, where; topic and seq are empty where they say nothing."""

    rule: str
    source: str
    topic: str
    seq: int
    detail: str

    def __str__(self) -> str:
        """Return one line for a report."""
        return f"{self.rule}: {self.source}: topic={self.topic} seq={self.seq}: {self.detail}"
