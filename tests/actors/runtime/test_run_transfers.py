"""Transfers on a scripted store: retries, unknown outcomes, what this process remembers of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.topics import Lineage, format_org_runs, format_user_runs
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from runtime.actors.appender import Appender
from runtime.actors.command_path import Caller, CommandPath, CommandRefused
from runtime.actors.relay import Relay
from runtime.actors.run_directory import RunDirectory
from runtime.actors.run_transfers import RunTransfers
from runtime.core.journal_calls import AppendResult, Locked, StoredKey
from runtime.core.limits import RuntimeLimits
from runtime.core.rate_limit import Rate, RateLimiter
from runtime.core.run_state_machine import RunState
from runtime.core.run_transfer import TransferredRun
from runtime.ports import Authority, RunRecord, Superseded
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import (
    LINEAGE,
    ORG,
    OTHER_USER,
    SIGNER,
    USER,
    CountedMetrics,
    CountingIds,
    FixedClock,
    RecordingDriver,
    facts,
    person,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from khala_contracts.topics import TopicName
    from runtime.core.batch_commit import CommittedTopic
    from runtime.core.commands import RunFacts
    from runtime.core.journal_calls import KeyId
    from runtime.core.principals import Principal
    from runtime.core.run_transfer import RunTransfer

CHAIN = bytes(32)
RUN = facts(1, org_id=ORG)
AUTHORITY = Authority(3, Lineage(LINEAGE))


@attrs.define
class ScriptedStore(MemoryJournalStore):
    """One run; each attempt to transfer it first meets what the script says."""

    run: RunFacts = RUN
    script: list[Exception] = attrs.field(factory=list)
    # Raised after the commit: its answer is lost.
    lost: list[Exception] = attrs.field(factory=list)
    stored: dict[KeyId, StoredKey] = attrs.field(factory=dict)
    tries: int = 0
    # Set while a read of the run hangs.
    gate: trio.Event | None = None
    reading: trio.Event = attrs.field(factory=trio.Event)

    async def read_run(self, run_id: str) -> RunRecord | None:
        record = RunRecord(self.run, RunState.RUNNING, 1, None, Lineage(LINEAGE), 1, CHAIN)
        if self.gate is not None:
            self.reading.set()
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        return record if run_id == self.run.run_id else None

    async def read_key(self, scope: str, key: str) -> StoredKey | None:
        await trio.lowlevel.checkpoint()
        return self.stored.get((scope, key))

    async def run_transfer(self, transfer: RunTransfer, *, generation: int) -> None:
        await trio.lowlevel.checkpoint()
        assert generation == AUTHORITY.generation
        self.tries += 1
        if self.script:
            raise self.script.pop(0)
        known = {key: self.stored[key] for key in transfer.lock_call.keys if key in self.stored}
        run = TransferredRun(self.run, RunState.RUNNING, 1, None, Lineage(LINEAGE), 1, CHAIN)
        if not transfer.decide(Locked(known, {}, {}, {}, 0), run):
            return
        finish = transfer.finish(transfer.event(), AppendResult([1], [CHAIN], CHAIN, 5))
        transfer.step()
        self.run = attrs.evolve(self.run, owner_user_id=transfer.owner_user_id)
        self.stored |= {key: stored for key, stored in finish.answers.items() if stored is not None}
        if self.lost:
            raise self.lost.pop(0)


@attrs.define
class Members:
    """Everybody of a list is a member."""

    users: set[str] = attrs.field(factory=lambda: {USER, OTHER_USER})
    asked: list[tuple[str, str]] = attrs.field(factory=list)

    async def is_member(self, org_id: str, user_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        self.asked.append((org_id, user_id))
        return user_id in self.users


@attrs.define
class Desk:
    """Transfers with what they told."""

    store: ScriptedStore = attrs.field(factory=ScriptedStore)
    members: Members = attrs.field(factory=Members)
    metrics: CountedMetrics = attrs.field(factory=CountedMetrics)
    offered: list[CommittedTopic] = attrs.field(factory=list)
    told: set[TopicName] = attrs.field(factory=set)
    superseded: int = 0
    authority: Authority | None = AUTHORITY
    limiter: RateLimiter = attrs.field(factory=lambda: RateLimiter({"run_events": Rate(1.0, 2.0)}))
    directory: RunDirectory = attrs.field(init=False)
    transfers: RunTransfers = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        limits, limiter, ids = RuntimeLimits(), self.limiter, CountingIds()
        relay = Relay(RecordingDriver(), SIGNER, clock=FixedClock(), metrics=self.metrics, bytes_max=1)
        appender = Appender(self.store, relay, limits=limits, limiter=limiter, metrics=self.metrics)
        path = CommandPath(
            store=self.store, appender=appender, limiter=limiter, limits=limits, ids=ids, metrics=self.metrics
        )
        self.directory = RunDirectory(self.store)
        self.transfers = RunTransfers(
            path,
            store=self.store,
            transfers=self.store,
            members=self.members,
            directory=self.directory,
            relay=self,
            authority=lambda: self.authority,
            supersede=self._supersede,
            tell_heads=self._tell,
            limits=limits,
            ids=ids,
            metrics=self.metrics,
        )

    def offer(self, committed: Sequence[CommittedTopic], *, lineage: Lineage) -> None:
        assert lineage == LINEAGE
        self.offered += committed

    def _supersede(self) -> None:
        self.superseded += 1

    async def _tell(self, topics: Collection[TopicName]) -> None:
        await trio.lowlevel.checkpoint()
        self.told |= set(topics)

    async def give(
        self, to: str = OTHER_USER, *, sender: Principal | None = None, key: str | None = "k"
    ) -> m.TransferRunResponse:
        answer = await self.transfers.transfer(Caller(sender or person(), key, "request"), RUN.run_id, to)
        return m.TransferRunResponse.FromString(answer)


async def test_committed_is_offered_and_answered() -> None:
    """The run's event goes to the relay at once; the answer has the new owner and the event's place."""
    desk = Desk()
    answer = await desk.give()
    assert (answer.run.owner_user_id, answer.ack.seq) == (OTHER_USER, 2)
    assert [(topic.topic, list(topic.kinds)) for topic in desk.offered] == [(RUN.topic, ["run.transferred"])]
    assert desk.members.asked == [(ORG, OTHER_USER)]
    assert desk.metrics.batches == [(1, 1, 0)]
    assert desk.told == set()


@pytest.mark.parametrize(
    "trouble",
    [Unavailable("database_unreachable"), SerializationTrouble("40001")],
    ids=["away", "rolled back"],
)
async def test_what_was_rolled_back_is_run_again(trouble: Exception, autojump_clock: object) -> None:
    """One retry owner: this command."""
    desk = Desk()
    desk.store.script = [trouble] * 3
    assert (await desk.give()).ack.seq == 2
    assert desk.store.tries == 4


@pytest.mark.parametrize("key", ["k", None])
async def test_a_lost_answer_is_found_under_the_key_and_told(key: str | None, autojump_clock: object) -> None:
    """INV-20: the commit was never offered to the relay, so the heads of all its topics are told."""
    desk = Desk()
    desk.store.lost = [Unavailable("database_connection_lost", outcome_unknown=True)]
    assert (await desk.give(key=key)).ack.seq == 2
    assert desk.offered == []
    lists = {format_user_runs(USER), format_user_runs(OTHER_USER), format_org_runs(ORG)}
    assert desk.told == {RUN.topic} | lists


async def test_nobody_can_say(autojump_clock: object) -> None:
    """After a lost answer every other ending is unknown; before it, nothing was written."""
    for lost, is_unknown in ([Unavailable("gone", outcome_unknown=True)], True), ([], False):
        desk = Desk()
        desk.store.script = [*lost, *(Unavailable("database_unreachable") for _ in range(100))]
        with pytest.raises(Unavailable) as caught:
            await desk.give()
        assert caught.value.outcome_unknown is is_unknown
    desk = Desk()
    desk.store.script = [Unavailable("gone", outcome_unknown=True), Superseded()]
    with pytest.raises(Unavailable) as caught:
        await desk.give()
    assert caught.value.outcome_unknown


async def test_endings_that_are_final() -> None:
    """Superseded, refused content and a service that does not serve are not tried again."""
    desk = Desk()
    desk.store.script = [Superseded()]
    with pytest.raises(CommandRefused) as refused:
        await desk.give()
    assert (refused.value.refusal.reason, desk.superseded, desk.store.tries) == (
        reason_codes.SUPERSEDED,
        1,
        1,
    )
    desk = Desk()
    desk.store.script = [DatabaseError("23514")]
    with pytest.raises(CommandRefused) as refused:
        await desk.give()
    assert (refused.value.refusal.reason, desk.store.tries) == (reason_codes.INTERNAL, 1)


async def test_a_repeat_is_answered_before_the_right_is_looked_at() -> None:
    """Who gave the run away may ask again what became of it; nobody else gets the answer."""
    desk = Desk()
    first = await desk.give()
    assert await desk.give() == first
    assert desk.store.tries == 1
    with pytest.raises(CommandRefused) as refused:
        await desk.give(sender=person(USER), key="other")
    assert refused.value.refusal.reason is reason_codes.NOT_FOUND


async def test_a_stranger_does_not_make_us_ask_control() -> None:
    """The right comes first: membership is no oracle."""
    desk = Desk()
    with pytest.raises(CommandRefused) as refused:
        await desk.give(sender=person("usr_x"))
    assert refused.value.refusal.reason is reason_codes.NOT_FOUND
    assert desk.members.asked == []


async def test_what_is_remembered_of_the_run_is_forgotten(autojump_clock: object) -> None:
    """Also when nobody knows what became of the transfer, and also what a read in flight brings."""
    desk = Desk()
    known = await desk.directory.find(RUN.run_id)
    assert known is not None
    await desk.give()
    known = await desk.directory.find(RUN.run_id)
    assert known is not None
    assert known.facts.owner_user_id == OTHER_USER
    desk = Desk()
    desk.store.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.directory.find, RUN.run_id)
        await desk.store.reading.wait()
        gate, desk.store.gate = desk.store.gate, None
        await desk.give()
        gate.set()
    known = await desk.directory.find(RUN.run_id)
    assert known is not None
    assert known.facts.owner_user_id == OTHER_USER


async def test_a_run_that_is_passed_back_and_forth_is_slowed(autojump_clock: object) -> None:
    """Each transfer is an event of the run and takes a token of its topic; a refused one writes nothing."""
    desk = Desk()
    other = person(OTHER_USER)
    await desk.give(key="a")
    await desk.give(USER, sender=other, key="b")
    with pytest.raises(CommandRefused) as caught:
        await desk.give(key="c")
    assert caught.value.refusal.reason is reason_codes.RATE_LIMITED
    assert desk.store.tries == 2
    # A repeat of what was done costs nothing.
    assert (await desk.give(key="a")).run.owner_user_id == OTHER_USER
    await trio.sleep(1.0)
    await desk.give(key="c")
