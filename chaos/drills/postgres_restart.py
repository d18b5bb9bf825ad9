"""Drill ``postgres-restart``: PostgreSQL is shut down in immediate mode, again and again (DB-08).

Immediate mode (SIGQUIT to the postmaster) ends every connection in the middle of its statement and writes
nothing: the next start is a crash recovery. Under 300 events/s: no acknowledged event is missing, no
retried key is applied twice, sockets stay, and streams go on within 5 s of PostgreSQL's return.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.drills.broker_loss import BROKER_SYSTEM, EVENTS_PER_S
from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.plots import latency_plot
from chaos.drills.stage import StageSetup
from chaos.drills.waiting import pause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage

__all__ = ["run_postgres_restart_drill"]

ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2
BESIDE_S: Final = 8.0
QUICK_BESIDE_S: Final = 3.0
# The bar: streams go on within this after the database does.
RESUMED_S: Final = 5.0
_BACK_TIMEOUT_S: Final = 60.0
# What PostgreSQL writes into its log of a shutdown and a start of this kind.
IMMEDIATE: Final = "received immediate shutdown request"
RECOVERY: Final = "automatic recovery in progress"


@attrs.frozen
class _Round:
    """One restart.

    Attributes:
        began_at_s: Unix time of the signal.
        back_at_s: Unix time of the first answer.
        resumed_s: From then until every client had what was committed then.
    """

    began_at_s: float
    back_at_s: float
    resumed_s: float


def run_postgres_restart_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    count = QUICK_ROUNDS if options.is_quick else ROUNDS
    beside_s = QUICK_BESIDE_S if options.is_quick else BESIDE_S
    rounds: list[_Round] = []
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), BROKER_SYSTEM) as stage:
        log = stage.system.under_test.data_dir / "logs" / "postgres.log"
        before = _said(log.read_text(errors="replace"))
        for number in range(1, count + 1):
            pause(beside_s if options.has_faults else 0.0)
            options.progress(f"{number} of {count}: PostgreSQL is shut down in immediate mode")
            rounds.append(_restart(stage, options))
        pause(beside_s)
        stage.check_clients()
        verdict = stage.finish()
        after = _said(log.read_text(errors="replace"))
    shutdowns, recoveries = (after[text] - before[text] for text in (IMMEDIATE, RECOVERY))
    resumed_s = max(one.resumed_s for one in rounds)
    claims = [
        Claim(
            f"PostgreSQL was shut down in immediate mode {count} times",
            f"its log has {shutdowns} such requests and {recoveries} recoveries",
            shutdowns == count == recoveries,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim("Sockets stay", f"{verdict.disconnects} disconnects", verdict.disconnects == 0),
        Claim(
            f"Streams go on within {RESUMED_S:g} s of its return",
            f"every client was at the head of then after at most {resumed_s:.2f} s",
            resumed_s <= RESUMED_S,
        ),
    ]
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Restarts": [
            {
                "restart": number,
                "away s": round(one.back_at_s - one.began_at_s, 2),
                "streams went on after s": round(one.resumed_s, 2),
            }
            for number, one in enumerate(rounds, start=1)
        ],
        "Deliveries": [delivery_facts("all, restarts included", verdict.deliveries.latencies_s)],
        "Clients": verdict.clients,
    }
    spans = [("PostgreSQL is away", one.began_at_s, one.back_at_s) for one in rounds]
    plot = latency_plot(verdict.deliveries, began_at_s=stage.began_at_s, spans=spans)
    return Outcome(claims, tables, verdict.violations, (plot,))


def _restart(stage: Stage, options: DrillOptions) -> _Round:
    """Shut PostgreSQL down; return when what was committed until its return is with every client."""
    system = stage.system
    pid = system.pid("postgres")
    began_at_s = time.time()
    if options.has_faults:
        os.kill(pid, signal.SIGQUIT)
    options.prove("the postmaster has ended", lambda: any(e.pid == pid for e in stage.ends_of("postgres")))
    system.wait_ready("postgres", besides=pid)
    back_at_s = time.time()
    resumed_s = stage.wait_delivered(
        timeout_s=_BACK_TIMEOUT_S, what="what was committed until its return is delivered"
    )
    return _Round(began_at_s, back_at_s, resumed_s)


def _said(log: str) -> Mapping[str, int]:
    return {text: log.count(text) for text in (IMMEDIATE, RECOVERY)}
