"""Appending to runs: order, batches, retries with one key, endings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from khala_client.core.batching import BatchLimits
from khala_client.errors import KhalaError, Unavailable
from khala_client.outgoing import OutgoingEvent
from khala_client.ring.run import Run
from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.topics import TopicName
from tests.actors.khala_client.loops import Halves, on_both_loops
from tests.actors.khala_client.world import World, problem

if TYPE_CHECKING:
    from khala_client.ring.khala import Khala

NO_ANSWER = httpx.ReadTimeout("no answer")


def kinds_of(world: World, run: Run) -> list[str]:
    """Return the kinds of a run's log."""
    return [frame.kind for frame in world.logs[TopicName(run.topic)].frames]


def texts_of(world: World, run: Run) -> list[str]:
    """Return the texts of a run's thoughts."""
    frames = world.logs[TopicName(run.topic)].frames
    return [frame.payload[2:].decode() for frame in frames if frame.kind == "thought"]


def batches_of(world: World) -> list[int]:
    """Return how many events each append request had."""
    return [
        len(m.AppendEventsRequest.FromString(request.content).events) for request in world.calls("/events")
    ]


@on_both_loops
async def test_the_example_of_the_contract(world: World, khala: Khala) -> None:
    """SPEC section 8: started, emitted, finished by leaving the block, followed from the beginning."""
    async with khala.run(name="fix-1867") as run:
        ack = await run.emit("thought", text="Look at the failing test first.")
        assert ack.seq == 2
        ack = await run.emit("action", tool="pytest", args=["-x"])
        assert (ack.seq, run.last_ack) == (3, ack)
    assert run.info.state == "succeeded"
    assert kinds_of(world, run) == ["run.started", "thought", "action", "run.finished"]
    async with khala.subscribe(f"run:{run.id}:events", after="saved") as events:
        with anyio.fail_after(5):
            seen = [(await events.__anext__()).kind for _ in range(4)]
    assert seen == kinds_of(world, run)


@on_both_loops
async def test_events_gather_while_a_request_is_on_its_way(world: World, khala: Khala) -> None:
    """The request before is the timer: the first goes alone, the rest together, in order."""
    async with khala.run() as run:
        world.append_gate = anyio.Event()
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(run.emit, "thought", {"text": "first"})
            await anyio.wait_all_tasks_blocked()
            for number in range(20):
                await run.send("thought", {"text": str(number)})
            world.append_gate.set()
        ack = await run.flush()
        assert ack is not None
        assert ack.seq == 22
    assert texts_of(world, run) == ["first", *(str(number) for number in range(20))]
    assert batches_of(world) == [1, 20]


@on_both_loops
async def test_a_lost_answer_is_asked_for_with_the_same_key(world: World, khala: Khala) -> None:
    """CL-05: the response dropped 10 times; exactly one event, one ack."""
    world.lost_answers = 10
    async with khala.run() as run:
        ack = await run.emit("thought", text="once")
        assert ack.seq == 2
    assert texts_of(world, run) == ["once"]
    requests = world.calls("/events")
    assert len(requests) == 11
    assert len({request.headers["Idempotency-Key"] for request in requests}) == 1
    assert len({request.content for request in requests}) == 1


@on_both_loops
async def test_keyed_events_can_be_appended_again(world: World, khala: Khala) -> None:
    """A recording is repeated with its keys: nothing is appended twice; a key is given where none is."""
    async with khala.run() as run:
        for _ in range(2):
            for number in range(3):
                await run.send("thought", {"text": str(number)}, key=f"import-{number}")
            await run.send("thought", {"text": "unnamed"})
        await run.flush()
    assert texts_of(world, run).count("unnamed") == 2
    assert [text for text in texts_of(world, run) if text != "unnamed"] == ["0", "1", "2"]


@on_both_loops
async def test_a_keyed_stream_is_retried(world: World, khala: Khala) -> None:
    """An answer that got lost, and then a chunk that was refused for now."""
    async with khala.run() as run:
        failed = m.AppendStreamAck(
            failed=m.StreamError(code="rate_limited", retryable=True, retry_after_ms=2_000)
        )
        world.http_troubles.extend([NO_ANSWER, httpx.Response(200, json=_json(failed))])
        await run.send("thought", {"text": "x"}, key="k")
        with anyio.fail_after(30):
            await run.flush()
        assert anyio.current_time() == pytest.approx(2.125)
    assert texts_of(world, run) == ["x"]


def _json(message: m.AppendStreamAck) -> object:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True)


@on_both_loops
async def test_the_servers_return_time_is_obeyed(world: World, khala: Khala) -> None:
    """rate_limited: the batch comes again exactly then."""
    async with khala.run() as run:
        world.http_troubles.append(problem(reason_codes.RATE_LIMITED, retry_after_ms=7_000))
        await run.emit("thought", text="x")
        assert anyio.current_time() == pytest.approx(7.0)


