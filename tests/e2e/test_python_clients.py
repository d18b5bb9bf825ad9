"""The Python clients against a real system: one suite for trio and asyncio, then Ctrl-C and the blocking one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs
import pytest
import trio

from khala_client import Forbidden, KhalaError, ReauthRequired, SqliteStore, StaleCursor
from khala_client.blocking import Khala as BlockingKhala
from khala_client.notices import Connected, Disconnected
from khala_contracts.topics import TopicName, format_app
from tests.actors.khala_client.loops import LOOPS, LoopKind
from tests.e2e.system import System, running_system
from tests.e2e.wire import open_wire, subscribe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from khala_client import MintedToken
    from khala_client.notices import Notice
    from khala_client.ring.khala import Khala

pytestmark = pytest.mark.slow

EVENTS = 300
# Above every wait of a healthy system, also on a machine that is busy with other things.
PATIENCE_S = 60.0
USER_DEVICE = "dev_00000000000000000000000017"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a node of its own, which tests kill: the supervisor brings it back."""
    with running_system(tmp_path_factory.mktemp("clients"), split=True) as started:
        yield started


@attrs.frozen
class Backend:
    """A service key of the development user's org, and the environment that goes with it."""

    org_id: str
    environment: dict[str, str]

    @property
    def topic(self) -> TopicName:
        """An app topic of the org."""
        return format_app(self.org_id, "orders")


@pytest.fixture(scope="module")
def backend(system: System) -> Backend:
    """What SPEC section 5 gives a backend: one URL and one key."""
    made = system.run("keys", "create", "--name", "backend", "--can", "publish,work,read,mint", "--json")
    (key,) = [json.loads(line) for line in made.stdout.splitlines()]
    return Backend(key["org_id"], {"KHALA_URL": system.ready["origin"], "KHALA_KEY": key["secret"]})


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request: pytest.FixtureRequest) -> LoopKind:
    """Each event loop."""
    kind: LoopKind = request.param
    return kind


def profile_of(system: System) -> Path:
    """Return the development user's profile."""
    return system.data_dir / "profile"


