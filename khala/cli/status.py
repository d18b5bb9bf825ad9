"""``khala status`` and ``khala down``: look at the ``khala up`` of a data directory, and end it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import attrs
import click
import httpx
import trio
from rich.table import Table
from rich.text import Text

from khala.adapters.embedded_postgres_processes import process_identity, send_signal
from khala.cli.failures import EXIT_FAILED, CommandFailed
from khala.cli.locations import data_dir_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.up_record import UpRecord, living_record
from khala.cli.wording import relative_time
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ServiceState", "check_services", "down_command", "failed_checks", "status_command"]

READY_TIMEOUT_S: Final = 3.0
# `khala up` needs at most 5 s; then something is wrong, and the command says so instead of killing.
DOWN_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05


@attrs.frozen
class ServiceState:
    """What one service says of itself: ``ready``, or why not."""

    name: str
    url: str
    is_ready: bool
    detail: str = ""


async def check_services(record: UpRecord) -> list[ServiceState]:
    """Ask every service of a running system whether it is ready, all at once."""
    urls = {"control": record.control_url, "runtime": record.runtime_url, "node": record.admin_url}
    states: dict[str, ServiceState] = {}

    async def check(name: str, url: str) -> None:
        states[name] = await _check(http, name, url)

    async with (
        httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http,
        trio.open_nursery() as asking,
    ):
        for name, url in urls.items():
            asking.start_soon(check, name, url)
    return [states[name] for name in urls]


async def _check(http: httpx.AsyncClient, name: str, url: str) -> ServiceState:
    if not url:
        return ServiceState(name, url, is_ready=False, detail="starting")
    try:
        answer = await http.get(f"{url}/readyz")
    except httpx.HTTPError as error:
        return ServiceState(name, url, is_ready=False, detail=f"no answer ({type(error).__name__})")
    if answer.status_code == httpx.codes.OK:
        return ServiceState(name, url, is_ready=True)
    return ServiceState(name, url, is_ready=False, detail=failed_checks(answer))


def failed_checks(answer: httpx.Response) -> str:
    """Return what a readiness answer says is wrong; its status if it says nothing."""
    try:
        checks = answer.json()["checks"]
        failed = [f"{name}: {state}" for name, state in checks.items() if state != "ok"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"not ready (HTTP {answer.status_code})"
    return "; ".join(failed) or f"not ready (HTTP {answer.status_code})"


@click.command("status")
@data_dir_option
@json_option
def status_command(data_dir: Path, *, is_json: bool) -> int:
    """Say whether khala up runs on a data directory, and how its services are (exit status 1 if not)."""
    terminal = open_terminal(is_json=is_json)
    data_dir = data_dir.expanduser().absolute()
    record = living_record(data_dir)
    if record is None:
        terminal.show(Text.assemble(("○ ", "bold"), f"Nothing runs on {data_dir}."))
        terminal.data({"type": "status", "running": False, "data_dir": str(data_dir)})
        return EXIT_FAILED
    services = trio.run(check_services, record)
    is_ready = record.is_ready and all(state.is_ready for state in services)
    terminal.data(
        {
            "type": "status",
            "running": True,
            "ready": is_ready,
            "data_dir": str(data_dir),
            "pid": record.pid,
            "version": record.version,
            "started_at_s": record.started_at_s,
            "postgres_port": record.postgres_port,
            **record.urls,
            "services": {state.name: {"ready": state.is_ready, "detail": state.detail} for state in services},
        }
    )
    _show(terminal, record, services, is_ready=is_ready)
    return 0 if is_ready else EXIT_FAILED


@click.command("down")
@data_dir_option
@json_option
def down_command(data_dir: Path, *, is_json: bool) -> int:
    """End the khala up of a data directory and wait until it is gone."""
    terminal = open_terminal(is_json=is_json)
    data_dir = data_dir.expanduser().absolute()
    record = living_record(data_dir)
    if record is None:
        terminal.show(Text.assemble(("○ ", "bold"), f"Nothing runs on {data_dir}."))
        terminal.data({"type": "down", "was_running": False, "data_dir": str(data_dir)})
        return 0
    send_signal(record.pid, signal.SIGTERM)
    if not trio.run(_wait_gone, record):
        raise CommandFailed(
            f"process {record.pid} has been told to end, but still runs after {DOWN_TIMEOUT_S:.0f} s"
        )
    terminal.show(Text.assemble(("○ ", "bold"), "Khala is down."))
    terminal.data({"type": "down", "was_running": True, "data_dir": str(data_dir), "pid": record.pid})
    return 0


async def _wait_gone(record: UpRecord) -> bool:
    with trio.move_on_after(DOWN_TIMEOUT_S):
        while process_identity(record.pid) == record.identity:  # noqa: ASYNC110 - a process sets no trio.Event
            await trio.sleep(POLL_S)
        return True
    return False


def _show(terminal: Terminal, record: UpRecord, services: list[ServiceState], *, is_ready: bool) -> None:
    since = relative_time(record.started_at_s, SystemClock().now())
    word, style = ("is up", "bold green") if is_ready else ("is not ready", "bold yellow")
    terminal.show(
        Text.assemble(
            ("● ", style), (f"Khala {word}", "bold"), f"  {record.version}, pid {record.pid}, started {since}"
        )
    )
    table = Table.grid(padding=(0, 2))
    for state in services:
        mark, colour = ("✓", "green") if state.is_ready else ("✗", "red")
        table.add_row(
            Text(f"  {mark}", style=colour), state.name, state.url, Text(state.detail, style="yellow")
        )
    terminal.show(table)
    terminal.show(Text(f"  profile  {record.profile}", style="dim"))
