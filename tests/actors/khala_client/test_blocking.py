"""The blocking Khala: the same names from a thread without a loop; Ctrl-C; fork."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from khala_client import Khala as AsyncioKhala
from khala_client import KhalaError, Run, blocking
from khala_client import Subscription as AsyncioSubscription
from khala_client.blocking import Khala
from khala_client.store import MemoryStore
from khala_contracts import http_messages as m
from khala_contracts.topics import TopicName, format_app
from tests.actors.khala_client.world import World, open_world
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPIC = topic_number(1)
ORDERS = format_app(f"org_{1:026d}", "orders")


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """The loop that serves the world, in a thread of its own."""
    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture
def world(portal: BlockingPortal) -> Iterator[World]:
    """A served world."""
    with portal.wrap_async_context_manager(open_world()) as world:
        yield world


@pytest.fixture
def khala(world: World) -> Iterator[Khala]:
    """A client of it."""
    with Khala(world.settings) as khala:
        yield khala


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait in a thread; 20 s at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # noqa: TID251 - a thread beside the loops


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Type Ctrl-C as soon as the condition holds."""

    def wait_and_type() -> None:
        wait_until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait_and_type)
    thread.start()
    return thread


def test_the_example_of_the_contract_without_await(world: World, khala: Khala) -> None:
    """Started, emitted, finished, followed."""
    with khala.run(name="fix-1867") as run:
        assert run.emit("thought", text="Look at the failing test first.").seq == 2
        run.send("output", {"text": "x"})
        ack = run.flush()
        assert ack is not None
        assert ack == run.last_ack
    assert run.info.state == "succeeded"
    with khala.subscribe(f"run:{run.id}:events", after="saved") as events:
        kinds = [next(events).kind for _ in range(4)]
        assert events.cursor is not None
        assert (events.topic, events.cursor.seq) == (run.topic, 4)
    assert kinds == ["run.started", "thought", "output", "run.finished"]
    with khala.attach_run(run.id) as attached:
        assert attached.info.state == "succeeded"


def test_publish_and_mint(world: World, khala: Khala) -> None:
    """The other two calls of a backend."""
    world.add(ORDERS)
    assert khala.publish(ORDERS, "custom", name="order.paid").seq == 1
    minted = khala.mint(user_id="u", device_id="dev_00000001", topics=[ORDERS])
    assert minted.sync_url == world.settings.sync_url
    assert khala.namespace.endswith("/dev_00000001")


def test_an_exception_fails_the_run_and_comes_out(world: World, khala: Khala) -> None:
    """As it was raised; errors of the client, too."""
    with pytest.raises(ZeroDivisionError), khala.run():
        raise ZeroDivisionError
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "failed"
    with khala.run() as run, pytest.raises(KhalaError, match="kind_unknown"):
        run.emit("no.such")


def test_ctrl_c_interrupts_a_wait_and_nothing_is_lost(
    world: World, khala: Khala, portal: BlockingPortal
) -> None:
    """The same iterator goes on with the next event."""
    world.add(TOPIC, 1)
    with khala.subscribe(TOPIC) as events:
        assert next(events).seq == 1
        typist = interrupt_when(lambda: events.is_live)
        with pytest.raises(KeyboardInterrupt):
            next(events)
        typist.join()
        portal.call(world.append, TOPIC, 2)
        assert [next(events).seq for _ in range(2)] == [2, 3]


