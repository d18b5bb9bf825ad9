"""``khala bench replay``: many frames to one client, from the journal and from the window, beside COPY TO STDOUT.

The client is connected and subscribed at the head; it then subscribes again with a cursor before all frames, and its clock
runs until ``replay_complete``. The reference is PostgreSQL's own way to read the same rows in the same order:
``COPY (SELECT entry ...) TO STDOUT (FORMAT binary)``, the encoded frames and nothing else, by psql into
/dev/null over the same TCP port as the node uses, by psql's clock (login not counted). Beside it stands the
COPY of the whole rows as text.
"""

from __future__ import annotations

import re
import resource
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.committed_records import TopicWriter
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import compile_native
from chaos.load.report import Report, Table, Target, show_spread
from chaos.load.resuming_clients import resuming_clients
from chaos.load.statistics_of_pairs import Spread, describe_environment
from chaos.load.svg_plots import Bars
from chaos.load.system_under_test import SystemFailedError
from khala.core.limits import NodeLimits
from khala_contracts.topics import TOPIC_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.load.resuming_clients import ResumingClients
    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["ReplaySetup", "measure_replay"]

TARGET_RATIO: Final = 0.4
_DEFAULTS: Final = NodeLimits()
# Of one record of the feed; only how the rows are written.
_FRAMES_PER_COMMIT: Final = 500
_COPY_TIMEOUT_S: Final = 60.0
# A topic that somebody can subscribe exists: so many frames before those that are replayed.
_BEFORE: Final = 1
_ROWS: Final = f"FROM runtime.journal WHERE topic = '{{topic}}' AND seq > {_BEFORE} ORDER BY seq"
_COPIES: Final = {
    "copy_entries": f"COPY (SELECT entry {_ROWS}) TO STDOUT (FORMAT binary)",
    "copy_rows_as_text": f"COPY (SELECT * {_ROWS}) TO STDOUT",
}
_TIME: Final = re.compile(r"^Time: ([0-9.]+) ms", re.MULTILINE)


@attrs.frozen
class ReplaySetup:
    """What is measured.

    Attributes:
        frames: That the client gets.
        payload_bytes: Of each.
        rounds: Alternating: journal, window, both forms of COPY.
    """

    frames: int = 200_000
    payload_bytes: int = 200
    rounds: int = 9

    def node_config(self) -> dict[str, object]:
        """Return what the node is told: a budget and a window for so many frames; nothing if they fit."""
        if self.frames <= min(_DEFAULTS.window_max_frames, TOPIC_CLASSES["app"].replay_budget_events):
            return {}
        # A frame is its payload, its names and a few bytes; no more than this.
        size_bytes = self.frames * (self.payload_bytes + 200)
        return {
            "limits": {
                "replay_budget_events": {"app": self.frames},
                "replay_budget_bytes": {"app": size_bytes},
                "window_max_frames": self.frames,
                "window_max_bytes": size_bytes,
            }
        }


@attrs.frozen
class _Run:
    """One measurement: seconds of wall time, and CPU seconds by process."""

    seconds: float
    cpu_s: Mapping[str, float]


