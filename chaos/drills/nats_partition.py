"""Drill ``nats-partition``: one node is cut off from NATS alone, both ways and one way (FD-03, KH-10).

The fault proxy between node-1 and NATS lets nothing through: in both directions, then from NATS to the
node alone, then the other way; the rest of the network is whole. A cut connection stays open, so only
silence tells. Clients of that node stay connected and contiguous and wait at most 2 s (p99); those of
node-2 notice nothing; 5 s after each cut all is as it was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from chaos.drills.broker_claims import NORMAL_AGAIN_S, Episode, away_claims
from chaos.drills.broker_loss import BROKER_SYSTEM, EVENTS_PER_S
from chaos.drills.drill import Claim, Outcome, claims_of
from chaos.drills.plots import latency_plot
from chaos.drills.stage import StageSetup
from chaos.drills.verdict import percentile
from chaos.faults.fault import HEALTHY, Counters, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage
    from chaos.drills.verdict import Verdict
    from chaos.faults.fault import Direction

__all__ = ["run_nats_partition_drill"]

LINK: Final = "node-1.nats"
CUT_FOLLOWER: Final = "follower-node-1"
# Down: the node hears nothing. Up: NATS does not hear the node's signs of life, which come every 5 s.
LEGS: Final[tuple[Direction, ...]] = ("both", "down", "up")
QUICK_LEGS: Final[tuple[Direction, ...]] = ("both", "down")
CUT_S: Final = 20.0
QUICK_CUT_S: Final = 5.0
BESIDE_S: Final = 10.0
QUICK_BESIDE_S: Final = 2.0
_WORDS: Final = {"both": "both ways", "down": "from NATS to the node", "up": "from the node to NATS"}


def run_nats_partition_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    cut_s = QUICK_CUT_S if options.is_quick else CUT_S
    beside_s = QUICK_BESIDE_S if options.is_quick else BESIDE_S
    episodes: dict[Direction, Episode] = {}
    passed: dict[Direction, int] = {}
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), BROKER_SYSTEM) as stage:
        for direction in QUICK_LEGS if options.is_quick else LEGS:
            since_s = time.time()
            stage.watch(since_s + (beside_s if options.has_faults else 0.0))
            options.progress(f"node-1 is cut off from NATS, {_WORDS[direction]}, for {cut_s:g} s")
            begin_s = time.time()
            passed[direction] = _cut(stage, direction, begin_s + cut_s, options)
            end_s = time.time()
            stage.watch(end_s + NORMAL_AGAIN_S + beside_s)
            episodes[direction] = Episode(since_s, begin_s, end_s, time.time())
        verdict = stage.finish()
    claims = claims_of(verdict, offered_per_s=EVENTS_PER_S)
    tables: dict[str, list[Mapping[str, Any]]] = {"Clients": verdict.clients}
    for direction, episode in episodes.items():
        claims += _claims_of_leg(direction, episode, passed[direction], verdict)
        rows = episode.delivery_rows(verdict.deliveries_of[CUT_FOLLOWER])
        tables[f"Deliveries of node-1, cut off {_WORDS[direction]}"] = rows
    plots = tuple(
        latency_plot(
            deliveries,
            began_at_s=stage.began_at_s,
            spans=[(f"cut {way}", one.begin_s, one.end_s) for way, one in episodes.items()],
            title=f"From commit to client: {name}",
        )
        for name, deliveries in verdict.deliveries_of.items()
    )
    return Outcome(claims, tables, verdict.violations, plots)


def _cut(stage: Stage, direction: Direction, until_s: float, options: DrillOptions) -> int:
    """Cut the link until a time; return how many bytes passed in a cut direction."""
    proxy = stage.system.proxy
    before = proxy.counters(LINK)
    fault = Fault(is_cut=True) if options.has_faults else HEALTHY
    with proxy.holding(LINK, fault, direction=direction):
        # What was being written when the cut began.
        begun = proxy.counters(LINK)
        options.prove(
            f"something waits for the way {_WORDS[direction]}",
            lambda: _waits(proxy.counters(LINK), direction) > _waits(before, direction),
        )
        stage.watch(until_s)
        ended = proxy.counters(LINK)
    ways = ("up", "down") if direction == "both" else (direction,)
    return sum(ended.passed_bytes[way] - begun.passed_bytes[way] for way in ways)


def _waits(counters: Counters, direction: Direction) -> int:
    return sum(count for way, count in counters.cut_waits.items() if direction in ("both", way))


def _claims_of_leg(direction: Direction, episode: Episode, passed: int, verdict: Verdict) -> list[Claim]:
    words = _WORDS[direction]
    own = verdict.deliveries_of[CUT_FOLLOWER]
    others = [
        latency
        for name, deliveries in verdict.deliveries_of.items()
        if name != CUT_FOLLOWER
        for latency in episode.during(deliveries)
    ]
    unharmed_s = Episode.quick_enough_s(episode.before(verdict.deliveries))
    return [
        Claim(
            f"Cut off {words}: nothing passed",
            f"{passed} bytes in {episode.away_s:.1f} s, which began with something waiting",
            passed == 0,
        ),
        *(
            Claim(f"Cut off {words}: {claim.promise}", claim.measured, claim.is_met)
            for claim in away_claims(episode, verdict, own)
        ),
        Claim(
            f"Cut off {words}: clients of the other node notice nothing",
            f"p99 {percentile(others, 0.99) * 1000:.0f} ms",
            0.0 < percentile(others, 0.99) <= unharmed_s,
        ),
    ]