@on_both_loops
async def test_a_server_that_stays_away_is_given_up(world: World, khala: Khala) -> None:
    """After five minutes the emitter is told; the run can still be ended."""
    async with khala.run() as run:
        world.http_troubles.extend([NO_ANSWER] * 100)
        with pytest.raises(Unavailable):
            await run.emit("thought", text="x")
        assert 270 < anyio.current_time() <= 300
        world.http_troubles.clear()
    assert run.info.state == "succeeded"


@on_both_loops
async def test_one_poisoned_event_fails_alone(world: World, khala: Khala) -> None:
    """Its batch is tried one by one; order is kept, and only its emitter is told."""
    outcomes: dict[str, object] = {}

    async def emit(run: Run, text: str) -> None:
        try:
            outcomes[text] = (await run.emit("thought", text=text)).seq
        except KhalaError as error:
            outcomes[text] = error.code

    async with khala.run() as run:
        world.append_gate = anyio.Event()
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(emit, run, "first")
            await anyio.wait_all_tasks_blocked()
            for text in ("a", "poison", "b"):
                nursery.start_soon(emit, run, text)
            await anyio.wait_all_tasks_blocked()
            world.append_gate.set()
    assert outcomes.pop("poison") == "invalid_argument"
    assert sorted(outcomes) == sorted(texts_of(world, run)) == ["a", "b", "first"]
    assert batches_of(world) == [1, 3, 1, 1, 1]


@on_both_loops
async def test_a_refused_event_that_nobody_waits_for_is_told_later(world: World, khala: Khala) -> None:
    """By the next call, and by leaving the block; the run is not called a success."""
    with pytest.raises(KhalaError, match="invalid_argument"):
        async with khala.run() as run:
            await run.send("thought", {"text": "poison"})
            with pytest.raises(KhalaError, match="invalid_argument"):
                await run.flush()
            with pytest.raises(KhalaError, match="invalid_argument"):
                await run.send("thought", {"text": "more"})
            # An event that somebody waits for is not concerned.
            await run.emit("thought", text="awaited")
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "failed"


@on_both_loops
async def test_a_cancellation_at_the_end_cancels_the_run(world: World, khala: Khala) -> None:
    """It comes while the block is left: what was sent is still on its way, and nobody else ends the run."""
    world.append_gate = anyio.Event()
    async with anyio.create_task_group() as nursery:
        with anyio.move_on_after(0.05):
            async with khala.run() as run:
                await run.send("thought", {"text": "x"})
                nursery.start_soon(open_later, world.append_gate)
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "cancelled"
    assert texts_of(world, run) == ["x"]


async def open_later(gate: anyio.Event) -> None:
    """Open after the cancellation."""
    await anyio.sleep(1)
    gate.set()


@on_both_loops
async def test_a_malformed_event_is_refused_before_it_is_sent(world: World, khala: Khala) -> None:
    """With the field; nothing went out."""
    async with khala.run() as run:
        with pytest.raises(KhalaError, match=r"data\.txt"):
            await run.emit("thought", txt="x")
        with pytest.raises(KhalaError, match="kind_unknown"):
            await run.send("no.such", {})
    assert world.calls("/events") == []


@on_both_loops
async def test_kind_may_be_a_field(world: World, khala: Khala) -> None:
    """The first argument is positional only; mapping and keywords meet."""
    async with khala.run() as run:
        await run.emit("custom", {"name": "x"}, data={"kind": "y"})
    assert kinds_of(world, run)[1] == "custom"


@on_both_loops
async def test_a_full_queue_makes_the_sender_wait(world: World) -> None:
    """Memory is bounded; order is kept."""
    async with (
        world.front(world.settings, rng=Halves(), wall_clock=lambda: 0.0) as khala,
        khala.run() as made,
    ):
        limits = BatchLimits(batch_items_max=2, queue_items_max=3)
        run = Run(made.info, khala.runtime, rng=Halves(), limits=limits)

        async def hand_over() -> None:
            for number in range(50):
                await run.send("thought", {"text": str(number)})
                assert len(run._queue) <= 3

        world.append_gate = anyio.Event()
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(run.run_sender)
            nursery.start_soon(hand_over)
            await anyio.wait_all_tasks_blocked()
            assert len(run._queue) == 3
            world.append_gate.set()
            await anyio.wait_all_tasks_blocked()
            await run.flush()
            nursery.cancel_scope.cancel()
        assert texts_of(world, made) == [str(number) for number in range(50)]
    assert max(batches_of(world)) == 2


@on_both_loops
async def test_an_exception_fails_the_run(world: World, khala: Khala) -> None:
    """What was sent is appended first; the reason is the exception's type, not its text."""
    with pytest.raises(ZeroDivisionError):
        await run_and_raise(khala, ZeroDivisionError("secret"))
    (request,) = world.calls("/transitions")
    sent = m.TransitionRunRequest.FromString(request.content)
    assert (m.RUN_STATES.word(sent.to_state), sent.reason) == ("failed", "ZeroDivisionError")
    log = next(iter(world.logs.values()))
    assert [frame.kind for frame in log.frames] == ["run.started", "thought", "run.finished"]


