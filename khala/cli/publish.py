"""``khala publish``: append events to a run or an app topic from the command line or a pipe."""

from __future__ import annotations

import json
import random
import sys
from typing import TYPE_CHECKING, Final

import attrs
import click
import trio

from khala.cli.failures import CommandFailed
from khala.cli.locations import find_settings, profile_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.topics import parse_topic_argument
from khala_client.outgoing import OutgoingEvent
from khala_client.ring.requests import new_key
from khala_client.ring.retry import Retry
from khala_client.trio import Khala
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

    from khala_client.resources import Ack
    from khala_contracts.topics import ParsedTopic

__all__ = ["publish_command", "read_lines"]

# More than any payload: a longer line is no event.
LINE_MAX_CHARS: Final = 4 * 1024 * 1024
_APP_CLASS: Final = "app"
_PUBLISHED: Final = ("run_events", _APP_CLASS)
# As long as the sender of a run's events tries.
_PATIENCE_S: Final = 300.0


@click.command("publish")
@click.argument("topic")
@click.argument("kind", required=False)
@click.argument("data", required=False)
@click.option("--text", default=None, help='Short for the data {"text": TEXT}.')
@click.option("--key", default="", help="Idempotency key: repeating it with the same event changes nothing.")
@profile_option
@json_option
def publish_command(
    topic: str,
    kind: str | None,
    data: str | None,
    text: str | None,
    key: str,
    profile: Path | None,
    *,
    is_json: bool,
) -> None:
    """Append an event of KIND to TOPIC: of a run (its id will do), or app:ORG:NAME.

    DATA is a JSON object. Without KIND, events are read from standard input: one
    {"kind": ..., "data": {...}} a line.
    """
    parsed = parse_topic(parse_topic_argument(topic))
    class_name = parsed.topic_class.name
    if class_name not in _PUBLISHED:
        raise CommandFailed(
            f"events of {class_name} are not published by this command; only those of runs and apps"
        )
    terminal = open_terminal(is_json=is_json)
    if kind is None:
        if data is not None or text is not None or key:
            raise click.UsageError("data, --text and --key need a kind")
        trio.run(_publish_lines, terminal, profile, parsed)
        return
    event = OutgoingEvent.of(kind, _parse_data(data, text), key=key, topic_class=class_name)
    trio.run(_publish_one, terminal, profile, parsed, event)


def read_lines(lines: TextIO) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield kind and data of each line that is not empty.

    Raises:
        CommandFailed: A line is no such object; names the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line) if len(line) <= LINE_MAX_CHARS else None
        except (ValueError, RecursionError):
            value = None
        kind, data = (value.get("kind"), value.get("data", {})) if isinstance(value, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(data, dict):
            raise CommandFailed(f'line {number}: expected {{"kind": "...", "data": {{...}}}}')
        yield kind, data


def _parse_data(data: str | None, text: str | None) -> dict[str, object]:
    if data is not None and text is not None:
        raise click.UsageError("give either DATA or --text")
    if text is not None:
        return {"text": text}
    try:
        value = json.loads(data or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise click.UsageError("DATA is not a JSON object")
    return value


async def _publish_one(
    terminal: Terminal, profile: Path | None, topic: ParsedTopic, event: OutgoingEvent
) -> None:
    async with Khala(find_settings(profile)) as khala:
        if topic.topic_class.name == _APP_CLASS:
            _show(terminal, await _append_to_app(khala, topic, event))
            return
        async with khala.attach_run(topic.ids["run_id"]) as run:
            await run.send_event(event)
            ack = await run.flush()
            assert ack is not None
            _show(terminal, ack)


async def _publish_lines(terminal: Terminal, profile: Path | None, topic: ParsedTopic) -> None:
    ack: Ack | None = None
    events = read_lines(sys.stdin)
    async with Khala(find_settings(profile)) as khala:
        if topic.topic_class.name == _APP_CLASS:
            while (item := await _next_event(events)) is not None:
                event = OutgoingEvent.of(*item, topic_class=_APP_CLASS)
                ack = await _append_to_app(khala, topic, event)
        else:
            async with khala.attach_run(topic.ids["run_id"]) as run:
                while (item := await _next_event(events)) is not None:
                    await run.send(*item)
                ack = await run.flush()
        if ack is not None:
            _show(terminal, ack)


async def _next_event(
    events: Iterator[tuple[str, dict[str, object]]],
) -> tuple[str, dict[str, object]] | None:
    # In a thread: a pipe that is silent for long must not stop what was already sent.
    return await trio.to_thread.run_sync(next, events, None, abandon_on_cancel=True)


async def _append_to_app(khala: Khala, topic: ParsedTopic, event: OutgoingEvent) -> Ack:
    key = event.key or new_key()
    plain = attrs.evolve(event, key="")
    (ack,) = await Retry(random.SystemRandom(), patience_s=_PATIENCE_S).attempt(
        lambda: khala.runtime.append_to_app_topic(
            topic.ids["org_id"], topic.ids["name"], (plain,), idempotency_key=key
        )
    )
    return ack


def _show(terminal: Terminal, ack: Ack) -> None:
    terminal.data(
        {
            "type": "ack",
            "event_id": ack.event_id,
            "topic": ack.topic,
            "seq": str(ack.seq),
            "lineage": ack.lineage,
            "chain": ack.chain.hex(),
        }
    )
    terminal.line(f"{ack.topic} {ack.seq}")
