"""What ``khala bench stadium`` says: deliveries, ratios round by round, CPU beside them, and the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.report import Report, Table, Target, show_spread
from chaos.load.stadium_setup import StadiumSetup
from chaos.load.statistics_of_pairs import Spread
from chaos.load.svg_plots import Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.load.stadium_setup import Measured
    from chaos.load.stadium_sides import Run

__all__ = ["stadium_report"]

OURS: Final = "websockets"
SECOND: Final = "trio_websocket"
LOOP: Final = "send_loop"
BROADCAST: Final = "broadcast"
# Where the program is installed. Ours to theirs is shown whatever it is.
CENTRIFUGO: Final = ("centrifugo_memory", "centrifugo_postgres")
# Of the C loop, by number of subscribers.
LOOP_TARGETS: Final[Mapping[int, float]] = {500: 0.75, 5_000: 0.65}
BROADCAST_TARGET: Final = 1.2
ADAPTERS_DIFFER_BY: Final = 0.10
_ROWS: Final = "subscribers x frames per write"


def stadium_report(
    setup: StadiumSetup,
    rows: Sequence[Measured],
    environment: Mapping[str, object],
    overrides: Mapping[str, object],
    *,
    absent: Mapping[str, str],
) -> Report:
    """Return the report of these rows; ``absent`` are peers that were not measured, and why."""
    targets = [target for row in rows for target in _targets(row)]
    return Report(
        name="stadium",
        title="Stadium: one topic, many subscribers",
        command=_command(setup),
        environment=environment,
        overrides=overrides,
        targets=targets,
        results=[_result(setup, row) for row in rows],
        tables=[_speeds(rows), _ratios(rows), _costs(rows)],
        plots=_plots(rows),
        text=_TEXT,
        notes=_NOTES,
        not_measured=[*_NOT_MEASURED, *(f"`{name}`: {reason}." for name, reason in absent.items())],
    )


def _command(setup: StadiumSetup) -> str:
    words = ["khala bench stadium"]
    for field in attrs.fields(StadiumSetup):
        value, option = getattr(setup, field.name), "--" + field.name.replace("_", "-")
        if value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"{option} {one}" for one in values]
    return " ".join(words)


_TEXT: Final = (
    "The node is `khala node` of `khala up --split --nats`: tokens minted by control, redeemed and judged by the "
    "node; rights, chain, MAC and metrics on. Rows are committed by `append_v1` beforehand, sealed with the system's "
    "key and published to NATS by a program in C that is the topic's first subscriber: the next record when it has "
    "the last, so that a record is one write for each subscriber. One receiver in C takes every side and verifies "
    "that each frame follows the one before and that every byte of it is the one written. Time is the receiver's, "
    "from the first frame to the last; medians, ranges in brackets.",
)
_NOTES: Final = (
    "`send_loop` sends the same bytes with the same `SO_SNDBUF` and counts only what the kernel took. "
    "The ratio compares by the receiver's clock on both sides; `by the loop's clock` gives the loop the time until "
    "the kernel had taken its last byte, which is before the receiver has it.",
    "`broadcast` is `websockets.asyncio` with `broadcast`, its messages in memory: no tokens, no broker, no checks.",
    "`by CPU` compares the CPU time of the two senders for one delivery, which other work on the machine hardly moves.",
    "The receiver looks every 5 ms, on every side: on loopback a sender pays for waking a receiver that waits for it.",
    "Receiver, broker, feed and PostgreSQL share the machine with the sender, on the node's side more than on the loop's.",
)
_NOT_MEASURED: Final = (
    "The append path: rows are committed before the clock starts (`khala bench append`, `khala bench city`).",
    "A network: everything is on loopback.",
)


def _ratio(
    row: Measured, ours: str, theirs: str, speed: Callable[[Run], float] = lambda run: run.per_s
) -> Spread | None:
    if ours not in row.runs or theirs not in row.runs:
        return None
    pairs = zip(row.runs[ours], row.runs[theirs], strict=True)
    return Spread.of([our.per_s / speed(their) for our, their in pairs])


def _cpu_ratio(row: Measured) -> Spread:
    """Return how much of the loop's speed the node has for the same CPU time."""
    pairs = zip(row.runs[OURS], row.runs[LOOP], strict=True)
    return Spread.of([their.cpu_us / our.cpu_us if our.cpu_us else 0.0 for our, their in pairs])


def _targets(row: Measured) -> list[Target]:
    found = []
    at = f"{row.subscribers} subscribers, {row.frames_per_write} frames per write"
    loop = _ratio(row, OURS, LOOP)
    if loop is not None and row.subscribers in LOOP_TARGETS:
        found.append(Target.at_least(f"ratio to send(2), {at}", LOOP_TARGETS[row.subscribers], loop.median))
    broadcast = _ratio(row, OURS, BROADCAST)
    if broadcast is not None:
        found.append(Target.at_least(f"ratio to broadcast, {at}", BROADCAST_TARGET, broadcast.median))
    second = _ratio(row, SECOND, OURS)
    if second is not None:
        difference = abs(1 - second.median)
        found.append(Target.at_most(f"difference of the adapters, {at}", ADAPTERS_DIFFER_BY, difference))
    return found


