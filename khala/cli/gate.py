"""``khala gate``: whether a rollout may go on, by how fan-out does over all nodes (KH-27).

Reads the runtime's fan-out metrics. Ends with 1 as soon as a check fails, with 0 once the whole window has been
seen without that. A runtime that has not watched for so long (it remembers nothing over its own start) is waited
for, or with ``--no-wait`` judged by what it has seen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import httpx
import trio
from rich.text import Text

from khala.cli.durations import duration
from khala.cli.failures import EXIT_FAILED, CommandFailed
from khala.cli.gate_checks import judge_fanout
from khala.cli.locations import data_dir_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.up_record import living_record
from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_contracts.errors import WireError
from khala_service.secret import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala.cli.gate_checks import GateCheck

__all__ = ["GateSource", "find_gate_source", "gate_command", "watch_gate"]

ROUTE: Final = "/internal/v1/khala/fanout/metrics"
# As the runtime takes them.
WINDOW_MIN_S: Final = 10
WINDOW_MAX_S: Final = 3_600
TIMEOUT_S: Final = 10.0
# As often as nodes report.
ASK_EVERY_S: Final = 5.0


@attrs.frozen
class GateSource:
    """Whom to ask, and with what."""

    runtime_url: str
    admin_token: str = attrs.field(repr=False)


@click.command("gate")
@click.option(
    "--window", "window_s", type=duration, default="10m", show_default=True, help="How far back: 10s to 1h."
)
@click.option("--no-wait", is_flag=True, help="Judge what has been seen, also if it is less than the window.")
@data_dir_option
@click.option(
    "--runtime-url",
    default=None,
    envvar="RUNTIME_BASE_URL",
    help="Ask this runtime, of a deployment that is not khala up's.  [env: RUNTIME_BASE_URL]",
)
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="File with its admin token; or RUNTIME_ADMIN_TOKEN.",
)
@json_option
def gate_command(
    window_s: int,
    data_dir: Path,
    runtime_url: str | None,
    admin_token_file: Path | None,
    *,
    no_wait: bool,
    is_json: bool,
) -> int:
    """Judge a rollout: exit 1 if fan-out is unfair, nodes are silent, or slow consumers or evictions rise."""
    if not WINDOW_MIN_S <= window_s <= WINDOW_MAX_S:
        raise click.UsageError(f"--window: {WINDOW_MIN_S}s to {WINDOW_MAX_S // 60}m")
    source = find_gate_source(
        data_dir, runtime_url=runtime_url, admin_token_file=admin_token_file, environ=os.environ
    )
    terminal = open_terminal(is_json=is_json)
    checks = trio.run(watch_gate, terminal, source, window_s, not no_wait)
    is_open = all(check.passed for check in checks)
    for check in checks:
        mark, style = ("✓ ", "green") if check.passed else ("✗ ", "red")
        terminal.show(Text.assemble((mark, style), (f"{check.name:<11}", "bold"), check.text))
    terminal.data(
        {"type": "gate", "passed": is_open, "window_s": window_s, "checks": [attrs.asdict(c) for c in checks]}
    )
    return 0 if is_open else EXIT_FAILED


def find_gate_source(
    data_dir: Path,
    *,
    runtime_url: str | None,
    admin_token_file: Path | None,
    environ: Mapping[str, str],
) -> GateSource:
    """Return whom to ask: what was named, or the khala up that runs on the data directory.

    Raises:
        UsageError: A runtime was named and no token.
        CommandFailed: None was named and nothing runs there, or the file holds no token.
    """
    token = environ.get("RUNTIME_ADMIN_TOKEN", "")
    if runtime_url is None:
        record = living_record(data_dir.expanduser().absolute())
        if record is None or not record.is_ready:
            raise CommandFailed(f"nothing runs on {data_dir}; name a runtime with --runtime-url")
        runtime_url, token = record.runtime_url, ""
        admin_token_file = admin_token_file or Path(record.admin_token_file)
    if admin_token_file is not None:
        try:
            token = read_secret_file(admin_token_file).reveal()
        except ValueError as error:
            raise CommandFailed(f"the admin token cannot be used: {error}") from error
    if not token:
        raise click.UsageError("give the admin token: --admin-token-file or RUNTIME_ADMIN_TOKEN")
    return GateSource(runtime_url.rstrip("/"), token)


async def watch_gate(
    terminal: Terminal, source: GateSource, window_s: int, is_waiting: bool
) -> list[GateCheck]:
    """Return the checks: at once if one of them fails, else when the window has been seen.

    Raises:
        CommandFailed: The runtime does not answer, or not so that it could be judged.
    """
    headers = {"Authorization": f"Bearer {source.admin_token}", "Accept": "application/x-protobuf"}
    remaining_s: int | None = None
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, headers=headers) as http:
        while True:
            metrics = await _ask(http, source, window_s)
            checks = judge_fanout(metrics)
            missing_s = window_s - metrics.trend.covered_s
            if not is_waiting or missing_s <= 0 or not all(check.passed for check in checks):
                return checks
            if remaining_s is None:
                terminal.remark(f"The runtime has watched for less than the window; {missing_s} s to go.")
            remaining_s = missing_s
            await trio.sleep(min(ASK_EVERY_S, missing_s))


async def _ask(http: httpx.AsyncClient, source: GateSource, window_s: int) -> m.FanoutMetricsResponse:
    url = source.runtime_url + ROUTE
    try:
        answer = await http.get(url, params={"topic_limit": "1", "window_s": str(window_s)})
    except httpx.HTTPError as error:
        raise CommandFailed(f"{source.runtime_url} does not answer ({type(error).__name__})") from error
    if answer.status_code != httpx.codes.OK:
        raise CommandFailed(f"{source.runtime_url} answers HTTP {answer.status_code}; is it the admin token?")
    try:
        return codec.decode_message_untrusted(m.FanoutMetricsResponse, answer.content)
    except WireError as error:
        raise CommandFailed(f"{source.runtime_url} gives no fan-out metrics: {error}") from error
