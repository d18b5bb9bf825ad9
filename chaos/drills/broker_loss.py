"""Drill ``broker-loss``: the broker is killed, wiped and kept away for a minute under 300 events/s (FD-08).

NATS dies by SIGKILL; what it had on disk is deleted, and its port is taken, so that every restart
fails. Meanwhile the nodes live on position checks: clients stay connected and contiguous, and wait at
most 2 s (p99), and producers notice nothing. Once the port is free again the supervisor's next start
succeeds, with nothing of before, and within 5 s deliveries are as quick as they were.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from chaos.drills.broker_claims import NORMAL_AGAIN_S, Episode, away_claims
from chaos.drills.drill import Claim, Outcome, claims_of
from chaos.drills.plots import latency_plot
from chaos.drills.stage import StageSetup
from chaos.drills.system_setup import SystemSetup
from chaos.drills.taken_port import is_answering, taken_port
from chaos.drills.waiting import DrillFailed, pause, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage

__all__ = ["BROKER_SYSTEM", "run_broker_loss_drill"]

# Also the system of nats-partition and postgres-restart, hence the links.
BROKER_SYSTEM: Final = SystemSetup(
    nodes=2, has_nats=True, links=("node-1.nats", "node-1.postgres", "runtime.nats", "runtime.postgres")
)
EVENTS_PER_S: Final = 300.0
AWAY_S: Final = 60.0
QUICK_AWAY_S: Final = 6.0
# What comes before and after is compared with each other.
BESIDE_S: Final = 15.0
QUICK_BESIDE_S: Final = 4.0
_RETURN_TIMEOUT_S: Final = 30.0
_TRIES: Final = 20


def run_broker_loss_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    away_s = QUICK_AWAY_S if options.is_quick else AWAY_S
    beside_s = QUICK_BESIDE_S if options.is_quick else BESIDE_S
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), BROKER_SYSTEM) as stage:
        if options.has_faults:
            options.progress(f"with NATS for {beside_s:g} s")
            pause(beside_s)
        killed_at_s = time.time()
        if options.has_faults:
            stage.system.kill("nats")
        options.prove("NATS is killed", lambda: any(end.status == -9 for end in stage.ends_of("nats")))
        with _kept_away(stage):
            options.progress(f"NATS is gone; without it for {away_s:g} s")
            stage.watch(killed_at_s + away_s)
        port = stage.system.nats_port
        wait_until(lambda: is_answering(port), timeout_s=_RETURN_TIMEOUT_S, what="NATS is back by itself")
        back_at_s = time.time()
        options.progress(f"NATS is back; with it for {NORMAL_AGAIN_S + beside_s:g} s")
        stage.watch(back_at_s + NORMAL_AGAIN_S + beside_s)
        episode = Episode(stage.began_at_s + 1.0, killed_at_s, back_at_s, time.time())
        ends = [end.status for end in stage.ends_of("nats")]
        verdict = stage.finish()
    claims = [
        Claim(
            f"NATS was killed and away for {away_s:g} s",
            f"exit status {ends[0]}, away {episode.away_s:.1f} s, {len(ends)} processes of it ended",
            ends[0] == -9 and episode.away_s >= away_s,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        *away_claims(episode, verdict, verdict.deliveries),
    ]
    tables = {"Deliveries": episode.delivery_rows(verdict.deliveries), "Clients": verdict.clients}
    spans = [("NATS is away", killed_at_s, back_at_s)]
    plot = latency_plot(verdict.deliveries, began_at_s=stage.began_at_s, spans=spans)
    return Outcome(claims, tables, verdict.violations, (plot,))


@contextmanager
def _kept_away(stage: Stage) -> Iterator[None]:
    """Take the port of a NATS that was killed, and delete what it left."""
    system = stage.system
    with ExitStack() as held:
        for _ in range(_TRIES):
            try:
                held.enter_context(taken_port(system.nats_port))
                break
            except OSError:
                # Its supervisor was quicker.
                if system.is_running("nats"):
                    system.wait_killed(system.kill("nats"))
        else:
            raise DrillFailed(f"port {system.nats_port} cannot be taken")
        for name in ("run/nats.conf", "logs/nats.log"):
            (system.under_test.data_dir / name).unlink(missing_ok=True)
        yield
