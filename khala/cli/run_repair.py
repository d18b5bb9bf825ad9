"""``khala runs drift`` and ``khala runs rebuild``: for operators, the read model of runs against its events.

Both ask the runtime on its operators' routes, page by page, with the admin token. Nothing here decides what
is right: the fold from the first event does (runbooks/projections.md).
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import click
import trio
from google.protobuf.message import Message
from rich.text import Text

from khala.cli.failures import EXIT_FAILED, CommandFailed
from khala.cli.locations import data_dir_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.up_record import living_record
from khala.cli.wording import printable
from khala_client.http_calls import open_http, send
from khala_client.ring.retry import Retry
from khala_contracts import http_messages as m
from khala_service.secret import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx

__all__ = ["drift_command", "rebuild_command"]

_DRIFT: Final = "/internal/v1/projections/drift"
_REBUILD: Final = "/internal/v1/projections/rebuild"
# Of one page: a page is answered within 20 s.
_PATIENCE_S: Final = 120.0
_Page = TypeVar("_Page", bound=Message)


@attrs.frozen
class _Operator:
    """Whom to ask, and with what."""

    runtime_url: str
    token: str = attrs.field(repr=False)

    async def ask(
        self, http: httpx.AsyncClient, method: str, path: str, answer: type[_Page], page_token: str
    ) -> _Page:
        """Return a page, asking again for two minutes where there is no answer."""
        query = {"page_token": page_token} if page_token else None
        retry = Retry(random.SystemRandom(), patience_s=_PATIENCE_S)
        return await retry.attempt(
            partial(send, http, method, self.runtime_url + path, answer, bearer=self.token, query=query)
        )


@attrs.define
class _Totals:
    """What all pages together said."""

    runs: int = 0
    bad: int = 0
    changed: int = 0
    summaries: int = 0


def _operator_options(command: Callable[..., int]) -> Callable[..., int]:
    for option in (
        click.option(
            "--admin-token-file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            default=None,
            help="File with the admin token of that runtime.",
        ),
        click.option(
            "--runtime-url", default=None, help="Ask this runtime, of a deployment that is not khala up's."
        ),
        data_dir_option,
    ):
        command = option(command)
    return command


@click.command("drift")
@_operator_options
@json_option
def drift_command(
    data_dir: Path, runtime_url: str | None, admin_token_file: Path | None, *, is_json: bool
) -> int:
    """Compare the list of all runs with their events; exit status 1 if a run differs."""
    terminal = open_terminal(is_json=is_json)
    operator = _find_operator(data_dir, runtime_url, admin_token_file)
    totals = trio.run(_drift, terminal, operator)
    terminal.data({"type": "drift", "runs": totals.runs, "differing": totals.bad})
    if totals.bad:
        terminal.show(
            Text(f"{totals.bad:,} of {totals.runs:,} runs differ; `khala runs rebuild` repairs them.")
        )
        return EXIT_FAILED
    terminal.show(Text(f"{totals.runs:,} runs agree with their events."))
    return 0


@click.command("rebuild")
@_operator_options
@json_option
def rebuild_command(
    data_dir: Path, runtime_url: str | None, admin_token_file: Path | None, *, is_json: bool
) -> int:
    """Build the list of all runs again from their events, while everything goes on."""
    terminal = open_terminal(is_json=is_json)
    operator = _find_operator(data_dir, runtime_url, admin_token_file)
    totals = trio.run(_rebuild, terminal, operator)
    terminal.data(
        {
            "type": "rebuild",
            "runs": totals.runs,
            "changed": totals.changed,
            "summaries": totals.summaries,
            "failed": totals.bad,
        }
    )
    terminal.show(
        Text(
            f"{totals.runs:,} runs built again: {totals.changed:,} were wrong, {totals.bad:,} could not be built."
        )
    )
    return EXIT_FAILED if totals.bad else 0


def _find_operator(data_dir: Path, runtime_url: str | None, token_file: Path | None) -> _Operator:
    if (runtime_url is None) is not (token_file is None):
        raise click.UsageError("name --runtime-url and --admin-token-file together")
    if runtime_url is None or token_file is None:
        record = living_record(data_dir.expanduser().absolute())
        if record is None or not record.is_ready:
            raise CommandFailed(f"nothing runs on {data_dir}; name a deployment with --runtime-url and so on")
        runtime_url, token_file = record.runtime_url, Path(record.admin_token_file)
    try:
        return _Operator(runtime_url.rstrip("/"), read_secret_file(token_file).reveal())
    except ValueError as error:
        raise CommandFailed(f"the admin token cannot be used: {error}") from error


async def _drift(terminal: Terminal, operator: _Operator) -> _Totals:
    totals, page_token = _Totals(), ""
    async with open_http() as http:
        while True:
            page = await operator.ask(http, "GET", _DRIFT, m.ProjectionDriftResponse, page_token)
            totals.runs += page.checked
            totals.bad += page.difference_count
            _name(terminal, page.differences)
            page_token = page.next_page_token
            if not page_token:
                return totals
            terminal.remark(f"{totals.runs:,} runs compared")


async def _rebuild(terminal: Terminal, operator: _Operator) -> _Totals:
    totals, page_token = _Totals(), ""
    async with open_http() as http:
        while True:
            page = await operator.ask(http, "POST", _REBUILD, m.RebuildProjectionsResponse, page_token)
            totals.runs += page.rebuilt
            totals.changed += page.changed
            totals.summaries += page.summaries
            totals.bad += page.failure_count
            _name(terminal, page.failures)
            page_token = page.next_page_token
            if not page_token:
                return totals
            terminal.remark(f"{totals.runs:,} runs built")


def _name(terminal: Terminal, found: Iterable[m.ProjectionDifference]) -> None:
    for item in found:
        terminal.data({"type": "run", "run_id": item.run_id, "problem": item.problem})
        terminal.line(f"{item.run_id} {printable(item.problem)}")