def test_an_event_that_arrives_with_ctrl_c_is_given_next(
    world: World, khala: Khala, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither lost nor counted as processed."""
    world.add(TOPIC, 3)
    store = MemoryStore()
    with khala.subscribe(TOPIC, store=store) as events:
        assert next(events).seq == 1
        with interrupted_at_the_end(monkeypatch), pytest.raises(KeyboardInterrupt):
            next(events)
        assert events.has_untaken
        # What an application keeps as its own place is not beyond what it was given.
        assert events.cursor is not None
        assert events.cursor.seq == 1
    cursor = store.load_cursor(TOPIC)
    assert cursor is not None
    assert cursor.seq == 1
    with khala.subscribe(TOPIC, store=store) as events:
        with interrupted_at_the_end(monkeypatch), pytest.raises(KeyboardInterrupt):
            next(events)
        assert [next(events).seq for _ in range(2)] == [2, 3]
    cursor = store.load_cursor(TOPIC)
    assert cursor is not None
    assert cursor.seq == 3


@contextmanager
def interrupted_at_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the next call finish in its loop, and interrupt its caller before it gets the answer."""

    def wait_and_be_interrupted(futures: tuple[Future[None], ...], timeout: float) -> None:
        assert wait(futures, timeout=20).done
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("khala_client.blocking.portal.wait", wait_and_be_interrupted)
        yield


def test_ctrl_c_in_a_run_cancels_it(world: World, khala: Khala, portal: BlockingPortal) -> None:
    """The event on its way is appended once; the run is told to be cancelled."""
    gates: list[object] = []

    def work() -> None:
        with khala.run() as run:
            gates.append(run)
            run.send("thought", {"text": "x"})
            run.flush()
            typist = interrupt_when(lambda: True)
            typist.join()
            time.sleep(5)  # noqa: TID251 - what is interrupted

    with pytest.raises(KeyboardInterrupt):
        work()
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "cancelled"


def test_a_run_that_was_interrupted_while_starting_is_ended(
    world: World, khala: Khala, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else could end it."""
    waits = 0

    def be_interrupted_once(futures: tuple[Future[None], ...], timeout: float) -> object:
        nonlocal waits
        waits += 1
        waited = wait(futures, timeout=20)
        assert waited.done
        if waits == 1:
            raise KeyboardInterrupt
        return waited

    monkeypatch.setattr("khala_client.blocking.portal.wait", be_interrupted_once)
    with pytest.raises(KeyboardInterrupt), khala.run():
        pytest.fail("entered")
    (request,) = world.calls("/transitions")
    assert m.RUN_STATES.word(m.TransitionRunRequest.FromString(request.content).to_state) == "cancelled"


def test_leaving_ends_thread_and_socket(world: World) -> None:
    """Also with an exception on its way."""
    world.add(TOPIC, 1)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), Khala(world.settings) as khala, khala.subscribe(TOPIC) as events:
        next(events)
        raise ZeroDivisionError
    wait_until(lambda: not world.open_connections)
    # Idle workers of the world's own loop may come and go; the client's loop is gone.
    assert not [thread for thread in threading.enumerate() if thread.name == "khala client"]
    assert threading.active_count() <= before + 1


def test_several_threads_may_call(world: World, khala: Khala) -> None:
    """One run, many emitters; every ack is another seq."""
    seqs: list[int] = []
    with khala.run() as run:
        threads = [
            threading.Thread(target=lambda: seqs.append(run.emit("thought", text="x").seq)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seqs) == list(range(2, 10))
    assert len(world.logs[TopicName(run.topic)].frames) == 10


FORK = """
import os, sys
from khala_client.blocking import Khala
with Khala.from_env({"KHALA_URL": "http://127.0.0.1:1", "KHALA_KEY": "khk_x"}) as khala:
    child = os.fork()
    if child == 0:
        try:
            khala.mint(user_id="u", device_id="dev_00000001", topics=["x"])
        except RuntimeError as error:
            os._exit(7 if "fork" in str(error) else 8)
        os._exit(9)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_of_fork_is_told_to_open_its_own() -> None:
    """Its thread stayed behind: an error, not a wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
        check=False,
    )
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("without", "with_await", "elsewhere"),
    [
        # The clients of single services have dozens of calls; a script that needs them runs a loop.
        (Khala, AsyncioKhala, set()),
        (blocking.Run, Run, {"abandon", "run_sender"}),
        (blocking.Subscription, AsyncioSubscription, {"counts", "start", "stop"}),
    ],
)
def test_the_same_names(without: type, with_await: type, elsewhere: set[str]) -> None:
    """What can be called, and with which arguments, is the same with and without await."""
    names = {name for name in dir(with_await) if not name.startswith("_")} - elsewhere
    attributes = {"has_untaken", "info", "topic"}  # of instances, on one side
    assert names - attributes == {name for name in dir(without) if not name.startswith("_")} - attributes
    for name in names:
        one, other = getattr(with_await, name), getattr(without, name)
        if callable(one):
            assert [*inspect.signature(one).parameters] == [*inspect.signature(other).parameters]
