"""What ``khala load cycles`` says: what a node holds before and after tens of thousands of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.report import Report, Table, Target, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.load.cycles_setup import Baseline, CyclesSetup, Kind

__all__ = ["GROWTH_MAX_MB", "cycles_report"]

# 0.1 kB for each of 50,000 cycles: below the smallest object that one could leave behind, its place in a list.
GROWTH_MAX_MB: Final = 5.0


def cycles_report(
    setup: CyclesSetup,
    done: Mapping[Kind, int],
    seconds: float,
    before: Baseline,
    after: Baseline,
    environment: Mapping[str, object],
    overrides: Mapping[str, object],
) -> Report:
    """Return the report of two looks at a node at rest."""
    growth_mb = (after.rss_bytes - before.rss_bytes) / 1e6
    return Report(
        name="cycles",
        title=f"{setup.cycles:,} connections that came and went",
        command=_command(setup),
        environment=environment,
        overrides=overrides,
        targets=[
            Target.at_most("tasks above the baseline", 0, after.tasks - before.tasks),
            Target.at_most("descriptors above the baseline", 0, after.descriptors - before.descriptors),
            Target.at_most("series of metrics that were not there", 0, len(after.series - before.series)),
            Target.at_most("crashes", 0, after.crashes),
            Target.at_most("growth of memory, MB", GROWTH_MAX_MB, growth_mb),
            Target.at_least("cycles", setup.cycles, sum(done.values())),
        ],
        results=[
            {
                "setup": attrs.asdict(setup),
                "cycles": dict(done),
                "cycles_per_s": sum(done.values()) / seconds,
                "before": _held(before),
                "after": _held(after),
            }
        ],
        tables=[
            Table("Cycles", ("kind", "number"), [[kind, str(count)] for kind, count in done.items()]),
            Table(
                "The node at rest",
                ("held", f"after {setup.warm_up} cycles", f"after {setup.cycles} more"),
                [[name, show(_held(before)[name]), show(value)] for name, value in _held(after).items()],
            ),
        ],
        text=_TEXT,
        notes=_NOTES,
        not_measured=_NOT_MEASURED,
    )


_TEXT: Final = (
    "Each cycle is a connection with a token of its own to a real `khala node`: upgrade, hello, subscribe, and an end. "
    "`orderly` closes in good order, `abrupt` resets the connection, `mid_hello` cuts it within or right after the "
    "hello, `mid_replay` asks for 2,000 frames through a small receive buffer and leaves with the first of them. The "
    "node is looked at when nobody is connected and its topics have stopped.",
)
_NOTES: Final = (
    "Tasks and descriptors are counted without those of connections to the database, which are opened and closed by "
    "rules of their own.",
    "Memory is resident: what the allocator keeps for the next connections is in it, before and after.",
)
_NOT_MEASURED: Final = ("The JSON subprotocol, TLS and the second WebSocket adapter.",)


def _command(setup: CyclesSetup) -> str:
    words = ["khala load cycles"]
    for field in attrs.fields(type(setup)):
        value = getattr(setup, field.name)
        if value != field.default:
            words.append(f"--{field.name.replace('_', '-')} {value}")
    return " ".join(words)


def _held(seen: Baseline) -> dict[str, float]:
    return {
        "tasks": seen.tasks,
        "descriptors": seen.descriptors,
        "database_connections": seen.database_connections,
        "series": len(seen.series),
        "rss_mb": seen.rss_bytes / 1e6,
    }
