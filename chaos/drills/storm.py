"""A storm of reconnects, done and measured: the cut, the way back, and what refusals cost the node."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

import attrs

from chaos.drills.node_limits import changed_limits, node_metrics
from chaos.drills.statement_log import logged_statements
from chaos.drills.waiting import DrillFailed, pause
from chaos.load.process_figures import cpu_s_of_process, memory_of_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.drills.drill import DrillOptions
    from chaos.drills.split_system import SplitSystem
    from chaos.drills.stage import Stage
    from chaos.drills.storm_clients import Happening, StormClients

__all__ = ["NODE_ROLE", "RefusalCost", "Storm", "measure_refusals", "most_in_a_second", "run_storm"]

NODE_ROLE: Final = "khala_reader"
QUIET_S: Final = 3.0
BACK_TIMEOUT_S: Final = 90.0
# A refused connection is kept for half a second, so that its client can read the refusal.
LEFT_BEHIND_S: Final = 0.8
_ENDED: Final = "khala_node_closes_total{"


@attrs.frozen
class Storm:
    """What was seen of it.

    Attributes:
        happenings: To the clients, from the cut on.
        node_cpu_s: Of the node meanwhile.
        statements: Of the node's role, by the first line of the SQL, beyond what a quiet time of that length has.
        quiet_per_s: Statements of the node's role per second of a quiet time.
        ended: Connections that the node has seen end.
        rss_before_bytes, rss_after_bytes: Of the node.
    """

    cut_at_s: float
    happenings: list[Happening]
    node_cpu_s: float
    statements: Mapping[str, int]
    quiet_per_s: float
    ended: int
    rss_before_bytes: int
    rss_after_bytes: int

    def times_s(self, what: str) -> list[float]:
        """Return when something happened, seconds after the cut, ascending."""
        return sorted(one.at_s - self.cut_at_s for one in self.happenings if one.what == what)

    @property
    def refusals(self) -> list[Happening]:
        """Every refusal of the storm."""
        return [one for one in self.happenings if one.what == "refused"]

    @property
    def seconds(self) -> float:
        """From the cut until everybody was live."""
        return max(self.times_s("live"), default=0.0)


@attrs.frozen
class RefusalCost:
    """CPU of the node for one refusal, milliseconds: by a bare answer of HTTP, and in words of the protocol."""

    bare_ms: float
    told_ms: float

    def mean_ms(self, refusals: Sequence[Happening]) -> float:
        """Return the mean of refusals as they were in the storm."""
        told = sum(one.is_told for one in refusals)
        return (told * self.told_ms + (len(refusals) - told) * self.bare_ms) / max(1, len(refusals))


def run_storm(stage: Stage, clients: StormClients, options: DrillOptions, node: str) -> Storm:
    """Cut everybody off, and return when all are live again."""
    system = stage.system
    pid = system.pid(node)
    with logged_statements(system.under_test, NODE_ROLE) as log:
        if options.has_faults:
            pause(QUIET_S)
        quiet = log.read()
        ended_before, cpu_before = _ended_connections(system, node), cpu_s_of_process(pid)
        rss_before = memory_of_process(pid).rss_bytes
        cut_at_s = time.time()
        if options.has_faults:
            clients.cut(timeout_s=BACK_TIMEOUT_S)
            options.progress("cut off")
            clients.wait_back(timeout_s=BACK_TIMEOUT_S)
        seconds = time.time() - cut_at_s
        used_s, rss_after = cpu_s_of_process(pid) - cpu_before, memory_of_process(pid).rss_bytes
        # Looked at afterwards: a scrape is work for the node, too, and it never forgets an end.
        options.prove(
            "the connections broke", lambda: _ended_connections(system, node) - ended_before >= clients.count
        )
        executions = log.read()
    beyond = {sql: count - round(quiet[sql] * seconds / QUIET_S) for sql, count in executions.items()}
    return Storm(
        cut_at_s,
        [one for one in clients.happenings() if one.at_s >= cut_at_s],
        used_s,
        {sql: count for sql, count in beyond.items() if count > 0},
        sum(quiet.values()) / QUIET_S,
        _ended_connections(system, node) - ended_before,
        rss_before,
        rss_after,
    )


def _ended_connections(system: SplitSystem, node: str) -> int:
    """Return how many connections of the node have ended since it began."""
    metrics = node_metrics(system, node)
    return round(sum(value for name, value in metrics.items() if name.startswith(_ENDED)))


def measure_refusals(system: SplitSystem, node: str, clients: StormClients, knocks: int) -> RefusalCost:
    """Measure what refusals cost, now that there is nothing else to do."""
    pid, in_words = system.pid(node), knocks // 10
    before = cpu_s_of_process(pid)
    pause(QUIET_S)
    # What its connections cost the node while nobody knocks.
    idle_share = (cpu_s_of_process(pid) - before) / QUIET_S
    # So many enter, so many others are told in words, and then, for hours, nobody is.
    limits = {"admission_per_s": 0.001, "admission_burst": in_words, "handshakes_max": in_words + 10}
    with changed_limits(system, [node], limits):
        clients.knock(0, silent=in_words, timeout_s=BACK_TIMEOUT_S)
        pause(LEFT_BEHIND_S)
        told_ms = _cpu_ms_of(pid, clients, in_words, answer="told", idle_share=idle_share)
        bare_ms = _cpu_ms_of(pid, clients, knocks, answer="bare", idle_share=idle_share)
        return RefusalCost(bare_ms, told_ms)


def _cpu_ms_of(pid: int, clients: StormClients, knocks: int, *, answer: str, idle_share: float) -> float:
    before, began_at = cpu_s_of_process(pid), time.monotonic()
    counted = clients.knock(knocks, timeout_s=BACK_TIMEOUT_S)
    pause(LEFT_BEHIND_S)
    if counted[answer] < knocks - 1:
        raise DrillFailed(f"{knocks} knocks were to be answered {answer}, and were {counted}")
    used_s = cpu_s_of_process(pid) - before - idle_share * (time.monotonic() - began_at)
    return used_s * 1000 / knocks


def most_in_a_second(ascending: Sequence[float]) -> int:
    """Return how many are in the second that holds most, wherever it begins."""
    return max(
        (bisect_left(ascending, at_s + 1.0) - place for place, at_s in enumerate(ascending)), default=0
    )
