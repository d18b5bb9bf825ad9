"""Begins and ends the faults of a plan: each turns switches that the models look at, and turns them back.

Faults of one kind may overlap: the first that ends turns their switch back, the others end a little early. What
ends a fault also does what its end does in the world: a broker that is back says so, a partition that heals
delivers what it held.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from chaos.sim.gates import BrokerFaults, ControlFaults, DatabaseFaults, Latency
from chaos.sim.network import NetworkFaults
from chaos.sim.runtime_front import FrontFaults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.sim.driver_model import FanoutModel
    from chaos.sim.gates import Note
    from chaos.sim.journal_model import JournalModel
    from chaos.sim.network import Network
    from chaos.sim.processes import Place
    from chaos.sim.steps import Step

__all__ = ["Faults", "Switches"]


@attrs.define
class Switches:
    """Every switch of a world."""

    database: DatabaseFaults = attrs.field(factory=DatabaseFaults)
    broker: BrokerFaults = attrs.field(factory=BrokerFaults)
    control: ControlFaults = attrs.field(factory=ControlFaults)
    network: NetworkFaults = attrs.field(factory=NetworkFaults)
    front: FrontFaults = attrs.field(factory=FrontFaults)


class _Turn(Protocol):
    """Turns one fault on; returns what turns it off."""

    def __call__(self, step: Step, /) -> Callable[[], None]: ...


class Faults:
    """Carries out fault steps on one world."""

    def __init__(
        self,
        switches: Switches,
        *,
        places: Mapping[str, Place],
        journal: JournalModel,
        fanout: FanoutModel,
        network: Network,
        note: Note,
    ) -> None:
        """Turn these switches, and do harm to these places."""
        self._switches = switches
        self._places = places
        self._journal = journal
        self._fanout = fanout
        self._network = network
        self._note = note
        # Kinds that were begun and are not over, by how many steps.
        self.active: Counter[str] = Counter()
        self._turns: dict[str, _Turn] = {
            "runtime.kill": self._kill,
            "node.kill": self._kill,
            "node.dies_silently": self._die_silently,
            "runtime.takeover": self._take_over,
            "database.down": lambda _: self._set(switches.database, is_down=True),
            "database.restart": self._restart_database,
            "database.slow": lambda step: self._set(
                switches.database, statement=Latency(0.005, 0.02 + 0.4 * step.amount)
            ),
            "database.lost_before": lambda step: self._set(
                switches.database, lost_before_commit=0.1 + 0.5 * step.amount
            ),
            "database.lost_after": lambda step: self._set(
                switches.database, lost_after_commit=0.1 + 0.5 * step.amount
            ),
            "database.lost_statement": lambda step: self._set(
                switches.database, lost_statement=0.05 + 0.3 * step.amount
            ),
            "database.trouble": lambda step: self._set(
                switches.database, serialization_trouble=0.1 + 0.5 * step.amount
            ),
            "database.cut": lambda step: self._list(switches.database.cut_from, step.who),
            "broker.down": self._take_broker_down,
            "broker.loss": lambda step: self._set(switches.broker, loss=0.1 + 0.9 * step.amount),
            "broker.duplicate": lambda step: self._set(switches.broker, duplicate=0.1 + 0.8 * step.amount),
            "broker.reorder": lambda step: self._set(
                switches.broker, reorder=0.2 + 0.6 * step.amount, reorder_s=0.02 + 0.4 * step.amount
            ),
            "broker.delay": lambda step: self._set(
                switches.broker, delay=Latency(0.005, 0.02 + 1.5 * step.amount)
            ),
            "broker.forge": lambda step: self._set(switches.broker, forge=0.2 + 0.8 * step.amount),
            "broker.corrupt": lambda step: self._set(switches.broker, corrupt=0.2 + 0.8 * step.amount),
            "broker.cut_to": self._cut_broker_to,
            "broker.cut_from": lambda step: self._list(switches.broker.cut_from, step.who),
            "control.down": lambda _: self._set(switches.control, is_down=True),
            "control.slow": lambda step: self._set(
                switches.control, reply=Latency(0.02, 0.1 + 3.0 * step.amount)
            ),
            "control.lost_reply": lambda step: self._set(
                switches.control, lost_reply=0.2 + 0.6 * step.amount
            ),
            "control.push_loss": lambda _: self._set(switches.control, push_loss=1.0),
            "network.reset": self._reset,
            "network.cut": lambda step: self._cut_network(step, is_up=True, is_down=True),
            "network.cut_up": lambda step: self._cut_network(step, is_up=True, is_down=False),
            "network.cut_down": lambda step: self._cut_network(step, is_up=False, is_down=True),
            "network.delay": lambda step: self._set(
                switches.network, delay=Latency(0.005, 0.02 + 0.8 * step.amount)
            ),
            "network.short_writes": lambda step: self._set(
                switches.network, short_write=0.2 + 0.7 * step.amount
            ),
            "network.stale_balancer": lambda step: self._set(
                switches.network, stale_balancer=0.2 + 0.6 * step.amount
            ),
            "front.lost_request": lambda step: self._set(
                switches.front, lost_request=0.2 + 0.6 * step.amount
            ),
            "front.lost_answer": lambda step: self._set(switches.front, lost_answer=0.2 + 0.6 * step.amount),
            "clock.skew": self._skew,
            "clock.step": self._step_clock,
        }

    async def carry_out(self, step: Step) -> None:
        """Begin a fault, wait for its time, end it. Cancellation: it stays."""
        self._note("world", "fault begins", kind=step.kind, who=step.who)
        self.active[step.kind] += 1
        turn_off = self._turns[step.kind](step)
        await trio.sleep(step.lasts_s)
        self.active[step.kind] -= 1
        if not self.active[step.kind]:
            del self.active[step.kind]
        turn_off()
        self._note("world", "fault ends", kind=step.kind, who=step.who)

    # -- switches --------------------------------------------------------------------------------------

    def _set(self, switches: object, **values: object) -> Callable[[], None]:
        for name, value in values.items():
            setattr(switches, name, value)

        def turn_off() -> None:
            quiet = type(switches)()
            for name in values:
                setattr(switches, name, getattr(quiet, name))

        return turn_off

    @staticmethod
    def _list(places: dict[str, None], who: str) -> Callable[[], None]:
        places[who] = None

        def turn_off() -> None:
            places.pop(who, None)

        return turn_off

    def _take_broker_down(self, _step: Step) -> Callable[[], None]:
        self._switches.broker.is_down = True
        return self._fanout.come_back

    def _cut_broker_to(self, step: Step) -> Callable[[], None]:
        heal = self._list(self._switches.broker.cut_to, step.who)

        def turn_off() -> None:
            heal()
            self._fanout.announce(step.who)

        return turn_off

    # -- processes ---------------------------------------------------------------------------------------

    def _kill(self, step: Step) -> Callable[[], None]:
        place = self._places[step.who]
        place.kill()
        return place.start

    def _die_silently(self, step: Step) -> Callable[[], None]:
        self._network.silence(step.who, is_silent=True)
        self._places[step.who].kill()

        def turn_off() -> None:
            self._network.silence(step.who, is_silent=False)
            self._places[step.who].start()

        return turn_off

    def _take_over(self, _step: Step) -> Callable[[], None]:
        """Let a second runtime take the generation; the first learns of it and both answer for a while."""
        self._places["runtime-2"].start()

        def turn_off() -> None:
            self._places["runtime-2"].kill()
            # The first was superseded: a supervisor starts it again.
            self._places["runtime-1"].kill()
            self._places["runtime-1"].start()

        return turn_off

    def _restart_database(self, step: Step) -> Callable[[], None]:
        self._journal.restart()
        self._switches.database.is_down = True

        def turn_off() -> None:
            self._switches.database.is_down = False

        del step
        return turn_off

    # -- network ------------------------------------------------------------------------------------------

    def _reset(self, step: Step) -> Callable[[], None]:
        for connection in tuple(self._network.connections.values()):
            if connection.stream.gate.place == step.who:
                connection.reset()
        return _nothing

    def _cut_network(self, step: Step, *, is_up: bool, is_down: bool) -> Callable[[], None]:
        cut = self._switches.network.cut
        nodes = [name for name, place in self._places.items() if place.role == "node"]
        pairs = [(step.who, node) for node in nodes if is_up] + [
            (node, step.who) for node in nodes if is_down
        ]
        cut.update(dict.fromkeys(pairs))

        def turn_off() -> None:
            for pair in pairs:
                cut.pop(pair, None)
            self._network.heal()

        return turn_off

    # -- clocks ------------------------------------------------------------------------------------------

    def _skew(self, step: Step) -> Callable[[], None]:
        clock = self._places[step.who].clock
        clock.skew_s = Random(step.seed).uniform(-4.0, 4.0)

        def turn_off() -> None:
            clock.skew_s = 0.0

        return turn_off

    def _step_clock(self, step: Step) -> Callable[[], None]:
        # A wall clock that was set, and stays so.
        self._places[step.who].clock.skew_s += Random(step.seed).uniform(-5.0, 5.0)
        return _nothing


def _nothing() -> None:
    """Its harm was done when it began."""
