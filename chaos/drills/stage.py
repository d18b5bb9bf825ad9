"""What every drill stands on: a split system, a publisher at a steady rate, followers, and their verdict.

    with running_stage(folder, StageSetup()) as stage:
        ... do harm to stage.system, watch stage.followers ...
        verdict = stage.finish()

One follower for each node, so that a node's death has a witness, and a rereader, so that replays are
always under way. ``finish`` stops the publisher (everything begun is acknowledged), waits until the
followers have what PostgreSQL holds, and lets the checker judge their files.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.drills.client_process import ClientProcess, FollowerProcess
from chaos.drills.client_setup import FollowerSetup, PublisherSetup
from chaos.drills.split_system import running_split_system
from chaos.drills.verdict import Verdict, judge
from chaos.drills.waiting import wait_until
from khala_client.outgoing import OutgoingEvent
from khala_client.trio import Khala
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.drills.split_system import SplitSystem

__all__ = ["Stage", "StageSetup", "running_stage"]

# Runs that begin with this many events, so that replays read pages; half of it fits one request.
LONG_RUNS: Final = 2
LONG_RUN_EVENTS: Final = 1_500
_LONG_RUN_BATCH: Final = 500
_LONG_RUN_TEXT: Final = "x" * 400
# All services are up by now, so this is what is left of a replay.
SETTLE_TIMEOUT_S: Final = 60.0


@attrs.frozen(kw_only=True)
class StageSetup:
    """What is started.

    Attributes:
        driver: Of the fan-out; empty: what ``khala up`` takes by itself.
        events_per_s: Appended over all topics together.
    """

    nodes: int = 2
    topics: int = 8
    events_per_s: float = 200.0
    has_nats: bool = False
    driver: str = ""


@attrs.define(eq=False)
class Stage:
    """Made by ``running_stage``."""

    setup: StageSetup
    system: SplitSystem
    topics: tuple[str, ...]
    publisher: ClientProcess
    followers: list[FollowerProcess]
    rereader: ClientProcess
    # Unix time from which the load was steady.
    began_at_s: float

    def check_clients(self) -> None:
        """Raise DrillFailed if a client has ended by itself."""
        for client in (self.publisher, *self.followers, self.rereader):
            client.check_running()

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
        self.rereader.stop()
        for follower in self.followers:
            follower.stop()
        return judge(
            self.system.under_test,
            self.topics,
            publisher=self.publisher.setup,
            followers=self.followers,
            rereader=self.rereader.setup,
            began_at_s=self.began_at_s,
        )


@contextmanager
def running_stage(folder: Path, setup: StageSetup) -> Iterator[Stage]:
    """Start everything in ``folder``; end it with the block.

    Raises:
        SystemFailedError, DrillFailed: It did not come up.
    """
    clients = folder / "clients"
    clients.mkdir()
    with (
        running_split_system(
            folder, nodes=setup.nodes, has_nats=setup.has_nats, driver=setup.driver
        ) as system,
        ExitStack() as held,
    ):
        profile = str(system.under_test.profile)
        topics = trio.run(_make_runs, profile, setup.topics)
        followers = [
            FollowerProcess.start(
                "follower",
                FollowerSetup(
                    name=f"follower-{name}",
                    folder=str(clients),
                    profile=profile,
                    topics=topics,
                    sync_url=system.node_url(name),
                ),
            )
            for name in system.node_names
        ]
        for follower in followers:
            held.callback(follower.end)
        for follower in followers:
            wait_until(
                lambda follower=follower: follower.count("live") >= len(topics),  # type: ignore[misc]
                timeout_s=SETTLE_TIMEOUT_S,
                what=f"{follower.setup.name} follows every topic",
            )
        last_node = system.node_url(system.node_names[-1])
        reading = FollowerSetup(
            name="rereader",
            folder=str(clients),
            profile=profile,
            topics=topics[:LONG_RUNS],
            sync_url=last_node,
        )
        rereader = ClientProcess.start("rereader", reading)
        held.callback(rereader.end)
        writing = PublisherSetup(
            name="publisher",
            folder=str(clients),
            profile=profile,
            topics=topics,
            events_per_s=setup.events_per_s,
        )
        began_at_s = time.time()
        publisher = ClientProcess.start("publisher", writing)
        held.callback(publisher.end)
        stage = Stage(setup, system, topics, publisher, followers, rereader, began_at_s)
        wait_until(
            lambda: writing.file("acks.jsonl").exists() and writing.file("acks.jsonl").stat().st_size > 0,
            timeout_s=SETTLE_TIMEOUT_S,
            what="the first acknowledgement",
        )
        yield stage


async def _make_runs(profile: str, count: int) -> tuple[str, ...]:
    """Make runs, the first of them long; return their topics."""
    topics: list[str] = []
    async with Khala.from_env({"KHALA_PROFILE": profile}) as khala:
        for number in range(count):
            created = await khala.runtime.create_run(idempotency_key=f"drill-run-{number}")
            topics.append(created.run.topic)
        for topic in topics[:LONG_RUNS]:
            run_id = parse_topic(topic).ids["run_id"]
            for first in range(0, LONG_RUN_EVENTS, _LONG_RUN_BATCH):
                events = [
                    OutgoingEvent.of("output", {"text": f"{topic} {first + index} {_LONG_RUN_TEXT}"})
                    for index in range(_LONG_RUN_BATCH)
                ]
                await khala.runtime.append(run_id, events, idempotency_key=f"drill-{run_id}-{first}")
    return tuple(topics)
