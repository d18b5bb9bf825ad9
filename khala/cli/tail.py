"""``khala tail``: follow a topic, live, from any retained point, over reconnects and restarts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import trio

from khala.cli.failures import describe_failure, leaves_of
from khala.cli.follow_output import FollowEnd, FollowOutput, Verification
from khala.cli.locations import find_settings, profile_option
from khala.cli.signals import taken_signals
from khala.cli.terminal import json_option, open_terminal
from khala.cli.topics import parse_topic_argument
from khala_client.errors import KhalaError, Unavailable
from khala_client.http import history_path
from khala_client.notices import Live, Notice
from khala_client.store import SqliteStore
from khala_client.trio import Khala
from khala_contracts.topics import TopicName, parse_topic

if TYPE_CHECKING:
    from khala_client.store import Store
    from khala_client.trio import Subscription

__all__ = ["Tail", "tail_command"]

Start = int | Literal["beginning", "earliest", "now"]
FINISHED_KIND: Final = "run.finished"
# For the comparison with the authority after the last event; also after Ctrl-C.
VERIFY_TIMEOUT_S: Final = 5.0


@click.command("tail")
@click.argument("topic")
@click.option("--after", "after_seq", type=click.IntRange(0), default=None, help="Start after this position.")
@click.option(
    "--from",
    "from_word",
    type=click.Choice(["beginning", "earliest", "now"]),
    default=None,
    help="Start at the first event, the oldest retained one, or the next one.  [default: beginning]",
)
@click.option("--verify", is_flag=True, help="Compare the hash chain with the authority's at the end.")
@click.option(
    "--store",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Keep what was followed here, and go on from it next time.",
)
@click.option("--until-finished", is_flag=True, help="End when the run does.")
@click.option("--full", is_flag=True, help="Show long texts whole.")
@profile_option
@json_option
def tail_command(
    topic: str,
    after_seq: int | None,
    from_word: Literal["beginning", "earliest", "now"] | None,
    store: Path | None,
    profile: Path | None,
    *,
    verify: bool,
    until_finished: bool,
    full: bool,
    is_json: bool,
) -> int:
    """Follow TOPIC (or the id of a run); Ctrl-C ends it."""
    if after_seq is not None and from_word is not None:
        raise click.UsageError("--after and --from exclude each other")
    name = parse_topic_argument(topic)
    if until_finished and "run_id" not in parse_topic(name).ids:
        raise click.UsageError("--until-finished needs a run")
    terminal = open_terminal(is_json=is_json)
    output = FollowOutput(terminal, is_verifying=verify, is_full=full)
    start: Start = after_seq if after_seq is not None else from_word or "beginning"

    async def follow() -> FollowEnd:
        with ExitStack() as opened:
            async with Khala(find_settings(profile)) as khala:
                kept: SqliteStore | None = None
                if store is not None:
                    kept = SqliteStore.open(store, namespace=khala.namespace)
                    opened.callback(kept.close)
                tail = Tail(khala, name, output, is_verifying=verify, until_finished=until_finished)
                return await tail.run(start, kept)

    end = trio.run(follow)
    output.end(end)
    if end.error is not None:
        failure = describe_failure(end.error)
        for sentence in failure.sentences if failure is not None else ():
            terminal.remark(f"khala: {sentence}", style="red")
    return end.exit_status


class Tail:
    """Follows one topic until it is told to stop, the run has finished, or it is refused."""

    def __init__(
        self,
        khala: Khala,
        topic: TopicName,
        output: FollowOutput,
        *,
        is_verifying: bool,
        until_finished: bool,
    ) -> None:
        self._khala = khala
        self._topic = topic
        self._output = output
        self._is_verifying = is_verifying
        self._until_finished = until_finished
        self._run_id = parse_topic(topic).ids.get("run_id", "")
        self._events = 0
        self._subscription: Subscription | None = None
        self._live: Live | None = None
        self._is_live = trio.Event()
        self._following = trio.CancelScope()

    async def run(self, start: Start, store: Store | None) -> FollowEnd:
        """Follow from ``start``, or from where ``store`` stands if it has anything of the topic."""
        reason, error = "interrupted", None
        position: Start | Literal["saved"] = start
        if store is not None and await trio.to_thread.run_sync(store.load_cursor, self._topic) is not None:
            position = "saved"
        try:
            async with (
                self._khala.subscribe(
                    self._topic,
                    after=position,
                    store=store,
                    history_by_pages=True,
                    on_notice=self._take_notice,
                ) as events,
                # Inside: a signal ends the following, and what was printed is still kept by the store.
                trio.open_nursery() as nursery,
            ):
                self._subscription = events
                nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
                if self._until_finished:
                    nursery.start_soon(self._watch_for_end, events)
                with self._following:
                    await self._print(events)
                reason = "finished"
                nursery.cancel_scope.cancel()
        except* KhalaError as group:
            refusal = leaves_of(group)[0]
            assert isinstance(refusal, KhalaError)
            reason, error = "refused", refusal
        return await self._conclude(reason, error)

    async def _print(self, events: Subscription) -> None:
        """Print events; return when the run has finished, if that was asked for."""
        async for event in events:
            self._events += 1
            self._output.event(event)
            if self._until_finished and event.kind == FINISHED_KIND:
                return

    async def _watch_for_end(self, events: Subscription) -> None:
        """Stop following a run that had finished before our position: no event will say so."""
        await self._is_live.wait()
        try:
            run = await self._khala.runtime.get_run(self._run_id)
        except Unavailable:
            return
        head_seq = run.watermark.seq if run.watermark is not None else 0
        if run.is_finished and events.cursor is not None and events.cursor.seq >= head_seq:
            self._following.cancel()

    def _take_notice(self, notice: Notice) -> None:
        if isinstance(notice, Live):
            self._live = notice
            self._is_live.set()
        self._output.notice(notice)

    async def _conclude(self, reason: str, error: KhalaError | None) -> FollowEnd:
        # Also where nothing new came: what a store kept from earlier is verified all the same.
        position = self._subscription.cursor if self._subscription is not None else None
        if position is None or position.chain is None:
            through_seq = position.seq if position is not None else 0
            verification: Verification = "unknown" if self._is_verifying and through_seq else "not_asked"
            return FollowEnd(self._topic, reason, self._events, through_seq, b"", verification, error)
        verification = "not_asked"
        if self._is_verifying:
            authority = await self._authority_chain(position.seq)
            if authority is None:
                verification = "unknown"
            else:
                verification = "verified" if authority == position.chain else "differs"
        return FollowEnd(self._topic, reason, self._events, position.seq, position.chain, verification, error)

    async def _authority_chain(self, seq: int) -> bytes | None:
        """Return the authority's chain at ``seq``: over HTTP, another way than the events came.

        Where that cannot be had, what the node said when the replay was complete counts.
        """
        with trio.move_on_after(VERIFY_TIMEOUT_S):
            try:
                info = await self._khala.runtime.get_topic(self._topic)
                if info.head_seq == seq:
                    return info.head_chain
                if history_path(self._topic) is not None:
                    page = await self._khala.runtime.read_history(self._topic, after_seq=seq, limit=1)
                    return page.chain_before
            except KhalaError:
                pass
        return self._live.chain if self._live is not None and self._live.seq == seq else None


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(*taken_signals()) as signals:
        async for _ in signals:
            scope.cancel()