async def run_and_raise(khala: Khala, error: BaseException) -> None:
    """Send one event, then fail."""
    async with khala.run() as run:
        await run.send("thought", {"text": "x"})
        raise error


@on_both_loops
async def test_a_cancellation_cancels_the_run(world: World, khala: Khala) -> None:
    """Also when the application is cancelled as a whole; bounded, so that nobody waits for it."""
    with anyio.move_on_after(0.05):
        async with khala.run() as run:
            await run.send("thought", {"text": "x"})
            await anyio.sleep_forever()
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "cancelled"
    assert texts_of(world, run) == ["x"]


@on_both_loops
async def test_an_ending_that_cannot_be_told_is_not_waited_for(world: World, khala: Khala) -> None:
    """Five seconds while an exception passes through; the exception is the block's."""
    world.http_troubles.append(None)
    world.http_troubles.extend([NO_ANSWER] * 100)
    with pytest.raises(ZeroDivisionError):
        await run_and_raise(khala, ZeroDivisionError())
    assert anyio.current_time() <= 5.1


@on_both_loops
async def test_a_run_may_end_itself(world: World, khala: Khala) -> None:
    """Once; leaving the block adds nothing."""
    async with khala.run() as run:
        await run.send("thought", {"text": "x"})
        await run.finish("failed", reason="exit", exit_status=3)
        assert run.info.state == "failed"
        await run.finish()
    (request,) = world.calls("/transitions")
    assert m.TransitionRunRequest.FromString(request.content).exit_status == 3


@on_both_loops
async def test_the_start_is_retried_with_one_key(world: World, khala: Khala) -> None:
    """And given up after 20 s."""
    world.http_troubles.extend([NO_ANSWER, NO_ANSWER])
    async with khala.run(name="n", key="start-1") as run:
        pass
    assert {request.headers["Idempotency-Key"] for request in world.calls("/v1/runs")} == {"start-1"}
    async with khala.run(key="start-1") as again:
        assert again.id == run.id
    world.http_troubles.extend([NO_ANSWER] * 100)
    with pytest.raises(Unavailable), anyio.fail_after(25):
        async with khala.run():
            pytest.fail("started")


@on_both_loops
async def test_attaching_does_not_end_the_run(world: World, khala: Khala) -> None:
    """Appended and flushed, still running."""
    async with khala.run() as run:
        async with khala.attach_run(run.id) as attached:
            assert attached.info.state == "running"
            await attached.send_event(OutgoingEvent.of("thought", {"text": "x"}))
        assert texts_of(world, run) == ["x"]
        assert world.calls("/transitions") == []
    with pytest.raises(KhalaError, match="not_found"):
        async with khala.attach_run("run_no"):
            pytest.fail("attached")


@on_both_loops
async def test_an_attached_run_keeps_what_was_sent_before_an_exception(world: World, khala: Khala) -> None:
    """It was handed over; the exception is the block's."""
    created = await khala.runtime.create_run(idempotency_key="k")
    world.append_gate = anyio.Event()
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(open_later, world.append_gate)
        with pytest.raises(ZeroDivisionError):
            await attach_and_raise(khala, created.run.run_id)
    frames = next(iter(world.logs.values())).frames
    assert [frame.kind for frame in frames] == ["run.started", "thought", "thought"]


async def attach_and_raise(khala: Khala, run_id: str) -> None:
    """Send two events, then fail."""
    async with khala.attach_run(run_id) as run:
        await run.send("thought", {"text": "1"})
        await run.send("thought", {"text": "2"})
        raise ZeroDivisionError


@on_both_loops
async def test_what_is_left_behind_is_told(world: World, khala: Khala) -> None:
    """Emitters that outlive the block do not hang: neither those that wait nor those that come later."""
    errors: list[str] = []

    async def emit(run: Run) -> None:
        try:
            await run.emit("thought", text="late")
        except KhalaError as error:
            errors.append(error.code)

    created = await khala.runtime.create_run(idempotency_key="k")
    async with anyio.create_task_group() as nursery:
        run = Run(created.run, khala.runtime, rng=Halves(), limits=BatchLimits(queue_items_max=1))
        for _ in range(3):
            nursery.start_soon(emit, run)
        await anyio.wait_all_tasks_blocked()
        run.abandon(KhalaError("unavailable", "left", retryable=True))
    await emit(run)
    assert errors == ["unavailable"] * 4


@on_both_loops
async def test_a_run_that_was_left_takes_nothing_more(world: World, khala: Khala) -> None:
    """Attached, left, and used again by mistake."""
    created = await khala.runtime.create_run(idempotency_key="k")
    async with khala.attach_run(created.run.run_id) as run:
        pass
    with pytest.raises(KhalaError, match="was left"):
        await run.emit("thought", text="late")
