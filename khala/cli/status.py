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
from khala.cli.wording import count_text, relative_time
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    """Ask every service of a running system whether it is ready, all at once; the one origin first."""
    urls = {
        "origin": record.origin,
        "control": record.control_url,
        "runtime": record.runtime_url,
        **_node_urls(record),
    }
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


def _node_urls(record: UpRecord) -> dict[str, str]:
    if not record.processes or not record.nodes:
        return {"node": record.admin_url}
    return {str(node["name"]): str(node["admin_url"]) for node in record.nodes}


async def _check(http: httpx.AsyncClient, name: str, url: str) -> ServiceState:
    if not url:
        return ServiceState(name, url, is_ready=False, detail="starting")
    try:
        answer = await http.get(f"{url}/readyz")
    except httpx.HTTPError as error:
        return ServiceState(name, url, is_ready=False, detail=f"no answer ({type(error).__name__})")
    # The origin passes on what control says, which control is asked itself: any answer shows that it is there.
    if answer.status_code == httpx.codes.OK or name == "origin":
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
@click.option("--pid", "pid_of", metavar="NAME", default=None, help="Print the pid of one process only.")
@json_option
def status_command(data_dir: Path, pid_of: str | None, *, is_json: bool) -> int:
    """Say whether khala up runs on a data directory, and how its services are (exit status 1 if not)."""
    terminal = open_terminal(is_json=is_json)
    data_dir = data_dir.expanduser().absolute()
    record = living_record(data_dir)
    if record is None:
        terminal.show(Text.assemble(("○ ", "bold"), f"Nothing runs on {data_dir}; `khala up` starts it."))
        terminal.data({"type": "status", "running": False, "data_dir": str(data_dir)})
        return EXIT_FAILED
    if pid_of is not None:
        terminal.line(str(_pid_of(record, pid_of)))
        terminal.data({"type": "pid", "name": pid_of, "pid": _pid_of(record, pid_of)})
        return 0
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
            "nodes": record.nodes,
            "processes": _processes(record, services),
            "services": {state.name: {"ready": state.is_ready, "detail": state.detail} for state in services},
        }
    )
    _show(terminal, record, services, is_ready=is_ready)
    return 0 if is_ready else EXIT_FAILED


def _pid_of(record: UpRecord, name: str) -> int:
    """Return the pid of a process.

    Raises:
        CommandFailed: There is none of this name.
    """
    pids = {"khala": record.pid, **record.processes}
    if name not in pids:
        raise CommandFailed(f"no process {name} runs here; there are {', '.join(pids)}")
    return pids[name]


def _processes(record: UpRecord, services: list[ServiceState]) -> dict[str, dict[str, object]]:
    """Return each child process: pid, state, restarts, and whether it says that it is ready."""
    said = {state.name: state for state in services}
    processes: dict[str, dict[str, object]] = {}
    for name, pid in record.processes.items():
        child = record.children.get(name, {})
        state = str(child.get("state", ""))
        service = said.get(name)
        processes[name] = {
            "pid": pid,
            "state": state,
            "restarts": child.get("restarts", 0),
            "ready": state == "running" if service is None else service.is_ready,
            "detail": "" if service is None else service.detail,
        }
    return processes


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
    said = {state.name: state for state in services}
    processes = _processes(record, services)
    for name in dict.fromkeys((*processes, *said)):
        service, process = said.get(name), processes.get(name, {})
        is_well = service.is_ready if service is not None else bool(process["ready"])
        mark, colour = ("✓", "green") if is_well else ("✗", "red")
        table.add_row(
            Text(f"  {mark}", style=colour),
            name,
            service.url if service is not None else "",
            _process_text(process),
            Text(service.detail if service is not None else "", style="yellow"),
        )
    terminal.show(table)
    terminal.show(Text(f"  profile  {record.profile}", style="dim"))


def _process_text(process: Mapping[str, object]) -> Text:
    if not process:
        return Text()
    restarts = process["restarts"]
    again = f", {count_text(int(str(restarts)), 'restart')}" if restarts else ""
    return Text(f"pid {process['pid']}, {process['state']}{again}", style="dim")
