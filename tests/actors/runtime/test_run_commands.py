"""Commands and reads on the fake: rights, sizes and the rate, each before anything is written."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.kinds import decode_payload
from khala_contracts.topics import format_run_events
from runtime.actors.appender import Appender
from runtime.actors.command_path import Caller, CommandPath, CommandRefused
from runtime.actors.relay import Relay
from runtime.actors.run_commands import RunCommands, Transition
from runtime.actors.run_directory import RunDirectory
from runtime.actors.run_reads import RunReads
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Appended, Refused, Skipped
from runtime.core.principals import Right
from runtime.core.rate_limit import Rate, RateLimiter
from runtime.core.run_fields import NewRunFields
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import (
    KEY,
    LINEAGE,
    ORG,
    OTHER_USER,
    SIGNER,
    USER,
    CountedMetrics,
    CountingIds,
    FixedClock,
    RecordingDriver,
    make_id,
    person,
    service_key,
    thoughts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from khala_contracts.reason_codes import ReasonCode
    from runtime.core.events import EventColumns
    from runtime.core.principals import Principal

FIELDS = NewRunFields("name", "agent", "source", {"k": "v"}, "")
LIMITS = RuntimeLimits(name_bytes_max=20, attributes_max=3, attributes_bytes_max=30, reason_bytes_max=10)


def caller(principal: Principal | None = None, key: str | None = None) -> Caller:
    """Return a sender."""
    return Caller(principal or person(), key, "request-1")


@attrs.define
class Desk:
    """Commands and reads with everything below them."""

    store: MemoryJournalStore
    commands: RunCommands
    reads: RunReads

    async def make_run(self, sender: Caller | None = None, *, org_id: str = "") -> m.Run:
        fields = attrs.evolve(FIELDS, org_id=org_id, name="")
        return m.CreateRunResponse.FromString(await self.commands.create(sender or caller(), fields)).run

    async def append(self, run_id: str, *texts: str, sender: Caller | None = None) -> Appended:
        return await self.commands.append(sender or caller(), run_id, thoughts(*texts), expected_seq=None)


@asynccontextmanager
async def desk(*, rate: Rate | None = None) -> AsyncIterator[Desk]:
    """Serve commands on a fake store."""
    store, metrics = MemoryJournalStore(), CountedMetrics()
    authority = await store.take_authority(holder="test", lineage_candidate=LINEAGE)
    relay = Relay(RecordingDriver(), SIGNER, clock=FixedClock(), metrics=metrics, bytes_max=1)
    limiter = RateLimiter({"run_events": rate} if rate else {})
    appender = Appender(store, relay, limits=LIMITS, limiter=limiter, metrics=metrics)
    ids = CountingIds()
    path = CommandPath(
        store=store, appender=appender, limiter=limiter, limits=LIMITS, ids=ids, metrics=metrics
    )
    commands = RunCommands(path, directory=RunDirectory(store), limits=LIMITS, ids=ids)
    async with trio.open_nursery() as nursery:
        await nursery.start(appender.serve, authority)
        yield Desk(store, commands, RunReads(store=store, limits=LIMITS))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def refusing(reason: ReasonCode, **details: str) -> AsyncIterator[None]:
    """Expect the block to be refused, with at least these details."""
    with pytest.raises(CommandRefused) as refused:
        yield
    assert refused.value.refusal.reason is reason
    assert refused.value.refusal.details.items() >= details.items()


async def test_create_and_read() -> None:
    """A run is what was asked for, belongs to the caller and is read back with its position."""
    async with desk() as at:
        answer = m.CreateRunResponse.FromString(await at.commands.create(caller(), FIELDS))
        record = await at.reads.get_run(person(), answer.run.run_id)
        assert record.facts.owner_user_id == USER
        assert record.facts.org_id is None
        assert (record.facts.name, record.facts.attributes) == ("name", {"k": "v"})
        assert record.head_seq == answer.ack.seq == 1
        page = await at.reads.read_events(person(), answer.run.run_id, after_seq=0, limit=10)
        (started,) = page.events
        assert (started.kind, started.actor, started.request_id) == ("run.started", USER, "request-1")
        assert decode_payload(started.kind, started.payload)["name"] == "name"


async def test_runs_of_keys() -> None:
    """A key's run is owned by the key's creator, in the key's org; the actor is the key."""
    async with desk() as at:
        run = await at.make_run(caller(service_key(Right.PUBLISH)))
        assert (run.owner_user_id, run.org_id) == (USER, ORG)
        page = await at.reads.read_events(service_key(Right.READ), run.run_id, after_seq=0, limit=1)
        assert page.events[0].actor == KEY
        async with refusing(reason_codes.FORBIDDEN):
            await at.make_run(caller(service_key(Right.READ)))
        async with refusing(reason_codes.FORBIDDEN, field="org_id"):
            await at.make_run(caller(person()), org_id=ORG)


