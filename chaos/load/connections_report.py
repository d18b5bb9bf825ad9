"""What ``khala bench connections`` says: memory of an idle connection, and connections for a CPU second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.report import Report, Table, Target, show, show_spread
from chaos.load.statistics_of_pairs import Spread
from chaos.load.svg_plots import Bars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.load.connections_setup import Batch, ConnectionsResult, ConnectionsSetup, Held

__all__ = ["connections_report"]

_KB: Final = 1000.0
MEMORY_KB: Final = 14.0
PER_CPU_S: Final = 1_000.0


def connections_report(
    setup: ConnectionsSetup,
    found: ConnectionsResult,
    environment: Mapping[str, object],
    overrides: Mapping[str, object],
) -> Report:
    """Return the report of what was found."""
    held, storm = found.held, _per_cpu_s(found.storm)
    return Report(
        name="connections",
        title="Connections: what one costs, and what its beginning costs",
        command=_command(setup),
        environment=environment,
        overrides=overrides,
        targets=[
            Target.at_most(
                f"process memory per idle connection at {held.connections}, kB (RSS)",
                MEMORY_KB,
                held.rss_bytes / held.connections / _KB,
            ),
            Target.at_least(
                "upgrade + hello + subscribe per CPU second of the node", PER_CPU_S, storm.median
            ),
        ],
        results=[_result(setup, found)],
        tables=[_memory(held), _beginnings(found)],
        plots=[
            Bars(
                "Upgrade + hello + subscribe",
                "connections per CPU second of the node",
                [("storm", [("node", storm)]), ("paced", [("node", _per_cpu_s(found.paced))])],
                target=PER_CPU_S,
            )
        ],
        text=_TEXT,
        notes=_NOTES,
        not_measured=_NOT_MEASURED,
    )


_TEXT: Final = (
    "The nodes are `khala node` beside a real `khala up --split --nats`. Each connection presents a sync token of its "
    "own, minted by control through a service key for a user, session and device of its own, and follows one run of "
    "the key's org: the node verifies the signature, has control redeem the token, reads the topic's head row, "
    "compares the right, and answers `subscribed` and `replay_complete`. Memory is that of the node's process above "
    "what it was before the first of these connections, after a warm-up that connected and left. At the end one event "
    "is appended to each run, and every connection receives exactly that one.",
)
_NOTES: Final = (
    "`storm` opens connections as fast as 32 at a time get in, with the rate of admission raised; `paced` is the "
    "default configuration at 240 a second. CPU time is all of the node's: position checks, sweeps and metrics "
    "go on meanwhile, which weighs more on `paced`.",
    "Kernel memory is the machine's: the buffers of all TCP sockets, and all objects that the kernel made meanwhile "
    "(`Slab`). Both ends of each connection are in it, and whatever else the machine did.",
)
_NOT_MEASURED: Final = (
    "TLS; the JSON subprotocol; the second WebSocket adapter, which needs more memory by its nature.",
    "What a topic costs: runs are shared by many connections here. `khala load topics` measures many topics.",
)


def _command(setup: ConnectionsSetup) -> str:
    words = ["khala bench connections"]
    for field in attrs.fields(type(setup)):
        value = getattr(setup, field.name)
        if value != field.default:
            words.append(f"--{field.name.replace('_', '-')} {value}")
    return " ".join(words)


def _per_cpu_s(batches: Sequence[Batch]) -> Spread:
    return Spread.of([batch.per_cpu_s for batch in batches])


def _result(setup: ConnectionsSetup, found: ConnectionsResult) -> dict[str, object]:
    held = found.held
    return {
        "setup": attrs.asdict(setup),
        "memory": {
            **attrs.asdict(held),
            "rss_bytes_per_connection": held.rss_bytes / held.connections,
            "pss_bytes_per_connection": held.pss_bytes / held.connections,
            "private_bytes_per_connection": held.private_bytes / held.connections,
            "kernel_bytes_per_connection": held.kernel_bytes / held.connections,
            "slab_bytes_per_connection": held.slab_bytes / held.connections,
        },
        "storm": _batches(found.storm),
        "paced": _batches(found.paced),
        "proved": found.proved,
    }


def _batches(batches: Sequence[Batch]) -> dict[str, object]:
    return {
        "per_cpu_s": _per_cpu_s(batches).as_json(),
        "per_s": Spread.of([batch.connections / batch.wall_s for batch in batches]).as_json(),
        "batches": [attrs.asdict(batch) for batch in batches],
    }


def _memory(held: Held) -> Table:
    rows = [
        ("resident", held.rss_bytes),
        ("proportional", held.pss_bytes),
        ("private", held.private_bytes),
        ("kernel: TCP buffers, both ends", held.kernel_bytes),
        ("kernel: its objects, both ends", held.slab_bytes),
    ]
    return Table(
        f"Memory of {held.connections} idle connections above the node's {held.rss_before_bytes / 1e6:.1f} MB",
        ("memory", "kB per connection", "MB"),
        [[name, show(size / held.connections / _KB), show(size / 1e6)] for name, size in rows],
    )


def _beginnings(found: ConnectionsResult) -> Table:
    return Table(
        "Upgrade + hello + subscribe",
        ("form", "per CPU second", "per second"),
        [
            [
                name,
                show_spread(_per_cpu_s(batches)),
                show_spread(Spread.of([batch.connections / batch.wall_s for batch in batches])),
            ]
            for name, batches in (("storm", found.storm), ("paced", found.paced))
        ],
    )
