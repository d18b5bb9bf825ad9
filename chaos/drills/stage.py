"""What every drill stands on: a split system, a publisher at a steady rate, followers, and their verdict.

    with running_stage(folder, StageSetup(), SystemSetup()) as stage:
        ... do harm to stage.system, watch stage.followers ...
        verdict = stage.finish()

One follower for each node, so that a node's death has a witness, and a rereader, so that replays are
always under way. ``finish`` stops the publisher (everything begun is acknowledged), waits until the
followers have what PostgreSQL holds, and lets the checker judge their files. A stage may stand on a
system that others have stood on and will: its runs, clients and files are its own.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.drills.client_process import ClientProcess, FollowerProcess
from chaos.drills.client_setup import FollowerSetup, PublisherSetup
from chaos.drills.memory_samples import MemorySampler
from chaos.drills.split_system import running_split_system
from chaos.drills.verdict import Verdict, judge
from chaos.drills.waiting import pause, wait_until
from khala_client.outgoing import OutgoingEvent
from khala_client.trio import Khala
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.drills.split_system import Ended, SplitSystem
    from chaos.drills.system_setup import SystemSetup

__all__ = ["Stage", "StageSetup", "running_stage"]

# Runs that begin with this many events, so that replays read pages; half of it fits one request.
LONG_RUNS: Final = 2
LONG_RUN_EVENTS: Final = 1_500
_LONG_RUN_BATCH: Final = 500
_LONG_RUN_TEXT: Final = "x" * 400
# All services are up by now, so this is what is left of a replay.
SETTLE_TIMEOUT_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.2


@attrs.frozen(kw_only=True)
class StageSetup:
    """Which clients there are.

    Attributes:
        events_per_s: Appended over all topics together.
        has_rereader: Whether one client keeps joining from far behind.
    """

    topics: int = 8
    events_per_s: float = 200.0
    has_rereader: bool = True


@attrs.define(eq=False)
class Stage:
    """Made by ``running_stage``."""

    setup: StageSetup
    system: SplitSystem
    topics: tuple[str, ...]
    publisher: ClientProcess
    followers: list[FollowerProcess]
    rereader: ClientProcess | None
    # Unix time from which the load was steady.
    began_at_s: float
    memory: MemorySampler
    # How many processes had ended by then: on a shared system, others' faults.
    ends_before: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Forget what was before."""
        self.system.look()
        self.ends_before = len(self.system.ends)

    def check_clients(self) -> None:
        """Raise DrillFailed if a client has ended by itself."""
        for client in (self.publisher, *self.followers, self.rereader):
            if client is not None:
                client.check_running()

    def watch(self, until_s: float) -> None:
        """Let time pass until ``until_s``, a Unix time. Raises as ``check_clients``."""
        while time.time() < until_s:
            self.check_clients()
            pause(_LOOK_EVERY_S)

    def ends_of(self, name: str) -> list[Ended]:
        """Return the ends of processes of a name since the stage began, in their order."""
        self.system.look()
        ends = list(self.system.ends.values())
        return [end for end in ends[self.ends_before :] if end.name == name]

    def heads(self) -> dict[str, int]:
        """Return the newest position of each topic, as PostgreSQL has it now."""
        names = ", ".join(f"'{topic}'" for topic in self.topics)
        rows = self.system.under_test.query(
            f"SELECT topic, head_seq FROM runtime.topic_heads WHERE topic IN ({names})"  # noqa: S608 - server-made names
        )
        return {topic: int(seq) for topic, seq in rows}

    def wait_delivered(self, *, timeout_s: float, what: str) -> float:
        """Return how long it took until every follower had what is committed now."""
        heads = self.heads()

        def is_delivered() -> bool:
            self.check_clients()
            return all(follower.has_reached(heads) for follower in self.followers)

        return wait_until(is_delivered, timeout_s=timeout_s, what=what)

    def finish(self) -> Verdict:
        """End the load, wait for the followers, and judge.

        Raises:
            DrillFailed: A client did not end as it should, or does not reach the head.
        """
        self.check_clients()
        self.publisher.stop()
        self.wait_delivered(timeout_s=SETTLE_TIMEOUT_S, what="every follower is at the head of every topic")
        if self.rereader is not None:
            self.rereader.stop()
        for follower in self.followers:
            follower.stop()
        # At the least this once, however short the drill was.
        self.memory.look()
        return judge(
            self.system.under_test,
            self.topics,
            publisher=self.publisher.setup,
            followers=self.followers,
            rereader=None if self.rereader is None else self.rereader.setup,
            began_at_s=self.began_at_s,
            samples=self.memory.samples,
        )


