"""``khala explain TOPIC SEQ``: for one frame, when it was committed, how it went, and who got it or why not.

Asks the runtime and every node on their operators' routes, with the admin token, and puts their answers
on one timeline. Where something does not answer, the rest is still shown, and the exit status is 1.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import httpx
import trio
from rich.text import Text

from khala.cli.explain_answers import NodeAnswer, RuntimeAnswer, read_node_answer, read_runtime_answer
from khala.cli.explain_timeline import Explained, TimelineEntry, explain
from khala.cli.failures import EXIT_FAILED, CommandFailed
from khala.cli.locations import data_dir_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.topics import parse_topic_argument
from khala.cli.up_record import living_record
from khala.cli.wording import duration_text
from khala_contracts.frames import SEQ_MAX
from khala_service.secret import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.topics import TopicName

__all__ = ["Asked", "Sources", "explain_command", "find_sources"]

ROUTE: Final = "/internal/v1/explain"
TIMEOUT_S: Final = 10.0
_GOOD: Final = frozenset({"committed", "published", "announced", "appended", "fanned_out", "delivered"})
_NEUTRAL: Final = frozenset({"checked", "healed", "before", "not_asked", "not_followed", "not_published"})


@attrs.frozen
class Sources:
    """Whom to ask, and with what."""

    runtime_url: str
    node_urls: tuple[str, ...]
    token_file: Path


@attrs.frozen
class Asked:
    """What was answered; ``failures`` says by URL what did not answer."""

    runtime: RuntimeAnswer | None
    nodes: tuple[NodeAnswer, ...]
    failures: Mapping[str, str]


@click.command("explain")
@click.argument("topic")
@click.argument("seq", type=click.IntRange(1, SEQ_MAX))
@click.option("--connection", "connection_id", default=None, help="Show this connection only.")
@data_dir_option
@click.option("--runtime-url", default=None, help="Ask this runtime, of a deployment that is not khala up's.")
@click.option(
    "--node-url", "node_urls", multiple=True, help="Ask the node with this admin URL; may be repeated."
)
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="File with the admin token of runtime and nodes.",
)
@json_option
def explain_command(
    topic: str,
    seq: int,
    connection_id: str | None,
    data_dir: Path,
    runtime_url: str | None,
    node_urls: tuple[str, ...],
    admin_token_file: Path | None,
    *,
    is_json: bool,
) -> int:
    """Explain the frame SEQ of TOPIC (or of a run's id): its commit, its way, and each delivery of it."""
    terminal = open_terminal(is_json=is_json)
    name = parse_topic_argument(topic)
    sources = find_sources(
        data_dir, runtime_url=runtime_url, node_urls=node_urls, admin_token_file=admin_token_file
    )
    asked = trio.run(ask_all, sources, name, seq)
    explained = explain(seq, asked.runtime, asked.nodes, connection_id=connection_id)
    _print(terminal, name, seq, explained, asked)
    return EXIT_FAILED if asked.failures else 0


def find_sources(
    data_dir: Path,
    *,
    runtime_url: str | None,
    node_urls: tuple[str, ...],
    admin_token_file: Path | None,
) -> Sources:
    """Return whom to ask: what was named, or the khala up that runs on the data directory.

    Raises:
        UsageError: Only a part of a deployment was named.
        CommandFailed: None was named, and nothing runs there.
    """
    if runtime_url or node_urls or admin_token_file is not None:
        if not (runtime_url and node_urls and admin_token_file is not None):
            raise click.UsageError("name --runtime-url, --node-url and --admin-token-file together")
        return Sources(runtime_url, node_urls, admin_token_file)
    data_dir = data_dir.expanduser().absolute()
    record = living_record(data_dir)
    if record is None or not record.is_ready:
        raise CommandFailed(f"nothing runs on {data_dir}; name a deployment with --runtime-url and so on")
    urls = tuple(str(node["admin_url"]) for node in record.nodes) or (record.admin_url,)
    return Sources(record.runtime_url, urls, Path(record.admin_token_file))


async def ask_all(sources: Sources, topic: TopicName, seq: int) -> Asked:
    """Ask runtime and nodes, all at once.

    Raises:
        CommandFailed: The file of the admin token cannot be used.
    """
    try:
        token = read_secret_file(sources.token_file).reveal()
    except ValueError as error:
        raise CommandFailed(f"the admin token cannot be used: {error}") from error
    answers: dict[str, Mapping[str, object]] = {}
    failures: dict[str, str] = {}

    async def ask(http: httpx.AsyncClient, url: str) -> None:
        try:
            answer = await http.get(url + ROUTE, params={"topic": topic, "seq": str(seq)})
            document = answer.json() if answer.status_code == httpx.codes.OK else None
        except httpx.HTTPError as error:
            failures[url] = f"no answer ({type(error).__name__})"
        except ValueError:
            failures[url] = "no JSON"
        else:
            if isinstance(document, dict):
                answers[url] = document
            else:
                failures[url] = f"HTTP {answer.status_code}"

    async with (
        httpx.AsyncClient(
            timeout=TIMEOUT_S, trust_env=False, headers={"Authorization": f"Bearer {token}"}
        ) as http,
        trio.open_nursery() as asking,
    ):
        for url in (sources.runtime_url, *sources.node_urls):
            asking.start_soon(ask, http, url.rstrip("/"))
    return _read_answers(sources, answers, failures)


def _read_answers(
    sources: Sources, answers: Mapping[str, Mapping[str, object]], failures: dict[str, str]
) -> Asked:
    runtime: RuntimeAnswer | None = None
    nodes: list[NodeAnswer] = []
    for url, document in answers.items():
        try:
            if url == sources.runtime_url.rstrip("/"):
                runtime = read_runtime_answer(document)
            else:
                nodes.append(read_node_answer(document))
        except ValueError as error:
            failures[url] = f"not understood: {error}"
    return Asked(runtime, tuple(sorted(nodes, key=lambda node: node.node_id)), failures)


def _print(terminal: Terminal, topic: TopicName, seq: int, explained: Explained, asked: Asked) -> None:
    terminal.data(
        {
            "type": "explanation",
            "topic": topic,
            "seq": str(seq),
            "timeline": [_record(entry) for entry in explained.timeline],
            "delivered": explained.delivered,
            "undelivered": explained.undelivered,
            "verdict": explained.verdict,
            "failures": dict(asked.failures),
        }
    )
    terminal.show(Text.assemble((topic, "bold"), f"  seq {seq:,}"))
    began = next((entry.when.first_us for entry in explained.timeline if entry.when is not None), None)
    width = max((len(entry.place) for entry in explained.timeline), default=0)
    for entry in explained.timeline:
        terminal.show(
            Text.assemble(
                (f"  {_time_text(entry, began):<34}", "dim"),
                f"{entry.place:<{width}}  ",
                (entry.text, _style(entry)),
            )
        )
    terminal.show(Text(explained.verdict, style="bold"))
    for url, why in asked.failures.items():
        terminal.remark(f"{url}: {why}", style="red")


def _style(entry: TimelineEntry) -> str:
    if entry.reason in _GOOD:
        return "green"
    return "" if entry.reason in _NEUTRAL else "yellow"


def _record(entry: TimelineEntry) -> dict[str, object]:
    when = entry.when
    return {
        "place": entry.place,
        "reason": entry.reason,
        "first_us": when.first_us if when is not None else None,
        "last_us": when.last_us if when is not None else None,
        "text": entry.text,
    }


def _time_text(entry: TimelineEntry, began_us: int | None) -> str:
    """Return when: the time of day, and how long after the first entry; with how far it is uncertain."""
    when = entry.when
    if when is None or began_us is None:
        return ""
    at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=when.first_us)
    text = f"{at:%H:%M:%S.%f}"
    after_s = (when.first_us - began_us) / 1e6
    text += f" +{duration_text(after_s)}" if after_s >= 0 else f" -{duration_text(-after_s)}"
    if when.last_us > when.first_us:
        text += f" (within {duration_text((when.last_us - when.first_us) / 1e6)})"
    return text
