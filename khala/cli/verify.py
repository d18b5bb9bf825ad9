"""``khala verify TOPIC``: prove a history by its hash chain, against the authority or from a file alone.

Without an option everything that is retained is read and verified, and compared with the head that the
authority states. ``--export`` keeps what was verified in a file that proves itself later, without any
server: ``--file`` verifies it, or what ``khala tail --json`` printed; ``--store`` what a follower kept.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import trio
from rich.text import Text

from khala.cli.failures import EXIT_FAILED, CommandFailed
from khala.cli.locations import find_settings, profile_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.topics import parse_topic_argument
from khala.cli.wording import count_text
from khala_client.core.history_lines import HistoryVerifier, verify_lines
from khala_client.core.verify import Broken, Verified
from khala_client.errors import ChainMismatch
from khala_client.history import format_history_line
from khala_client.history_export import HistoryExport
from khala_client.ring.whole_history import WholeHistory
from khala_client.store import SqliteStore
from khala_client.trio import Khala
from khala_contracts.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from khala_client.events import Event
    from khala_contracts.topics import TopicName

__all__ = ["Verdict", "verify_command", "verify_file", "verify_store"]

# Longer: somebody waits before a server that is gone. Shorter: a slow page counts as no answer.
SILENCE_MAX_S: Final = 60.0


@attrs.frozen
class Verdict:
    """One verified history, or why it does not hold.

    Attributes:
        source: ``authority``, or the file.
        first_seq: Where it begins; above 1 everything before it is not a part of the proof.
        is_end_known: Whether it is known that nothing is missing at its end.
    """

    source: str
    result: Verified | Broken
    first_seq: int = 1
    is_end_known: bool = True


@click.command("verify")
@click.argument("topic")
@click.option(
    "--file",
    "transcript",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="Verify this file instead: an export, a history, or what khala tail --json printed.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="Verify what a follower kept here instead.",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Keep what was verified in this file, with payloads; --file verifies it later.",
)
@profile_option
@json_option
def verify_command(
    topic: str,
    transcript: Path | None,
    store: Path | None,
    export: Path | None,
    profile: Path | None,
    *,
    is_json: bool,
) -> int:
    """Verify the history of TOPIC (or of a run's id); exit status 1 if it does not hold."""
    if sum(option is not None for option in (transcript, store)) > 1:
        raise click.UsageError("--file and --store exclude each other")
    if export is not None and (transcript is not None or store is not None):
        raise click.UsageError("--export keeps what the authority has; --file and --store ask nobody")
    terminal = open_terminal(is_json=is_json)
    name = parse_topic_argument(topic)
    if transcript is not None:
        verdicts = [verify_file(name, transcript)]
    elif store is not None:
        verdicts = verify_store(name, store)
    else:
        verdicts = [trio.run(_verify_online, name, profile, export)]
    for verdict in verdicts:
        _print(terminal, name, verdict)
    return EXIT_FAILED if any(isinstance(verdict.result, Broken) for verdict in verdicts) else 0


def verify_file(topic: TopicName, path: Path) -> Verdict:
    """Verify the lines of a file, without any server."""
    verifier = HistoryVerifier(topic)
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        result = verify_lines(verifier, lines)
    return Verdict(str(path), result, verifier.first_seq, verifier.is_end_known)


def verify_store(topic: TopicName, path: Path) -> list[Verdict]:
    """Verify what a store keeps of a topic, for each who follows it with this file.

    Raises:
        CommandFailed: It keeps nothing of the topic.
        StoreRefused, StoreFailed: It is no store, or cannot be read.
    """
    with closing(SqliteStore.open(path, namespace="verify")) as inspected:
        namespaces = inspected.list_namespaces(topic)
    if not namespaces:
        raise CommandFailed(f"{path.name} keeps nothing of {topic}")
    return [_verify_kept(topic, path, namespace) for namespace in namespaces]


def _verify_kept(topic: TopicName, path: Path, namespace: str) -> Verdict:
    with closing(SqliteStore.open(path, namespace=namespace)) as store:
        cursor = store.load_cursor(topic)
        verifier = HistoryVerifier(topic)
        result = verify_lines(verifier, _kept_lines(store.read_history(topic)))
    # The cursor is of the same commit as the last event: it says where the history must end.
    if (
        isinstance(result, Verified)
        and cursor is not None
        and (cursor.seq, cursor.chain) != (result.seq, result.chain)
    ):
        first_bad = min(cursor.seq, result.seq) + 1
        result = Broken(
            first_bad, f"the store's cursor stands at seq {cursor.seq}, its events end at {result.seq}"
        )
    return Verdict(f"{path} ({namespace})", result, verifier.first_seq)


def _kept_lines(events: Iterable[Event]) -> Iterator[str]:
    """Yield the line of each event; of one that somebody has made unreadable, an empty one."""
    for event in events:
        try:
            yield format_history_line(event)
        except (WireError, TypeError, AttributeError):
            yield ""


async def _verify_online(topic: TopicName, profile: Path | None, export: Path | None) -> Verdict:
    events = erased = 0
    first_seq = 1
    try:
        async with Khala(find_settings(profile)) as khala:
            history = await WholeHistory.open(khala, topic, silence_max_s=SILENCE_MAX_S)
            first_seq = history.first_seq
            with _exported(export, history.chain_before) as kept:

                def take(event: Event) -> None:
                    nonlocal events, erased
                    events += 1
                    erased += event.is_erased
                    if kept is not None:
                        kept.add(event)

                await history.read(take)
                if kept is not None:
                    kept.finish()
    except ChainMismatch as error:
        return Verdict("authority", Broken(error.seq, "another chain than the authority states"), first_seq)
    return Verdict("authority", Verified(history.seq, history.chain, events, erased), first_seq)


@contextmanager
def _exported(path: Path | None, chain_before: bytes) -> Iterator[HistoryExport | None]:
    """Write an export; it has its name only once it is whole, and nothing is left of it otherwise."""
    if path is None:
        yield None
        return
    unfinished = path.with_name(f"{path.name}.part")
    # Payloads are nobody else's business.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield HistoryExport(file, chain_before=chain_before)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _print(terminal: Terminal, topic: TopicName, verdict: Verdict) -> None:
    result = verdict.result
    is_whole = isinstance(result, Verified)
    terminal.data(
        {
            "type": "verification",
            "topic": topic,
            "source": verdict.source,
            "verified": is_whole,
            "first_seq": str(verdict.first_seq),
            "head_seq": str(result.seq) if is_whole else None,
            "chain": result.chain.hex() if isinstance(result, Verified) else None,
            "events": result.frames if isinstance(result, Verified) else None,
            "erased": result.erased_frames if isinstance(result, Verified) else None,
            "is_end_known": verdict.is_end_known if is_whole else None,
            "bad_seq": None if is_whole else str(result.seq),
            "reason": result.reason if isinstance(result, Broken) else None,
        }
    )
    if isinstance(result, Broken):
        line = Text.assemble(("✗ ", "bold red"), f"{topic}: seq {result.seq:,}: {result.reason}")
        terminal.show(line)
        return
    events = count_text(result.frames, "event")
    erased = f"{result.erased_frames:,} of {result.frames:,} erased"
    line = Text.assemble(
        ("✓ ", "green"),
        f"{topic}: {events}, {erased}, chain ok, head {result.seq:,} ",
        (result.chain.hex(), "dim"),
    )
    terminal.show(line)
    if verdict.first_seq > 1:
        terminal.remark(
            f"It begins at seq {verdict.first_seq:,}; what lies before is not a part of the proof."
        )
    if not verdict.is_end_known:
        terminal.remark("Nothing in it says where it ends: later events may be missing.")
