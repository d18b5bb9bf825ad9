"""One fault of the menu as a drill: done alone under a small load, proved, ended, judged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from chaos.drills.catalog import Drill
from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.fault_menu import FAULTS
from chaos.drills.stage import StageSetup
from chaos.drills.system_setup import SystemSetup
from chaos.drills.waiting import pause

if TYPE_CHECKING:
    from chaos.drills.drill import DrillOptions
    from chaos.drills.fault_menu import MenuFault

__all__ = ["MENU_SYSTEM", "drill_of"]

EVENTS_PER_S: Final = 100.0
# A client may have to notice, come back, and read what it missed.
HEALED_S: Final = 60.0
MENU_SYSTEM: Final = SystemSetup(
    nodes=2,
    has_nats=True,
    links=(
        "clients.node-1",
        "node-1.nats",
        "node-1.postgres",
        "node-1.control",
        "runtime.nats",
        "runtime.postgres",
        "control.runtime",
    ),
    has_shim=True,
)


def drill_of(name: str) -> Drill:
    """Return the drill that does one fault; ``name`` is in the menu."""
    fault = FAULTS[name]
    return Drill(name, fault.text, 20, partial(_run, fault), MENU_SYSTEM)


def _run(fault: MenuFault, options: DrillOptions) -> Outcome:
    act = fault.act()
    setup = StageSetup(topics=4, events_per_s=EVENTS_PER_S, has_rereader=False)
    with options.open_stage(setup, MENU_SYSTEM) as stage:
        act.look(stage)
        options.progress(f"{fault.name}: {fault.text}")
        try:
            if options.has_faults:
                act.begin(stage)
            options.prove(fault.name, lambda: bool(act.proof(stage)))
            pause(fault.hold_s)
            proof = act.proof(stage)
        finally:
            act.end(stage)
        healed_s = stage.wait_delivered(
            timeout_s=HEALED_S, what="what was committed by the end of the fault is delivered"
        )
        verdict = stage.finish()
    claims = [
        Claim(f"The fault happened: {fault.text}", proof, bool(proof)),
        Claim("Clients are whole again", f"{healed_s:.2f} s after its end", healed_s <= HEALED_S),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S, has_retries=False),
    ]
    rows = [delivery_facts("all, the fault included", verdict.deliveries.latencies_s)]
    return Outcome(claims, {"Deliveries": rows, "Clients": verdict.clients}, verdict.violations)