def run(loop: LoopKind, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop, in real time."""
    loop.run(scenario, real_time=True)


async def take(khala: Khala, topic: str, count: int, **options: object) -> list[int]:
    """Follow a topic and return the seqs of its next events."""
    with anyio.fail_after(PATIENCE_S):
        async with khala.subscribe(topic, **options) as events:  # type: ignore[arg-type]  # what a test asks for
            return [(await events.__anext__()).seq for _ in range(count)]


def test_a_run_from_its_start_to_its_end(system: System, loop: LoopKind) -> None:
    """SPEC section 8: started, emitted, finished by leaving the block; followed once, then remembered."""

    async def scenario() -> None:
        async with loop.khala.from_env({"KHALA_PROFILE": str(profile_of(system))}) as khala:
            async with khala.run(name=f"fix-{loop.name}") as run:
                await run.emit("thought", text="Look at the failing test first.")
                ack = await run.emit("action", tool="pytest", args=["-x"])
                async with anyio.create_task_group() as tasks:
                    for number in range(50):
                        tasks.start_soon(run.emit, "output", {"text": str(number)})
            assert ack.seq == 3
            assert run.info.state == "succeeded"
            assert await take(khala, run.topic, 54) == list(range(1, 55))
            with anyio.move_on_after(0.3):
                assert await take(khala, run.topic, 1) == []
            for after, seqs in (("beginning", [1, 2]), ("earliest", [1, 2]), (53, [54]), (0, [1])):
                assert await take(khala, run.topic, len(seqs), after=after) == seqs

    run(loop, scenario)


def test_a_run_that_fails(system: System, loop: LoopKind) -> None:
    """The state is the runtime's, the reason the exception's type."""

    async def scenario() -> None:
        async with loop.khala.from_env({}, profile=profile_of(system)) as khala:
            with pytest.raises(ZeroDivisionError):
                async with khala.run() as run:
                    await run.send("thought", {"text": "x"})
                    raise ZeroDivisionError
            assert (await khala.runtime.get_run(run.id)).state == "failed"

    run(loop, scenario)


def test_live_from_now_on(system: System, loop: LoopKind) -> None:
    """``after="now"``: what is committed after the subscription, and nothing before."""

    async def scenario() -> None:
        async with loop.khala.from_env({}, profile=profile_of(system)) as khala, khala.run() as run:
            async with khala.subscribe(run.topic, after="now") as events, anyio.create_task_group() as tasks:

                async def emit_when_live() -> None:
                    with anyio.fail_after(PATIENCE_S):
                        while not events.is_live:
                            await anyio.sleep(0.01)
                    await run.emit("thought", text="live")

                tasks.start_soon(emit_when_live)
                with anyio.fail_after(PATIENCE_S):
                    event = await events.__anext__()
            assert (event.seq, event.data["text"]) == (2, "live")

    run(loop, scenario)


def test_a_killed_node_costs_nothing(system: System, loop: LoopKind, tmp_path: Path) -> None:
    """Kill -9 in the middle of a live stream: the store ends as the log, each event once."""
    store = SqliteStore.open(tmp_path / "store.sqlite3", namespace="n")
    notices: list[Notice] = []

    async def scenario() -> None:
        async with (
            loop.khala.from_env({}, profile=profile_of(system)) as khala,
            khala.run() as run,
            khala.subscribe(run.topic, store=store, on_notice=notices.append) as events,
            anyio.create_task_group() as tasks,
        ):

            async def write() -> None:
                for number in range(EVENTS):
                    await run.emit("output", text=str(number))

            tasks.start_soon(write)
            with anyio.fail_after(PATIENCE_S):
                for seq in range(1, EVENTS + 2):
                    event = await events.__anext__()
                    assert event.seq == seq
                    if seq == EVENTS // 3:
                        killed = await anyio.to_thread.run_sync(system.kill, "node-1")
            await anyio.to_thread.run_sync(system.wait_back, "node-1", killed)
            head = (await khala.runtime.get_topic(run.topic)).head_chain
            assert events.cursor is not None
            assert events.cursor.chain == head
        kept = list(store.read_history(TopicName(run.topic)))
        assert [event.seq for event in kept] == list(range(1, EVENTS + 2))
        assert kept[-1].chain == head

    run(loop, scenario)
    assert any(isinstance(notice, Disconnected) for notice in notices)
    assert sum(isinstance(notice, Connected) for notice in notices) >= 2
    store.close()


def test_a_topic_added_later_is_granted_in_band(system: System, loop: LoopKind) -> None:
    """A renewal on the open connection: no second socket, and the first topic goes on."""
    notices: list[Notice] = []

    async def scenario() -> None:
        async with (
            loop.khala.from_env({}, profile=profile_of(system)) as khala,
            khala.run() as first,
            khala.run() as second,
            khala.subscribe(first.topic, after="beginning", on_notice=notices.append) as events,
        ):
            with anyio.fail_after(PATIENCE_S):
                assert (await events.__anext__()).seq == 1
                assert await take(khala, second.topic, 1, after="beginning") == [1]
                await first.emit("thought", text="x")
                assert (await events.__anext__()).seq == 2

    run(loop, scenario)
    assert sum(isinstance(notice, Connected) for notice in notices) == 1


def test_what_cannot_be_followed_is_raised(system: System, loop: LoopKind, backend: Backend) -> None:
    """Another history, a run that nobody has, a key that is none: each its own exception, at once."""

    async def scenario() -> None:
        async with loop.khala.from_env({}, profile=profile_of(system)) as khala:
            async with khala.run() as run:
                pass
            with pytest.raises(StaleCursor, match="lineage_mismatch"):
                await take(khala, run.topic, 1, after=99)
            with pytest.raises(Forbidden):
                await take(khala, f"run:run_{1:026d}:events", 1)
        forged = {**backend.environment, "KHALA_KEY": "khk_" + "0" * 43}
        async with loop.khala.from_env(forged) as khala:
            with pytest.raises(ReauthRequired):
                await take(khala, run.topic, 1)

    run(loop, scenario)


def test_a_backend_publishes_and_lets_its_users_in(system: System, loop: LoopKind, backend: Backend) -> None:
    """One URL, one key: an app topic, a token for a user of its own, and a socket opened with that token."""

    async def scenario() -> None:
        async with loop.khala.from_env(backend.environment) as khala:
            before = await khala.publish(backend.topic, "custom", name="order.paid", data={"id": 17})
            ack = await khala.publish(backend.topic, "custom", {"name": "order.sent"})
            assert ack.seq == before.seq + 1
            assert await take(khala, backend.topic, 2) == [1, 2]
            minted.append(
                await khala.mint(user_id="customer-17", device_id=USER_DEVICE, topics=[backend.topic])
            )
            assert minted[0].topics == (backend.topic,)
            assert minted[0].sync_url == system.ready["origin"].replace("http", "ws") + "/sync/v1/ws"
            with pytest.raises(KhalaError):
                await khala.publish(format_app(f"org_{1:026d}", "orders"), "custom", name="x")

    async def follow_as_the_user() -> None:
        async with open_wire(system) as wire:
            await wire.greet(minted[0].token, USER_DEVICE)
            follower = await subscribe(wire, backend.topic)
            assert follower.subscribed.head_seq >= 2

    minted: list[MintedToken] = []
    run(loop, scenario)
    trio.run(follow_as_the_user)


def test_a_script_needs_no_event_loop(system: System, backend: Backend) -> None:
    """The blocking front: the same calls, the same answers."""
    with BlockingKhala.from_env({"KHALA_PROFILE": str(profile_of(system))}) as khala:
        with khala.run(name="script") as run:
            run.emit("thought", text="no loop in sight")
        with khala.subscribe(run.topic) as events:
            assert [next(events).kind for _ in range(3)] == ["run.started", "thought", "run.finished"]
    with BlockingKhala.from_env(backend.environment) as khala:
        assert khala.publish(backend.topic, "custom", name="order.paid").seq >= 1


PROGRAMS = {
    "trio": """
import trio
from khala_client.trio import Khala
async def main():
    async with Khala.from_env() as khala, khala.run() as run:
        async with khala.subscribe(run.topic) as events:
            async for event in events:
                print(run.id, flush=True)
trio.run(main)
""",
    "asyncio": """
import asyncio
from khala_client import Khala
async def main():
    async with Khala.from_env() as khala, khala.run() as run:
        async with khala.subscribe(run.topic) as events:
            async for event in events:
                print(run.id, flush=True)
asyncio.run(main())
""",
    "blocking": """
from khala_client.blocking import Khala
with Khala.from_env() as khala, khala.run() as run:
    with khala.subscribe(run.topic) as events:
        for event in events:
            print(run.id, flush=True)
""",
}


@pytest.mark.parametrize("front", sorted(PROGRAMS))
def test_ctrl_c_ends_a_program_and_cancels_its_run(system: System, front: str) -> None:
    """It waits for the next event: it ends at once by KeyboardInterrupt, and the runtime knows."""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAMS[front]],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "KHALA_PROFILE": str(profile_of(system)),
            "KHALA_STORE": str(system.folder / f"{front}.sqlite3"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    run_id = program.stdout.readline().strip()
    try:
        assert run_id.startswith("run_"), program.stderr.read() if program.stderr else ""
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=30)
    finally:
        if program.poll() is None:
            program.kill()
            program.communicate()
    assert "KeyboardInterrupt" in errors
    assert "Warning" not in errors
    listed = [json.loads(line) for line in system.run("runs", "--json").stdout.splitlines()]
    assert [each["state"] for each in listed if each["run_id"] == run_id] == ["cancelled"]
