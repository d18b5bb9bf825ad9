"""``khala topics``: the registry of topic classes, or where one topic stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import trio
from rich.table import Table
from rich.text import Text

from khala.cli.locations import find_settings, profile_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.wording import bytes_text, duration_text
from khala_client.trio import Khala
from khala_contracts.ids import is_id
from khala_contracts.topics import (
    TOPIC_CLASSES,
    TopicClass,
    TopicName,
    format_run_events,
    format_worker_events,
    parse_topic,
)

if TYPE_CHECKING:
    from pathlib import Path

    from khala_client.resources import TopicInfo

__all__ = ["class_record", "parse_topic_argument", "topics_command"]


def parse_topic_argument(text: str) -> TopicName:
    """Return the topic that a person named: by its name, or by the id of a run or worker.

    Raises:
        TopicInvalid: It is neither.
    """
    if is_id("run", text):
        return format_run_events(text)
    if is_id("wrk", text):
        return format_worker_events(text)
    return parse_topic(text).name


def class_record(row: TopicClass) -> dict[str, object]:
    """Return every attribute of a topic class as JSON values."""
    return {
        "type": "topic_class",
        "name": row.name,
        "pattern": row.pattern,
        "kind": row.kind.value,
        "state_key": row.state_key,
        "readers": row.readers,
        "written_by": row.written_by,
        "tier": row.tier.value,
        "payload_max_bytes": row.payload_max_bytes,
        "publish_rate_per_s": row.publish_rate_per_s,
        "publish_burst_s": row.publish_burst_s,
        "retention_s": row.retention_s,
        "replay_budget_events": row.replay_budget_events,
        "replay_budget_bytes": row.replay_budget_bytes,
        "snapshot": row.snapshot,
    }


@click.command("topics")
@click.argument("topic", required=False)
@profile_option
@json_option
def topics_command(topic: str | None, profile: Path | None, *, is_json: bool) -> None:
    """List the classes of topics with their limits; with TOPIC (or a run's id): where it stands."""
    terminal = open_terminal(is_json=is_json)
    if topic is None:
        _show_classes(terminal)
        return
    name = parse_topic_argument(topic)

    async def read() -> TopicInfo:
        async with Khala(find_settings(profile)) as khala:
            return await khala.runtime.get_topic(name)

    _show_topic(terminal, trio.run(read))


def _show_classes(terminal: Terminal) -> None:
    limits = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("class", "kind", "tier"):
        limits.add_column(heading, no_wrap=True)
    for heading in ("payload", "events/s", "retention", "replay budget"):
        limits.add_column(heading, no_wrap=True, justify="right")
    # Two tables: with every attribute beside the other a row is wider than anybody's terminal.
    rights = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("class", "name"):
        rights.add_column(heading, no_wrap=True)
    for heading in ("readers", "written by", "snapshot"):
        rights.add_column(heading)
    for row in TOPIC_CLASSES.values():
        terminal.data(class_record(row))
        name = Text(row.name, style="cyan")
        limits.add_row(
            name,
            f"state by {row.state_key}" if row.state_key else row.kind.value,
            row.tier.value,
            bytes_text(row.payload_max_bytes),
            _rate(row),
            duration_text(row.retention_s),
            f"{row.replay_budget_events:,} / {bytes_text(row.replay_budget_bytes)}",
        )
        rights.add_row(name, row.pattern, row.readers, row.written_by, row.snapshot)
    terminal.show(limits, "", rights)


def _rate(row: TopicClass) -> str:
    if row.publish_rate_per_s is None:
        return "-"
    return f"{row.publish_rate_per_s:g}, burst {row.publish_rate_per_s * row.publish_burst_s:,.0f}"


def _show_topic(terminal: Terminal, info: TopicInfo) -> None:
    terminal.data(
        {
            "type": "topic",
            "topic": info.topic,
            "topic_class": info.topic_class,
            "lineage": info.lineage,
            "head_seq": str(info.head_seq),
            "head_chain": info.head_chain.hex(),
            "floor_seq": str(info.floor_seq),
            "floor_chain": info.floor_chain.hex(),
            "floor_reason": info.floor_reason,
            "retained_bytes": str(info.retained_bytes),
        }
    )
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("class", info.topic_class),
        ("head", f"{info.head_seq:,}"),
        ("floor", f"{info.floor_seq:,} ({info.floor_reason})"),
        ("retained", bytes_text(info.retained_bytes)),
        ("lineage", info.lineage),
        ("chain", info.head_chain.hex()),
    ):
        table.add_row(Text(f"  {name}", style="dim"), value)
    terminal.show(Text(info.topic, style="bold"), table)
