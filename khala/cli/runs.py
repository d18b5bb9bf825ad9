"""``khala runs``: the runs of this user, newest first, and giving one to somebody else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import click
import trio
from rich.table import Table
from rich.text import Text

from khala.cli.locations import find_settings, profile_option
from khala.cli.run_repair import drift_command, rebuild_command
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.wording import duration_text, printable, relative_time
from khala_client.ring.requests import new_key
from khala_client.ring.retry import Retry
from khala_client.trio import Khala
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from khala_client.resources import RunInfo

__all__ = ["run_record", "runs_command", "runs_table"]

RUNS_DEFAULT: Final = 20
_PATIENCE_S: Final = 20.0
_STATE_STYLES: Final = {
    "running": "bold cyan",
    "created": "cyan",
    "paused": "yellow",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
}
_STATE_SYMBOLS: Final = {
    "running": "▶",
    "created": "·",
    "paused": "‖",
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "■",
}


def run_record(run: RunInfo) -> dict[str, object]:
    """Return a run as JSON values."""
    return {
        "type": "run",
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "topic": run.topic,
        "head_seq": None if run.watermark is None else str(run.watermark.seq),
        "owner_user_id": run.owner_user_id,
        "org_id": run.org_id,
        "agent": run.agent,
        "source": run.source,
        "attributes": dict(run.attributes),
        "created_at_s": run.created_at_s,
        "finished_at_s": run.finished_at_s,
    }


def runs_table(runs: list[RunInfo], *, now_s: float, is_decorated: bool) -> Table:
    """Return runs as a table for people."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("name", overflow="fold")
    for run in runs:
        symbol = f"{_STATE_SYMBOLS.get(run.state, '·')} " if is_decorated else ""
        took_s = (run.finished_at_s or now_s) - run.created_at_s
        origin = ", ".join(part for part in (run.agent, run.source) if part)
        table.add_row(
            run.run_id,
            Text(symbol + run.state, style=_STATE_STYLES.get(run.state, "")),
            "" if run.watermark is None else f"{run.watermark.seq:,}",
            relative_time(run.created_at_s, now_s),
            duration_text(max(took_s, 0.0)),
            Text.assemble(printable(run.name), (f"  {printable(origin)}" if origin else "", "dim")),
        )
    return table


@click.group("runs", invoke_without_command=True)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000),
    default=RUNS_DEFAULT,
    show_default=True,
    help="Most runs to list.",
)
@profile_option
@json_option
@click.pass_context
def runs_command(context: click.Context, limit: int, profile: Path | None, *, is_json: bool) -> None:
    """List your runs and those of your orgs, newest first."""
    if context.invoked_subcommand is not None:
        return
    terminal = open_terminal(is_json=is_json)

    async def read() -> list[RunInfo]:
        runs: list[RunInfo] = []
        page_token = ""
        async with Khala(find_settings(profile)) as khala:
            while len(runs) < limit:
                page = await khala.runtime.list_runs(page_token=page_token)
                runs += page.runs
                page_token = page.next_page_token
                if not page_token:
                    break
        return runs[:limit]

    _show(terminal, trio.run(read))


@runs_command.command("transfer")
@click.argument("run_id")
@click.option("--to", "owner_user_id", required=True, help="Id of the new owner, a member of the run's org.")
@profile_option
@json_option
def transfer_command(run_id: str, owner_user_id: str, profile: Path | None, *, is_json: bool) -> None:
    """Give a run to another member of its org; you lose what only its owner may."""
    terminal = open_terminal(is_json=is_json)
    key = new_key()

    async def transfer() -> RunInfo:
        async with Khala(find_settings(profile)) as khala:
            return await Retry(random.SystemRandom(), patience_s=_PATIENCE_S).attempt(
                lambda: khala.runtime.transfer_run(run_id, owner_user_id, idempotency_key=key)
            )

    run = trio.run(transfer)
    terminal.data(run_record(run))
    terminal.show(Text(f"{run.run_id} belongs to {run.owner_user_id} now."))


runs_command.add_command(drift_command)
runs_command.add_command(rebuild_command)


def _show(terminal: Terminal, runs: list[RunInfo]) -> None:
    for run in runs:
        terminal.data(run_record(run))
    if runs:
        terminal.show(runs_table(runs, now_s=SystemClock().now(), is_decorated=terminal.is_decorated))
    else:
        terminal.show(Text("No runs yet. `khala record -- COMMAND` makes one.", style="dim"))