async def test_foreign_and_unknown_look_the_same() -> None:
    """Every command and read on a foreign run is refused exactly as on one that does not exist."""
    async with desk() as at:
        run = await at.make_run()
        stranger = caller(person(OTHER_USER))
        wanted = Transition(RunState.FAILED, "", None, "")
        for run_id in (run.run_id, make_id("run", 999), "run_", "nothing", run.run_id.upper()):
            async with refusing(reason_codes.NOT_FOUND) as _:
                await at.append(run_id, "x", sender=stranger)
            async with refusing(reason_codes.NOT_FOUND):
                await at.commands.transition(stranger, run_id, wanted)
            async with refusing(reason_codes.NOT_FOUND):
                await at.reads.get_run(stranger.principal, run_id)
            async with refusing(reason_codes.NOT_FOUND):
                await at.reads.read_events(stranger.principal, run_id, after_seq=0, limit=1)
        for name in (run.topic, format_run_events(make_id("run", 999))):
            async with refusing(reason_codes.NOT_FOUND):
                await at.reads.get_topic(stranger.principal, name)
        async with refusing(reason_codes.TOPIC_INVALID):
            await at.reads.get_topic(stranger.principal, "run:x:events")
        assert at.store.commits == [1]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "n" * 21}, "name"),
        ({"agent": "é" * 11}, "agent"),
        ({"source": "s" * 21}, "source"),
        ({"name": "a\x00b"}, "name"),
        ({"attributes": {str(number): "" for number in range(4)}}, "attributes"),
        ({"attributes": {"k" * 15: "v" * 16}}, "attributes"),
        ({"attributes": {"k": "\x00"}}, "attributes"),
    ],
)
async def test_fields_beyond_their_limit(fields: dict[str, Any], field: str) -> None:
    """One beyond each limit is refused by its name, and nothing is written."""
    async with desk() as at:
        async with refusing(reason_codes.INVALID_ARGUMENT, field=field):
            await at.commands.create(caller(), attrs.evolve(FIELDS, **fields))
        assert at.store.attempts == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "n" * 20},
        {"agent": "é" * 10},
        {"source": ""},
        {"attributes": {str(number): "" for number in range(3)}},
        {"attributes": {"k" * 15: "v" * 15}},
    ],
)
async def test_fields_at_their_limit(fields: dict[str, Any]) -> None:
    """Exactly the limit is accepted."""
    async with desk() as at:
        assert await at.commands.create(caller(), attrs.evolve(FIELDS, **fields))


async def test_retry_of_a_create() -> None:
    """The same key and fields give the same run; other fields are a conflict; other principals are apart."""
    async with desk() as at:
        first = await at.commands.create(caller(key="k"), FIELDS)
        assert await at.commands.create(caller(key="k"), FIELDS) == first
        async with refusing(reason_codes.IDEMPOTENCY_CONFLICT):
            await at.commands.create(caller(key="k"), attrs.evolve(FIELDS, agent="other"))
        assert await at.commands.create(caller(person(OTHER_USER), "k"), FIELDS) != first
        async with refusing(reason_codes.NAME_TAKEN):
            await at.commands.create(caller(key="other"), FIELDS)


async def test_keys_belong_to_a_route_and_a_run() -> None:
    """One key used for two runs, or for a create and an append, means two requests."""
    async with desk() as at:
        runs = [await at.make_run(caller(key=key)) for key in ("k", "l")]
        events = thoughts("same")
        outcomes = [
            await at.commands.append(caller(key="k"), run.run_id, events, expected_seq=None) for run in runs
        ]
        assert [outcome.parts[0].topic for outcome in outcomes] == [run.topic for run in runs]
        moved = await at.commands.transition(
            caller(key="k"), runs[0].run_id, Transition(RunState.PAUSED, "", None, "")
        )
        assert m.TransitionRunResponse.FromString(moved).ack.seq == 3


async def test_transition() -> None:
    """The event says what happened; at the limit a reason is kept, one beyond is refused."""
    async with desk() as at:
        run = await at.make_run()
        async with refusing(reason_codes.INVALID_ARGUMENT, field="reason"):
            await at.commands.transition(
                caller(), run.run_id, Transition(RunState.FAILED, "r" * 11, None, "")
            )
        async with refusing(reason_codes.PAYLOAD_TOO_LARGE, field="result"):
            await at.commands.transition(
                caller(), run.run_id, Transition(RunState.FAILED, "", None, "r" * 256 * 1024)
            )
        answer = await at.commands.transition(
            caller(), run.run_id, Transition(RunState.FAILED, "r" * 10, 3, "patch")
        )
        moved = m.TransitionRunResponse.FromString(answer)
        assert m.RUN_STATES.word(moved.run.state) == "failed"
        assert moved.run.created_at_us == run.created_at_us
        page = await at.reads.read_events(person(), run.run_id, after_seq=1, limit=10)
        data = decode_payload("run.finished", page.events[0].payload)
        assert data == {
            "state": "RUN_STATE_FAILED",
            "exit_status": 3,
            "reason": "r" * 10,
            "result": "patch",
        }
        async with refusing(reason_codes.INVALID_TRANSITION, **{"from": "failed", "to": "paused"}):
            await at.commands.transition(caller(), run.run_id, Transition(RunState.PAUSED, "", None, ""))


