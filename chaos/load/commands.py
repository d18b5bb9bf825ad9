"""``khala bench``: registered in the entry-point group ``khala.commands``."""

from __future__ import annotations

import json

import click

from chaos.load.fanout import FanoutSetup, measure_fanout
from chaos.load.native_tools import CompilerMissingError


@click.group()
def bench() -> None:
    """Measure this machine; every figure is a ratio to a reference of the same run."""


@bench.command()
@click.option("--subscribers", default=500, show_default=True, help="WebSocket connections.")
@click.option(
    "--frames-per-write",
    "frames_per_write",
    multiple=True,
    default=(1, 4, 16),
    show_default=True,
    help="May be given several times.",
)
@click.option("--writes", default=400, show_default=True, help="Writes per measurement.")
@click.option("--payload-bytes", default=200, show_default=True)
@click.option("--pairs", default=9, show_default=True, help="Alternating pairs per setup.")
def fanout(
    subscribers: int, frames_per_write: tuple[int, ...], writes: int, payload_bytes: int, pairs: int
) -> None:
    """Fan-out of one topic beside a C loop of send(2); prints JSON."""
    setups = [FanoutSetup(subscribers, count, writes, payload_bytes) for count in frames_per_write]
    try:
        result = measure_fanout(setups, pairs=pairs, report=_progress)
    except CompilerMissingError as exc:
        result = {"benchmark": "fanout", "skipped": str(exc)}
    click.echo(json.dumps(result, indent=2))


def _progress(line: str) -> None:
    click.echo(line, err=True)
