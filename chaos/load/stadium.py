"""``khala bench stadium``: one topic, many subscribers, beside a C loop of send(2) and a broadcast server.

The node is the ``khala node`` that ``khala up --split --nats`` runs: tokens minted by control, redemption,
rights, chain, MAC and metrics are on. Records are committed and sealed beforehand (committed_records.py)
and published to the broker one after the other (native/stadium_feed.c), so that each is one write for each
subscriber. For that alone ``heal_delay_s`` is raised: a position check would otherwise read from the
journal what is about to be published.

In each round every side sends the same number of frames of the same size, in turns that begin with another
side each round; ratios are taken round by round.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.centrifugo_side import BROKERS, PROGRAM, centrifugo_dsn, centrifugo_side, find_centrifugo
from chaos.load.committed_records import TopicWriter
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import compile_native
from chaos.load.stadium_report import stadium_report
from chaos.load.stadium_setup import Measured
from chaos.load.stadium_sides import Programs, broadcast_side, loop_side, node_side
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.load.report import Report
    from chaos.load.rig import NodeUnderTest, Rig
    from chaos.load.stadium_setup import StadiumSetup
    from chaos.load.stadium_sides import Side

__all__ = ["ADAPTERS", "Stadium", "measure_stadium"]

# Each is a node of its own on the same system.
ADAPTERS: Final = ("websockets", "trio_websocket")
# A record of the feed must not be fetched before it is published; nothing else heals meanwhile.
NODE_CONFIG: Final = {"limits": {"heal_delay_s": 3600.0}}


def measure_stadium(setup: StadiumSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Run the rounds on a system whose driver is ``nats``; return the report.

    Raises:
        CompilerMissingError: There are no clients without a C compiler.
        ReceiverFailedError: A subscriber missed something; no figure is given then.
        SystemFailedError: The system did not work.
    """
    environment = describe_environment()
    names = ("stream_client", "stadium_feed", "send_loop")
    programs = Programs(rig.folder, *(compile_native(name, rig.folder) for name in names))
    rows: list[Measured] = []
    with ExitStack() as held:
        nodes = {
            adapter: held.enter_context(
                rig.extra_node(f"stadium-{adapter}", {**NODE_CONFIG, "websocket_adapter": adapter})
            )
            for adapter in ADAPTERS
        }
        stadium = Stadium(setup, rig, nodes, programs, progress)
        for subscribers in setup.subscribers:
            rows += stadium.measure_crowd(subscribers)
    return stadium_report(setup, rows, environment, _overrides(rig), absent=stadium.absent)


def _overrides(rig: Rig) -> dict[str, object]:
    node = {**NODE_CONFIG, "websocket_adapter": list(ADAPTERS)}
    return {**rig.overrides, "node": {**rig.setup.config.get("node", {}), **node}}


@attrs.define
class Stadium:
    """What all crowds share.

    Attributes:
        absent: Peers that were not measured, and why.
    """

    _setup: StadiumSetup
    _rig: Rig
    _nodes: Mapping[str, NodeUnderTest]
    _programs: Programs
    _progress: Callable[[str], None]
    absent: dict[str, str] = attrs.field(factory=dict)

    def measure_crowd(self, subscribers: int) -> list[Measured]:
        """Open every side with so many subscribers, and run the rounds of each row."""
        is_compared = subscribers == self._setup.compared_at
        with ExitStack() as held:
            sides: list[Side] = []
            writers: dict[str, TopicWriter] = {}
            for adapter in ADAPTERS if is_compared else ADAPTERS[:1]:
                writers[adapter] = self._new_topic(adapter, subscribers)
                side = node_side(
                    adapter,
                    self._rig,
                    self._nodes[adapter],
                    writers[adapter],
                    self._programs,
                    subscribers=subscribers,
                )
                sides.append(held.enter_context(side))
                self._progress(f"{subscribers} subscribers at {adapter}")
            ours = writers[ADAPTERS[0]]
            for open_side in (loop_side, broadcast_side) if is_compared else (loop_side,):
                side = open_side(ours.topic, ours.head_seq, self._programs, subscribers=subscribers)
                sides.append(held.enter_context(side))
            if is_compared:
                sides += self._open_centrifugo(held, ours.head_seq, subscribers)
            return [
                self.measure_row(subscribers, frames, sides, writers)
                for frames in self._setup.frames_per_write
            ]

    def _new_topic(self, adapter: str, subscribers: int) -> TopicWriter:
        writer = TopicWriter(self._rig, f"app:{self._rig.org_id}:{adapter.replace('_', '-')}-{subscribers}")
        # Tokens are minted for topics that exist.
        writer.commit(1, frames_per_record=1, payload_bytes=self._setup.payload_bytes)
        return writer

    def _open_centrifugo(self, held: ExitStack, head_seq: int, subscribers: int) -> list[Side]:
        program = find_centrifugo()
        if program is None:
            self.absent[PROGRAM] = "it is not on PATH"
            return []
        sides = []
        for broker in BROKERS:
            try:
                side = centrifugo_side(
                    program,
                    broker,
                    self._programs,
                    head_seq=head_seq,
                    subscribers=subscribers,
                    payload_bytes=self._setup.payload_bytes,
                    dsn=centrifugo_dsn(self._rig) if broker == "postgres" else "",
                )
                sides.append(held.enter_context(side))
            except (SystemFailedError, ReceiverFailedError) as error:
                # Somebody else's program, of a version that we do not choose.
                self.absent[f"{PROGRAM}_{broker}"] = str(error)
                self._progress(f"{PROGRAM} with the broker {broker}: {error}")
        return sides

    def measure_row(
        self,
        subscribers: int,
        frames_per_write: int,
        sides: Sequence[Side],
        writers: Mapping[str, TopicWriter],
    ) -> Measured:
        """Commit what every round needs, then let each side send its part in each round, in turns."""
        setup = self._setup
        writes = setup.writes(subscribers)
        prepared = {
            name: writer.commit(
                writes * setup.rounds, frames_per_record=frames_per_write, payload_bytes=setup.payload_bytes
            )
            for name, writer in writers.items()
        }
        row = Measured(subscribers, frames_per_write, writes, {side.name: [] for side in sides})
        for number in range(setup.rounds):
            part = slice(number * writes, (number + 1) * writes)
            for place in range(len(sides)):
                side = sides[(place + number) % len(sides)]
                records = prepared.get(side.name, prepared[ADAPTERS[0]])
                row.runs[side.name].append(side.run(records[part]))
            said = ", ".join(f"{name} {runs[-1].per_s:,.0f}/s" for name, runs in row.runs.items())
            self._progress(f"{subscribers} x {frames_per_write}, round {number + 1}: {said}")
        return row