def _result(setup: StadiumSetup, row: Measured) -> dict[str, object]:
    ratios = {
        "websockets_to_send_loop": _ratio(row, OURS, LOOP),
        "websockets_to_send_loop_by_its_clock": _ratio(row, OURS, LOOP, lambda run: run.per_sender_s),
        "websockets_to_send_loop_by_cpu": _cpu_ratio(row),
        "websockets_to_broadcast": _ratio(row, OURS, BROADCAST),
        **{f"websockets_to_{peer}": _ratio(row, OURS, peer) for peer in CENTRIFUGO},
        "trio_websocket_to_send_loop": _ratio(row, SECOND, LOOP),
        "trio_websocket_to_websockets": _ratio(row, SECOND, OURS),
    }
    return {
        "subscribers": row.subscribers,
        "frames_per_write": row.frames_per_write,
        "writes": row.writes,
        "payload_bytes": setup.payload_bytes,
        "ratios": {name: spread.as_json() for name, spread in ratios.items() if spread is not None},
        "sides": {name: _side(runs) for name, runs in row.runs.items()},
    }


def _side(runs: Sequence[Run]) -> dict[str, object]:
    figures: dict[str, Callable[[Run], float]] = {
        "deliveries_per_s": lambda run: run.per_s,
        "wall_s": lambda run: run.seconds,
        "cpu_s": lambda run: run.cpu_s,
        "cpu_us_per_delivery": lambda run: run.cpu_us,
        "client_cpu_s": lambda run: run.client_cpu_s,
    }
    side: dict[str, object] = {
        name: Spread.of([figure(run) for run in runs]).as_json() for name, figure in figures.items()
    }
    return {**side, "runs": [attrs.asdict(run) for run in runs]}


def _columns(rows: Sequence[Measured]) -> list[str]:
    return [
        name for name in (OURS, SECOND, LOOP, BROADCAST, *CENTRIFUGO) if any(name in row.runs for row in rows)
    ]


def _table(title: str, rows: Sequence[Measured], figure: Callable[[Run], float]) -> Table:
    names = _columns(rows)
    cells: list[list[str]] = []
    for row in rows:
        spreads = {name: Spread.of([figure(run) for run in runs]) for name, runs in row.runs.items()}
        cells.append(
            [_label(row), *(show_spread(spreads[name]) if name in spreads else "" for name in names)]
        )
    return Table(title, (_ROWS, *names), cells)


def _label(row: Measured) -> str:
    return f"{row.subscribers:,} x {row.frames_per_write}"


def _speeds(rows: Sequence[Measured]) -> Table:
    return _table("Deliveries/s", rows, lambda run: run.per_s)


def _costs(rows: Sequence[Measured]) -> Table:
    return _table("CPU of the sender, microseconds for each delivery", rows, lambda run: run.cpu_us)


def _ratios(rows: Sequence[Measured]) -> Table:
    peers = [peer for peer in CENTRIFUGO if any(peer in row.runs for row in rows)]
    cells: list[list[str]] = []
    for row in rows:
        spreads = (
            _ratio(row, OURS, LOOP),
            _ratio(row, OURS, LOOP, lambda run: run.per_sender_s),
            _cpu_ratio(row),
            _ratio(row, OURS, BROADCAST),
            _ratio(row, SECOND, OURS),
            *(_ratio(row, OURS, peer) for peer in peers),
        )
        shown = (show_spread(spread) if spread is not None else "" for spread in spreads)
        cells.append([_label(row), *shown])
    columns = (
        "to send(2)",
        "to send(2), by the loop's clock",
        "to send(2), by CPU",
        "to broadcast",
        f"{SECOND} to {OURS}",
        *(f"to {peer}" for peer in peers),
    )
    return Table("Ratios, round by round", (_ROWS, *columns), cells)


def _plots(rows: Sequence[Measured]) -> list[Bars]:
    names = _columns(rows)
    speeds = [
        (
            _label(row).replace(" x", "\nx"),
            [(name, Spread.of([run.per_s for run in row.runs[name]])) for name in names if name in row.runs],
        )
        for row in rows
    ]
    ratios = [
        (_label(row).replace(" x", "\nx"), [("ratio", ratio)])
        for row in rows
        if (ratio := _ratio(row, OURS, LOOP)) is not None
    ]
    return [
        Bars("Deliveries", "deliveries/s, subscribers x frames per write", speeds),
        Bars("Node to send(2)", "ratio, round by round", ratios, target=LOOP_TARGETS[500]),
    ]