async def test_flood_is_refused_before_a_transaction(autojump_clock: MockClock) -> None:
    """An empty bucket costs no transaction; a retry of what is committed still gets its answer."""
    async with desk(rate=Rate(1.0, 3.0)) as at:
        run = await at.make_run()
        events = thoughts("a", "b", "c")
        first = await at.commands.append(caller(key="k"), run.run_id, events, expected_seq=None)
        attempts = at.store.attempts
        for key in ("new", None):
            async with refusing(reason_codes.RATE_LIMITED, topic_class="run_events"):
                await at.append(run.run_id, "d", sender=caller(key=key))
        assert at.store.attempts == attempts
        assert await at.commands.append(caller(key="k"), run.run_id, events, expected_seq=None) == first
        await trio.sleep(1)
        appended = await at.append(run.run_id, "d", sender=caller(key="new"))
        assert appended.parts[0].first_seq == 5


async def test_chunks_of_a_stream() -> None:
    """Keyed events are answered one by one and stop at a refusal; keyless ones are one request."""
    async with desk() as at:
        known = await at.commands.authorize_append(person(), (await at.make_run()).run_id)
        events = [thoughts(text) for text in "abc"]

        async def chunk(*keyed: tuple[str, EventColumns]) -> list[object]:
            return list(await at.commands.append_keyed(caller(), known, list(keyed)))

        first = await chunk(("1", events[0]), ("2", events[1]))
        again = await chunk(("1", events[0]), ("2", events[1]), ("", events[2]))
        assert again[:2] == first
        assert isinstance(again[2], Appended)
        assert again[2].parts[0].first_seq == 4
        stopped = await chunk(("3", events[0]), ("1", events[1]), ("4", events[2]))
        assert isinstance(stopped[0], Appended)
        assert isinstance(stopped[1], Refused)
        assert stopped[1].reason is reason_codes.IDEMPOTENCY_CONFLICT
        assert isinstance(stopped[2], Skipped)
        (joined,) = await chunk(("", events[0]), ("", events[1]))
        assert isinstance(joined, Appended)
        assert [seq for _, seq, _ in joined.parts[0].acks()] == [6, 7]


async def test_stream_keys_are_the_batch_keys() -> None:
    """An event sent in a stream and again alone in a batch, under one key, is one event."""
    async with desk() as at:
        run = await at.make_run()
        known = await at.commands.authorize_append(person(), run.run_id)
        event = thoughts("x")
        (streamed,) = await at.commands.append_keyed(caller(), known, [("k", event)])
        assert await at.commands.append(caller(key="k"), run.run_id, event, expected_seq=None) == streamed


async def test_pages_of_runs() -> None:
    """Pages follow each other without overlap; the last one says so."""
    async with desk() as at:
        made = [(await at.make_run()).run_id for _ in range(5)]
        first = await at.reads.list_runs(person(), before="", limit=2)
        second = await at.reads.list_runs(person(), before=first.next_before, limit=2)
        third = await at.reads.list_runs(person(), before=second.next_before, limit=2)
        pages = [[record.facts.run_id for record in page.runs] for page in (first, second, third)]
        assert pages == [made[:2:-1], made[2:0:-1], made[:1]]
        assert third.next_before == ""
        exact = await at.reads.list_runs(person(), before="", limit=5)
        assert exact.next_before == ""
        async with refusing(reason_codes.INVALID_ARGUMENT, field="page_token"):
            await at.reads.list_runs(person(), before="run_x", limit=2)
        async with refusing(reason_codes.FORBIDDEN):
            await at.reads.list_runs(service_key(Right.PUBLISH), before="", limit=2)


async def test_a_key_lists_the_runs_of_its_org_only() -> None:
    """A run that the key's creator owns outside the key's org is not in the key's list."""
    async with desk() as at:
        await at.make_run()
        page = await at.reads.list_runs(service_key(Right.READ), before="", limit=5)
        assert page.runs == []


async def test_reading_ahead_of_the_head() -> None:
    """A position above the head belongs to another history; at the head the page is empty."""
    async with desk() as at:
        run = await at.make_run()
        page = await at.reads.read_events(person(), run.run_id, after_seq=1, limit=5)
        assert (page.events, page.last_chain) == ((), page.topic.head_chain)
        async with refusing(reason_codes.STALE_LINEAGE_MISMATCH, after_seq="2", head_seq="1"):
            await at.reads.read_events(person(), run.run_id, after_seq=2, limit=5)


async def test_owners() -> None:
    """Control learns owners of what exists; at the limit it is answered, one beyond refused."""
    async with desk() as at:
        run = await at.make_run()
        found = await at.reads.owners([run.topic, "nonsense", format_run_events(make_id("run", 99))])
        assert {topic: record.owner_user_id for topic, record in found.items()} == {run.topic: USER}
        limit = LIMITS.topic_owners_max
        assert await at.reads.owners(["x"] * limit) == {}
        async with refusing(reason_codes.LIMIT_EXCEEDED):
            await at.reads.owners(["x"] * (limit + 1))
        async with refusing(reason_codes.INVALID_ARGUMENT):
            await at.reads.owners([])