@contextmanager
def running_stage(
    folder: Path, setup: StageSetup, system: SystemSetup, *, shared: SplitSystem | None = None
) -> Iterator[Stage]:
    """Start everything in ``folder``, or the clients alone on a shared system; end it with the block.

    Raises:
        SystemFailedError, DrillFailed: It did not come up.
    """
    clients = folder / "clients"
    clients.mkdir()
    with ExitStack() as held:
        running = shared or held.enter_context(running_split_system(folder, system))
        for name in running.service_names:
            running.wait_ready(name)
        yield _open_clients(running, setup, clients, held)


def _open_clients(system: SplitSystem, setup: StageSetup, folder: Path, held: ExitStack) -> Stage:
    """Start clients and load; they end with ``held``."""
    profile = str(system.under_test.profile)
    # Its name also makes the keys of requests: no two stages on one system have the same.
    name = f"drill-{time.time_ns():x}"
    topics = trio.run(_make_runs, profile, name, setup.topics, setup.has_rereader)
    followers = [
        FollowerProcess.start(
            "follower",
            FollowerSetup(
                name=f"follower-{node}",
                folder=str(folder),
                profile=profile,
                topics=topics,
                sync_url=system.client_url(node),
            ),
        )
        for node in system.node_names
    ]
    for follower in followers:
        held.callback(follower.end)
    rereader = None
    if setup.has_rereader:
        reading = FollowerSetup(
            name="rereader",
            folder=str(folder),
            profile=profile,
            topics=topics[:LONG_RUNS],
            sync_url=system.node_url(system.node_names[-1]),
        )
        rereader = ClientProcess.start("rereader", reading)
        held.callback(rereader.end)
    for follower in followers:
        wait_until(
            lambda follower=follower: follower.count("live") >= len(topics),  # type: ignore[misc]
            timeout_s=SETTLE_TIMEOUT_S,
            what=f"{follower.setup.name} follows every topic",
        )
    writing = PublisherSetup(
        name="publisher",
        key_prefix=name,
        folder=str(folder),
        profile=profile,
        topics=topics,
        events_per_s=setup.events_per_s,
    )
    began_at_s = time.time()
    publisher = ClientProcess.start("publisher", writing)
    held.callback(publisher.end)
    wait_until(
        lambda: writing.file("acks.jsonl").exists() and writing.file("acks.jsonl").stat().st_size > 0,
        timeout_s=SETTLE_TIMEOUT_S,
        what="the first acknowledgement",
    )
    memory = held.enter_context(MemorySampler(system))
    return Stage(setup, system, topics, publisher, followers, rereader, began_at_s, memory)


async def _make_runs(profile: str, name: str, count: int, has_long: bool) -> tuple[str, ...]:
    """Make runs, the first of them long; return their topics."""
    topics: list[str] = []
    async with Khala.from_env({"KHALA_PROFILE": profile}) as khala:
        for number in range(count):
            created = await khala.runtime.create_run(idempotency_key=f"{name}-run-{number}")
            topics.append(created.run.topic)
        for topic in topics[: LONG_RUNS if has_long else 0]:
            run_id = parse_topic(topic).ids["run_id"]
            for first in range(0, LONG_RUN_EVENTS, _LONG_RUN_BATCH):
                events = [
                    OutgoingEvent.of("output", {"text": f"{topic} {first + index} {_LONG_RUN_TEXT}"})
                    for index in range(_LONG_RUN_BATCH)
                ]
                await khala.runtime.append(run_id, events, idempotency_key=f"{name}-{run_id}-{first}")
    return tuple(topics)
