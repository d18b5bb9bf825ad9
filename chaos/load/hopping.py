"""``khala load hopping``: clients that move from node to node all the time, each of which must hold one history (KH-22).

Three nodes behind NATS, and before each of them the driver ``faulty``, which holds back nine of ten records for up to
500 ms: no two nodes are equally far. Each client is the Python client's own connection and apply rule over a store of
its own, without any affinity: after some seconds it leaves its node and goes on at another one, after its cursor.

The judge (chaos.checker) compares every event that every client applied, in the order of applying, with what
PostgreSQL holds: one contiguous run of the journal from 1 to the head, for each client and topic.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.checker import Evidence, History, judge
from chaos.journal_reader import journal_of, journal_query, line_of
from chaos.load.rig import open_access
from chaos.load.system_under_test import SystemFailedError
from khala_client.core.protocol import Identity
from khala_client.notices import Connected
from khala_client.outgoing import OutgoingEvent
from khala_client.ring.link import SyncLink
from khala_client.ring.subscription import Subscription
from khala_client.store import MemoryStore
from khala_client.trio.loop import TrioLoop
from khala_client.version import CLIENT_BUILD_ID
from khala_contracts.frames import Frame
from khala_contracts.topics import TopicName, format_run_events, parse_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.checker import Journal, Line, Violation
    from chaos.load.rig import Rig, RigAccess
    from khala_client.events import Event
    from khala_client.notices import Notice

__all__ = ["CONFIG", "SMOKE_HOPPING", "HoppingResult", "HoppingSetup", "run_hopping"]

# Held back by up to 500 ms, each by a time of its own; the tenth comes as NATS brings it.
LAGGING_SHARE: Final = "0.9"
CONFIG: Final[Mapping[str, Mapping[str, object]]] = {
    "fanout": {"driver": "faulty", "options": {"inner": "nats", "delay": LAGGING_SHARE, "seed": "22"}}
}
# After the last event: a stay, a connection, and the lag.
SETTLE_S: Final = 30.0
_POLL_S: Final = 0.05
# Below what the pool of connections holds.
_MINTS_AT_ONCE: Final = 12
_PAYLOAD: Final = "." * 120


@attrs.frozen(kw_only=True)
class HoppingSetup:
    """What is done.

    Attributes:
        clients: Each follows ``topics_each`` of ``topics``, all of them from the beginning.
        events_per_s: Over all topics together.
        stay_s: For how long a client stays at a node, on average; each stay is 0.5 to 1.5 of it.
        seconds: For which events are written.
    """

    clients: int = 300
    topics: int = 20
    topics_each: int = 2
    events_per_s: float = 20.0
    stay_s: float = 5.0
    seconds: float = 600.0
    seed: int = 22


# A test's share of it.
SMOKE_HOPPING: Final = HoppingSetup(clients=6, topics=2, events_per_s=20.0, stay_s=0.6, seconds=3.0)


@attrs.frozen(kw_only=True)
class HoppingResult:
    """What came of it.

    Attributes:
        events: In the journal, over all topics.
        applied: By all clients together.
        moves: Connections beyond each client's first.
        moves_min: Of the client with the fewest.
        nodes_seen_min: Different nodes of the client that saw the fewest.
        welcomes: Connections by node, as the welcome named it.
        delayed: Records that were held back, by node.
        violations: What the checker found.
    """

    events: int
    applied: int
    moves: int
    moves_min: int
    nodes_seen_min: int
    welcomes: Mapping[str, int]
    delayed: Mapping[str, int]
    violations: Sequence[Violation]


@attrs.define(eq=False)
class _Client:
    name: str
    topics: tuple[TopicName, ...]
    rng: random.Random
    lines_seen: dict[Line, Line] = attrs.field(repr=False)
    minting: trio.CapacityLimiter = attrs.field(repr=False)
    store: MemoryStore = attrs.field(factory=MemoryStore, repr=False)
    applied: list[Line] = attrs.field(factory=list, repr=False)
    positions: dict[str, int] = attrs.field(factory=dict, repr=False)
    welcomes: Counter[str] = attrs.field(factory=Counter)
    staying: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)
    stay_s: float = 0.0

    @property
    def device_id(self) -> str:
        """The device on which it always is."""
        return f"dev_{self.name.replace('-', ''):0>12}"

    async def hop(self, urls: Sequence[str], access: RigAccess, stay_s: float, is_over: trio.Event) -> None:
        """Stay at one node after the other, in an order of its own, until told to end."""
        order = self.rng.sample(list(urls), len(urls))
        # At first all of them together would be a storm, which is another test.
        await trio.sleep(self.rng.uniform(0, stay_s))
        for url in cycle(order):
            if is_over.is_set():
                return
            # It begins when there is a connection; who cannot connect goes on trying, as every client does.
            self.stay_s = stay_s * self.rng.uniform(0.5, 1.5)
            with trio.CancelScope() as self.staying:
                await self._stay(url, access)

    async def _stay(self, url: str, access: RigAccess) -> None:
        async def mint(topics: tuple[TopicName, ...]) -> str:
            async with self.minting:
                minted = await access.control.mint_sync_token(topics, subject=(self.name, self.device_id))
            return minted.token

        loop = TrioLoop()
        identity = Identity(self.device_id, CLIENT_BUILD_ID)
        link = SyncLink(url, loop=loop, mint=mint, identity=identity, rng=self.rng)
        async with loop.hold_tasks() as tasks:
            tasks.start_soon(link.run)
            async with trio.open_nursery() as following:
                for topic in self.topics:
                    saved = self.store.load_cursor(topic)
                    subscription = Subscription(
                        topic,
                        "beginning" if saved is None else saved,
                        is_stored=saved is not None,
                        tasks=tasks,
                        link=link,
                        store=self.store,
                        # The connection is one for all topics; one of them reports its news.
                        on_notice=self._note if topic == self.topics[0] else None,
                    )
                    following.start_soon(self._follow, loop, subscription)

    async def _follow(self, loop: TrioLoop, subscription: Subscription) -> None:
        with self.store.claim(subscription.topic):
            subscription.start()
            try:
                async for event in subscription:
                    self._apply(event)
            finally:
                # Commits what was processed; shielded, with a deadline.
                await loop.finish(partial(subscription.stop, is_clean=False), within_s=5.0)  # noqa: ASYNC102

    def _apply(self, event: Event) -> None:
        frame = Frame(TopicName(event.topic), event.seq, event.kind, event.payload, event.schema_version)
        line = line_of(frame, event.chain)
        # Equal lines of all clients are one object.
        self.applied.append(self.lines_seen.setdefault(line, line))
        self.positions[event.topic] = event.seq

    def _note(self, notice: Notice) -> None:
        if isinstance(notice, Connected):
            self.welcomes[notice.node_id] += 1
            self.staying.deadline = min(self.staying.deadline, trio.current_time() + self.stay_s)


def run_hopping(
    setup: HoppingSetup, rig: Rig, progress: Callable[[str], None]
) -> tuple[HoppingResult, Journal, list[History]]:
    """Do it, and judge.

    Returns:
        What came of it, the journal, and what every client applied.

    Raises:
        SystemFailedError: Clients did not reach the heads, or the rig has one node.
    """
    if len(rig.nodes) < 2:
        raise SystemFailedError("there is no other node to move to")
    topics, clients = trio.run(partial(_run, setup, rig, progress))
    rows = rig.system.query(journal_query(topics), timeout_s=600)
    journal = journal_of((entry, chain) for entry, chain in rows)
    histories = [
        History(source=client.name, lines=client.applied, after_seq=0, topics=client.topics)
        for client in clients
    ]
    violations = judge(Evidence(journal=journal, histories=histories))
    moves = [client.welcomes.total() - 1 for client in clients]
    result = HoppingResult(
        events=sum(len(lines) for lines in journal.topics.values()),
        applied=sum(len(client.applied) for client in clients),
        moves=sum(moves),
        moves_min=min(moves),
        nodes_seen_min=min(len(client.welcomes) for client in clients),
        welcomes=dict(sum((client.welcomes for client in clients), Counter())),
        delayed={
            node.name: round(node.metrics().get('khala_driver_injected_total{fault="delay"}', 0))
            for node in rig.nodes
        },
        violations=violations,
    )
    return result, journal, histories


async def _run(
    setup: HoppingSetup, rig: Rig, progress: Callable[[str], None]
) -> tuple[list[TopicName], list[_Client]]:
    rng = random.Random(setup.seed)
    urls = [node.url for node in rig.nodes]
    # Two pools of connections: one that all share is searched anew for every request that waits.
    async with open_access(rig) as access, open_access(rig) as writing_access:
        runs = await access.create_runs(setup.topics)
        topics = [parse_topic(format_run_events(run_id)).name for run_id in runs]
        lines_seen: dict[Line, Line] = {}
        minting = trio.CapacityLimiter(_MINTS_AT_ONCE)
        clients = [
            _Client(
                f"hopper-{number}",
                tuple(rng.sample(topics, setup.topics_each)),
                random.Random(f"{setup.seed}:{number}"),
                lines_seen,
                minting,
            )
            for number in range(setup.clients)
        ]
        heads = dict.fromkeys(topics, 1)
        is_over = trio.Event()
        async with trio.open_nursery() as hopping:
            for client in clients:
                hopping.start_soon(client.hop, urls, access, setup.stay_s, is_over)
            async with trio.open_nursery() as writing:
                for topic, run_id in zip(topics, runs, strict=True):
                    writing.start_soon(partial(_write, setup, writing_access, topic, run_id, heads))
            progress(f"{setup.seconds:g} s written; waiting until everybody has everything")
            are_there = await _wait_at_heads(clients, heads)
            is_over.set()
            # Each ends its last stay by itself; a call that is cut off would leave its connection to the collector.
            hopping.cancel_scope.deadline = trio.current_time() + 2 * setup.stay_s + SETTLE_S
    if not are_there:
        raise SystemFailedError(f"{SETTLE_S:g} s after the last event some client still lacks one")
    return topics, clients


async def _write(
    setup: HoppingSetup, access: RigAccess, topic: TopicName, run_id: str, heads: dict[TopicName, int]
) -> None:
    every_s = setup.topics / setup.events_per_s
    began_at, count = trio.current_time(), 0
    while count * every_s < setup.seconds:
        await trio.sleep_until(began_at + count * every_s)
        count += 1
        event = OutgoingEvent.of("output", {"text": f"{run_id} {count} {_PAYLOAD}"})
        acks = await access.runtime.append(run_id, [event], idempotency_key=f"{run_id}-{count}")
        heads[topic] = acks[-1].seq


async def _wait_at_heads(clients: Sequence[_Client], heads: Mapping[TopicName, int]) -> bool:
    """Return whether everybody got everything within SETTLE_S."""
    with trio.move_on_after(SETTLE_S):
        while True:
            if all(
                client.positions.get(name, 0) >= heads[name] for client in clients for name in client.topics
            ):
                return True
            await trio.sleep(_POLL_S)
    return False
