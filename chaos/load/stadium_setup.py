"""What the stadium measures, and what comes out of it for one crowd and one number of frames per write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.load.stadium_sides import Run

__all__ = ["Measured", "StadiumSetup"]

# What one measurement sends: about a second at 200,000 deliveries a second.
DELIVERIES: Final = 150_000
WRITES_MIN: Final = 40


@attrs.frozen
class StadiumSetup:
    """What is measured.

    Attributes:
        subscribers: Numbers of subscribers, each a row.
        frames_per_write: Frames of one record, each a row.
        compared_at: At this number of subscribers the second adapter and the peers run as well.
        payload_bytes: Of each frame.
        rounds: Alternating.
        deliveries: Writes times subscribers of one measurement, about.
    """

    subscribers: Sequence[int] = (100, 500, 1_000, 5_000)
    frames_per_write: Sequence[int] = (1, 4, 16)
    compared_at: int = 500
    payload_bytes: int = 200
    rounds: int = 9
    deliveries: int = DELIVERIES

    def writes(self, subscribers: int) -> int:
        """Return how many records one measurement publishes."""
        return max(min(WRITES_MIN, self.deliveries), self.deliveries // subscribers)


@attrs.frozen
class Measured:
    """One row: every side's runs, round by round."""

    subscribers: int
    frames_per_write: int
    writes: int
    runs: Mapping[str, list[Run]]
