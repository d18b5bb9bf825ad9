"""What clients are promised while the broker, or the way to it, is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.drills.drill import Claim, delivery_facts
from chaos.drills.verdict import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.verdict import Deliveries, Verdict

__all__ = ["NORMAL_AGAIN_S", "Episode", "away_claims"]

AWAY_P99_S: Final = 2.0
NORMAL_AGAIN_S: Final = 5.0
COMMITS_SHARE: Final = 0.9
# As quick as before: within this factor, or below what is quick anyway.
NORMAL_FACTOR: Final = 3.0
NORMAL_P99_S: Final = 0.1
ON_ITS_WAY_S: Final = 0.5


@attrs.frozen
class Episode:
    """When a fault began and ended, and what is looked at before and after; Unix times."""

    before_s: float
    begin_s: float
    end_s: float
    after_s: float

    @property
    def away_s(self) -> float:
        """How long it was."""
        return self.end_s - self.begin_s

    @staticmethod
    def quick_enough_s(before: list[float]) -> float:
        """Return what is as quick as it was before."""
        return max(NORMAL_P99_S, NORMAL_FACTOR * percentile(before, 0.99))

    def before(self, deliveries: Deliveries) -> list[float]:
        """Return the latencies before it, of what was not on its way when it began."""
        return deliveries.between(self.before_s, self.begin_s - ON_ITS_WAY_S)

    def during(self, deliveries: Deliveries) -> list[float]:
        """Return the latencies of what was committed while it lasted."""
        return deliveries.between(self.begin_s, self.end_s)

    def after(self, deliveries: Deliveries) -> list[float]:
        """Return the latencies from when all must be normal again."""
        return deliveries.between(self.end_s + NORMAL_AGAIN_S, self.after_s)

    def delivery_rows(self, deliveries: Deliveries) -> list[Mapping[str, Any]]:
        """Return a row for each part."""
        return [
            delivery_facts("before", self.before(deliveries)),
            delivery_facts("while it is away", self.during(deliveries)),
            delivery_facts(f"from {NORMAL_AGAIN_S:g} s after its return", self.after(deliveries)),
        ]


def away_claims(episode: Episode, verdict: Verdict, deliveries: Deliveries) -> list[Claim]:
    """Return the promises of FD-08 for these deliveries: of all clients, or of the ones concerned."""
    before, away, after = (part(deliveries) for part in (episode.before, episode.during, episode.after))
    rate_before = verdict.commits_per_s(episode.before_s, episode.begin_s)
    rate_away = verdict.commits_per_s(episode.begin_s, episode.end_s)
    return [
        Claim("Clients stay connected", f"{verdict.disconnects} disconnects", verdict.disconnects == 0),
        Claim(
            f"While it is away, p99 from commit to client is at most {AWAY_P99_S:g} s",
            f"{percentile(away, 0.99):.2f} s of {len(away):,} deliveries",
            0.0 < percentile(away, 0.99) <= AWAY_P99_S,
        ),
        Claim(
            f"Commits keep {COMMITS_SHARE:g} of their rate",
            f"{rate_away:.0f} per second, before it was {rate_before:.0f}",
            rate_away >= COMMITS_SHARE * rate_before > 0,
        ),
        Claim(
            f"Within {NORMAL_AGAIN_S:g} s of its return, p99 is what it was",
            f"{percentile(after, 0.99) * 1000:.0f} ms, before it was {percentile(before, 0.99) * 1000:.0f} ms",
            0.0 < percentile(after, 0.99) <= episode.quick_enough_s(before),
        ),
    ]