def measure_replay(setup: ReplaySetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Write two topics, start a node for them, run the rounds and return the report.

    Raises:
        CompilerMissingError: There are no clients without a C compiler.
        ReceiverFailedError: The client missed something; no figure is given then.
        SystemFailedError: The system did not work.
    """
    environment = describe_environment()
    program = compile_native("stream_client", rig.folder)
    config = setup.node_config()
    # What was there before anybody followed is in the journal only; what was committed after that is in
    # the window, which takes it from position checks.
    topics = {name: TopicWriter(rig, f"app:{rig.org_id}:replay-{name}") for name in ("journal", "window")}
    for writer in topics.values():
        writer.commit(_BEFORE, frames_per_record=1, payload_bytes=setup.payload_bytes)
    _commit(topics["journal"], setup.frames, setup.payload_bytes)
    runs: dict[str, list[_Run]] = {name: [] for name in (*topics, *_COPIES)}
    with ExitStack() as held:
        node = held.enter_context(rig.extra_node("replay", config)) if config else rig.nodes[0]
        clients = {
            name: held.enter_context(resuming_clients(rig, node, writer.topic, program, count=1))
            for name, writer in topics.items()
        }
        _commit(topics["window"], setup.frames, setup.payload_bytes)
        clients["window"].follow(_BEFORE + setup.frames)
        # PostgreSQL's pages and everybody's code are warm in the first round that counts.
        for name, client in clients.items():
            pages_before = _pages_read(node)
            _replay(rig, client, setup.frames)
            pages = _pages_read(node) - pages_before
            if (pages > 0) is not (name == "journal"):
                raise SystemFailedError(f"{pages:.0f} pages were read for the replay from the {name}")
        for number in range(setup.rounds):
            for name, client in clients.items():
                runs[name].append(_replay(rig, client, setup.frames))
            for name, sql in _COPIES.items():
                runs[name].append(_copy(rig, sql.format(topic=topics["journal"].topic)))
            said = ", ".join(f"{name} {found[-1].seconds:.3f} s" for name, found in runs.items())
            progress(f"round {number + 1}: {said}")
    overrides = {**rig.overrides, "node": config} if config else rig.overrides
    return _report(setup, runs, environment, overrides)


def _pages_read(node: NodeUnderTest) -> float:
    return node.metrics()["khala_node_pages_read_total"]


def _commit(writer: TopicWriter, frames: int, payload_bytes: int) -> None:
    whole, rest = divmod(frames, _FRAMES_PER_COMMIT)
    if whole:
        writer.commit(whole, frames_per_record=_FRAMES_PER_COMMIT, payload_bytes=payload_bytes)
    if rest:
        writer.commit(1, frames_per_record=rest, payload_bytes=payload_bytes)


def _replay(rig: Rig, client: ResumingClients, frames: int) -> _Run:
    # Another start than the last one, or the subscribe would change nothing.
    head_seq = _BEFORE + frames
    client.resume(head_seq, head_seq=head_seq)
    before = rig.cpu_s()
    replayed = client.resume(_BEFORE, head_seq=head_seq)
    if replayed.frames != frames:
        raise ReceiverFailedError(f"{replayed.frames} of {frames} frames")
    used = rig.cpu_s()
    cpu_s = {name: used[name] - before[name] for name in ("postgres", client.node.name)}
    return _Run(replayed.seconds, {**cpu_s, "client": replayed.client_cpu_s})


def _copy(rig: Rig, sql: str) -> _Run:
    before, own = rig.cpu_s()["postgres"], resource.getrusage(resource.RUSAGE_CHILDREN)
    said = rig.system.run_database_program(
        "psql",
        "khala_reader",
        "-X", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-c", "\\timing on", "-c", sql,
        timeout_s=_COPY_TIMEOUT_S,
    )  # fmt: skip
    found = _TIME.search(said)
    if found is None:
        raise SystemFailedError(f"psql said: {said}")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    psql_s = ended.ru_utime + ended.ru_stime - own.ru_utime - own.ru_stime
    return _Run(float(found.group(1)) / 1e3, {"postgres": rig.cpu_s()["postgres"] - before, "client": psql_s})


def _report(
    setup: ReplaySetup,
    runs: Mapping[str, Sequence[_Run]],
    environment: Mapping[str, object],
    overrides: Mapping[str, object],
) -> Report:
    ratios = {
        name: {copy: _ratio(runs[copy], runs[name]) for copy in _COPIES} for name in ("journal", "window")
    }
    reference = next(iter(_COPIES))
    return Report(
        name="replay",
        title="Replay: one client, from the journal and from the window",
        command="khala bench replay",
        environment=environment,
        overrides=overrides,
        targets=[
            Target.at_least(
                f"replay of {setup.frames:,} frames from the journal, ratio to COPY of the same entries in binary",
                TARGET_RATIO,
                ratios["journal"][reference].median,
            )
        ],
        results=[
            {
                "frames": setup.frames,
                "payload_bytes": setup.payload_bytes,
                "ratios": {
                    name: {copy: ratio.as_json() for copy, ratio in by_copy.items()}
                    for name, by_copy in ratios.items()
                },
                "sides": {name: _side(found, setup.frames) for name, found in runs.items()},
            }
        ],
        tables=[_table(setup, runs), _ratio_table(ratios)],
        plots=[
            Bars(
                "Frames per second, one client",
                "frames/s",
                [
                    (name, [(name, Spread.of([setup.frames / run.seconds for run in found]))])
                    for name, found in runs.items()
                ],
            )
        ],
        text=_TEXT,
        notes=_NOTES,
        not_measured=_NOT_MEASURED,
    )


_TEXT: Final = (
    "The node is `khala node` as shipped, with a real token. A client in C is connected and subscribed at the head; "
    "it subscribes again with a cursor before all of them, and its clock runs from that byte to `replay_complete`. It verifies that "
    "each frame follows the one before and that every byte of every payload is the one written.",
    "`journal`: nothing is in the window, every page is read from PostgreSQL. `window`: everything is. "
    "`copy_entries`: `COPY (SELECT entry ... ORDER BY seq) TO STDOUT (FORMAT binary)` of the same rows by psql into "
    "/dev/null, by psql's clock without its login; `copy_rows_as_text`: `SELECT *` in COPY's default format.",
)
_NOTES: Final = (
    "Ratios are taken round by round: seconds of COPY / seconds of the replay. What a COPY brings is checked by nobody.",
    "The budget and the window are raised by configuration (`overrides`); pages, readers and chunks are the defaults.",
)
_NOT_MEASURED: Final = (
    "A cold cache: the rows are in memory (of PostgreSQL or of the system) on both sides.",
    "A network: everything is on loopback.",
)


def _ratio(theirs: Sequence[_Run], ours: Sequence[_Run]) -> Spread:
    return Spread.of([their.seconds / our.seconds for their, our in zip(theirs, ours, strict=True)])


def _side(found: Sequence[_Run], frames: int) -> dict[str, object]:
    processes = found[0].cpu_s.keys()
    return {
        "frames_per_s": Spread.of([frames / run.seconds for run in found]).as_json(),
        "wall_s": Spread.of([run.seconds for run in found]).as_json(),
        "cpu_s": {name: Spread.of([run.cpu_s[name] for run in found]).as_json() for name in processes},
        "runs": [attrs.asdict(run) for run in found],
    }


def _table(setup: ReplaySetup, runs: Mapping[str, Sequence[_Run]]) -> Table:
    rows = []
    for name, found in runs.items():
        cpu_s = {key: Spread.of([run.cpu_s[key] for run in found]) for key in found[0].cpu_s}
        rows.append(
            [
                name,
                show_spread(Spread.of([run.seconds for run in found])),
                show_spread(Spread.of([setup.frames / run.seconds for run in found])),
                ", ".join(f"{key} {spread.median:.2f}" for key, spread in cpu_s.items()),
            ]
        )
    return Table("Seconds, frames/s and CPU seconds", ("side", "seconds", "frames/s", "CPU s, medians"), rows)


def _ratio_table(ratios: Mapping[str, Mapping[str, Spread]]) -> Table:
    return Table(
        "Ratios, round by round",
        ("from", *_COPIES),
        [[name, *(show_spread(by_copy[copy]) for copy in _COPIES)] for name, by_copy in ratios.items()],
    )
