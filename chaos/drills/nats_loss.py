"""Drill ``nats-loss``: the broker is killed, wiped and kept away for a minute under load.

NATS dies by SIGKILL; what it had on disk is deleted, and its port is taken, so that every restart
fails. Meanwhile the nodes live on position checks: clients stay connected and contiguous, and wait at
most 2 s (p99). Once the port is free again the supervisor's next start succeeds, with nothing of
before, and within 5 s deliveries are as quick as they were.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.stage import StageSetup, running_stage
from chaos.drills.taken_port import is_answering, taken_port
from chaos.drills.verdict import percentile
from chaos.drills.waiting import DrillFailed, pause, wait_until

if TYPE_CHECKING:
    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage

__all__ = ["run_nats_loss_drill"]

EVENTS_PER_S: Final = 200.0
AWAY_S: Final = 60.0
QUICK_AWAY_S: Final = 5.0
# What comes before and after is compared with each other.
BESIDE_S: Final = 15.0
QUICK_BESIDE_S: Final = 4.0
AWAY_P99_S: Final = 2.0
NORMAL_AGAIN_S: Final = 5.0
# As quick as before: within this factor, or below what is quick anyway.
NORMAL_FACTOR: Final = 3.0
NORMAL_P99_S: Final = 0.1
_RETURN_TIMEOUT_S: Final = 30.0
_TRIES: Final = 20


def run_nats_loss_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    away_s = QUICK_AWAY_S if options.is_quick else AWAY_S
    beside_s = QUICK_BESIDE_S if options.is_quick else BESIDE_S
    with running_stage(options.folder, StageSetup(has_nats=True, events_per_s=EVENTS_PER_S)) as stage:
        options.progress(f"with NATS for {beside_s:g} s")
        pause(beside_s)
        killed_at_s = time.time()
        if options.has_faults:
            _take_away(stage, away_s, options)
        else:
            pause(away_s)
        back_at_s = time.time()
        options.progress(f"NATS is back; with it for {NORMAL_AGAIN_S + beside_s:g} s")
        pause(NORMAL_AGAIN_S + beside_s)
        stage.check_clients()
        ended_at_s = time.time()
        ends = [end.status for end in stage.system.ends.values() if end.name == "nats"]
        verdict = stage.finish()
    deliveries = verdict.deliveries
    before = deliveries.between(stage.began_at_s + 1.0, killed_at_s)
    away = deliveries.between(killed_at_s, back_at_s)
    after = deliveries.between(back_at_s + NORMAL_AGAIN_S, ended_at_s)
    quick_enough_s = max(NORMAL_P99_S, NORMAL_FACTOR * percentile(before, 0.99))
    disconnects = sum(client["disconnects"] for client in verdict.clients)
    claims = [
        Claim(
            f"NATS was killed and away for {away_s:g} s",
            f"exit status {ends[0] if ends else 'none'}, away {back_at_s - killed_at_s:.1f} s, "
            f"{len(ends)} processes of it ended",
            ends[:1] == [-9] and back_at_s - killed_at_s >= away_s,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim("Clients stay connected", f"{disconnects} disconnects", disconnects == 0),
        Claim(
            f"While it is away, p99 from commit to client is at most {AWAY_P99_S:g} s",
            f"{percentile(away, 0.99):.2f} s of {len(away):,} deliveries",
            0.0 < percentile(away, 0.99) <= AWAY_P99_S,
        ),
        Claim(
            f"Within {NORMAL_AGAIN_S:g} s of its return, p99 is what it was",
            f"{percentile(after, 0.99) * 1000:.0f} ms, before it was {percentile(before, 0.99) * 1000:.0f} ms",
            0.0 < percentile(after, 0.99) <= quick_enough_s,
        ),
    ]
    tables = {
        "Deliveries": [
            delivery_facts("before", before),
            delivery_facts("NATS away", away),
            delivery_facts(f"from {NORMAL_AGAIN_S:g} s after its return", after),
        ],
        "Clients": verdict.clients,
    }
    violations = [str(violation) for violation in verdict.broken_histories + verdict.broken_appends]
    return Outcome(claims, tables, violations)


def _take_away(stage: Stage, away_s: float, options: DrillOptions) -> None:
    """Kill NATS, wipe it, keep it away, and return when it answers again."""
    system = stage.system
    began = time.monotonic()
    pid = system.kill("nats")
    system.wait_killed(pid)
    for _ in range(_TRIES):
        try:
            with taken_port(system.nats_port):
                options.progress(f"NATS is gone; without it for {away_s:g} s")
                for name in ("run/nats.conf", "logs/nats.log"):
                    (system.under_test.data_dir / name).unlink(missing_ok=True)
                while time.monotonic() - began < away_s:
                    stage.check_clients()
                    pause(0.2)
            break
        except OSError:
            # Its supervisor was quicker.
            if system.is_running("nats"):
                system.wait_killed(system.kill("nats"))
    else:
        raise DrillFailed(f"port {system.nats_port} cannot be taken")
    wait_until(
        lambda: is_answering(system.nats_port), timeout_s=_RETURN_TIMEOUT_S, what="NATS is back by itself"
    )
