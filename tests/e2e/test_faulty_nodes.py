"""Three nodes behind a broker that loses, repeats, reorders and forges: every wire stays strictly +1.

Real processes: ``khala up --split --nodes 3`` with the driver ``faulty`` around NATS. 50 clients hop
between the nodes, each with its own cursors, while 20 topics are written to; every stream is judged
frame by frame (`Follower`) and compared with what the writers were told. How often each fault was
injected is read from the nodes themselves (KH-02, KH-03, KH-04, FD-07).
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx
import pytest
import trio

from chaos.load.hopping import SMOKE_HOPPING, run_hopping
from chaos.load.hopping_proof import proof_lines
from chaos.load.rig import Rig, RigSetup
from chaos.load.rig_access import make_key
from chaos.load.system_under_test import SystemUnderTest
from khala.adapters.embedded_nats import nats_command
from khala.adapters.embedded_nats_config import NatsRole
from khala_contracts.codec import (
    CursorStart,
    FramesMessage,
    ReplayComplete,
    Subscribe,
    Subscribed,
    TopicStart,
)
from tests.e2e.system import System, wait_until
from tests.e2e.wire import (
    BEGINNING,
    Api,
    Follower,
    Person,
    Wire,
    open_api,
    open_welcomed,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from khala_contracts.topics import TopicName

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NODES: Final = 3
TOPICS: Final = 20
CLIENTS: Final = 50
TOPICS_OF_A_CLIENT: Final = 2
RATES: Final = {"loss": 0.10, "duplicate": 0.20, "reorder": 0.20, "forge": 0.15}
INJECTED_MIN: Final = 1_000
# Every write is a record for each of three nodes: some 13,000 deliveries, a tenth of which gets lost.
ROUNDS: Final = 4
WRITES_PER_ROUND: Final = 60
WRITE_EVERY_S: Final = 0.15
# SPEC section 1, promise 4, also for the last frame before silence.
HEALED_S: Final = 2.0
STAY_S: Final = (3.0, 9.0)
# For a client that is between two nodes.
CONNECT_S: Final = 1.0


@contextmanager
def running_nats(folder: Path) -> Iterator[dict[str, str]]:
    """Run a broker; yield the variables with which a system finds it."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Every service of the system is told of one login by these variables.
    everybody = NatsRole(name="everybody", may_publish=(">",), may_subscribe=(">",))
    command = nats_command(folder, port, roles=[everybody])
    user, password = command.login("everybody")
    with (folder / "nats.log").open("wb") as log:
        server = subprocess.Popen(command.argv, env=dict(command.env), stdout=log, stderr=log)
    try:
        wait_until(lambda: _is_listening(port), timeout_s=10, what="the broker listens")
        yield {
            "KHALA_FANOUT_NATS_SERVERS": command.url,
            "KHALA_FANOUT_NATS_USER": user,
            "KHALA_FANOUT_NATS_PASSWORD": password,
        }
    finally:
        server.kill()
        server.wait(timeout=10)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Three nodes, each with troubles of its own."""
    options = {"inner": "nats", "seed": "3"} | {fault: str(rate) for fault, rate in RATES.items()}
    with (
        running_nats(tmp_path_factory.mktemp("broker") / "nats") as broker,
        _running_nodes(
            tmp_path_factory.mktemp("faulty"),
            {**broker, "KHALA_FANOUT_DRIVER": "faulty", "KHALA_FANOUT_OPTIONS": json.dumps(options)},
        ) as started,
    ):
        yield started


@contextmanager
def _running_nodes(folder: Path, environment: dict[str, str]) -> Iterator[System]:
    started = System(folder, split=True, nodes=NODES, environment=environment)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@attrs.define
class Written:
    """What the writers of one topic were told, and when."""

    topic: TopicName
    chains: dict[int, bytes] = attrs.field(factory=dict, repr=False)
    acked_at: dict[int, float] = attrs.field(factory=dict, repr=False)

    @property
    def head_seq(self) -> int:
        """The newest acknowledged seq."""
        return max(self.chains)

    def note(self, seq: int, chain: bytes) -> None:
        """Take one acknowledgement."""
        self.chains[seq] = chain
        self.acked_at[seq] = trio.current_time()


@attrs.define
class Hopper:
    """One client: its cursors, and how late its live frames were."""

    rng: random.Random
    topics: list[Written]
    cursors: dict[TopicName, CursorStart] = attrs.field(factory=dict)
    seen_on: Counter[str] = attrs.field(factory=Counter)
    frames: int = 0
    # Live frames: seconds after their acknowledgement.
    late_s: list[float] = attrs.field(factory=list, repr=False)

    def is_at_head(self) -> bool:
        """Whether it has everything that was acknowledged."""
        return all(
            written.topic in self.cursors and self.cursors[written.topic].seq >= written.head_seq
            for written in self.topics
        )

    async def hop(self, system: System, api: Api, person: Person, is_over: trio.Event) -> None:
        """Stay at one node after the other."""
        nodes: list[dict[str, Any]] = system.ready["nodes"]
        node = self.rng.choice(nodes)
        while not is_over.is_set():
            node = self.rng.choice([other for other in nodes if other is not node])
            self.seen_on[node["name"]] += 1
            with trio.move_on_after(self.rng.uniform(*STAY_S)):
                await self._stay(
                    attrs.evolve(system, ready={**system.ready, "sync_url": node["url"]}), api, person
                )

    async def _stay(self, system: System, api: Api, person: Person) -> None:
        names = [written.topic for written in self.topics]
        async with open_welcomed(system, api, person, *names) as wire:
            starts = tuple(TopicStart(name, self.cursors.get(name, BEGINNING)) for name in names)
            await wire.send(Subscribe(starts))
            await self._follow(wire)

    async def _follow(self, wire: Wire) -> None:
        followers: dict[str, Follower] = {}
        by_topic = {written.topic: written for written in self.topics}
        while True:
            message = await wire.receive(timeout_s=30)
            match message:
                case Subscribed(topic=topic):
                    followers[topic] = Follower.of(message)
                case FramesMessage(frames=frames):
                    follower, written = followers[frames[0].topic], by_topic[frames[0].topic]
                    is_live = follower.completed is not None
                    follower.take(message)
                    follower.frames.clear()
                    self._note(follower, written, len(frames), is_live=is_live)
                case ReplayComplete(topic=topic):
                    followers[topic].take(message)
                case _:
                    # Nothing else but heartbeats: no gap, no stale cursor, no close.
                    for follower in followers.values():
                        follower.take(message)

    def _note(self, follower: Follower, written: Written, count: int, *, is_live: bool) -> None:
        subscribed, seq = follower.subscribed, follower.position
        self.frames += count
        self.cursors[written.topic] = CursorStart(seq, subscribed.lineage, follower.chain)
        now = trio.current_time()
        for live in range(seq - count + 1, seq + 1) if is_live else ():
            # A frame may be here before its writer has the answer.
            self.late_s.append(max(0.0, now - written.acked_at.get(live, now)))


async def _write(api: Api, person: Person, written: Written, rng: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        await trio.sleep(rng.uniform(0, 2 * WRITE_EVERY_S))
        events = [thought(f"{written.topic} {rng.random()}") for _ in range(rng.randint(1, 3))]
        for ack in await api.append(person, written.topic, *events):
            written.note(ack.seq, ack.chain)


async def test_faulty_broker_three_nodes_fifty_hopping_clients(
    system: System, record_property: Callable[[str, object], None]
) -> None:
    """10 % lost, 20 % repeated, 20 % reordered, forged beside: nobody sees a gap, a repeat or a forgery."""
    rng = random.Random(2026)
    # Two pools of connections: one that all share is searched anew for every request.
    async with open_api(system) as api, open_api(system) as writing:
        ann = await api.sign_in()
        runs = []
        for _ in range(TOPICS):
            topic = await api.create_run(ann)
            started = await api.watermark(ann, topic)
            runs.append(Written(topic))
            runs[-1].note(started.seq, started.chain)
        hoppers = [
            Hopper(random.Random(number), rng.sample(runs, TOPICS_OF_A_CLIENT)) for number in range(CLIENTS)
        ]
        silences: list[float] = []
        is_over = trio.Event()
        async with trio.open_nursery() as clients:
            for hopper in hoppers:
                clients.start_soon(hopper.hop, system, api, ann, is_over)
            for _ in range(ROUNDS):
                async with trio.open_nursery() as writers:
                    for written in runs:
                        writers.start_soon(_write, writing, ann, written, rng, WRITES_PER_ROUND)
                silences.append(await _wait_at_heads(hoppers))
            is_over.set()
    injected = _metric(system, "khala_driver_injected_total")
    forged = sum(count for fault, count in injected.items() if fault.startswith("forge_"))
    faults = {
        **{fault: injected[fault] for fault in ("loss", "duplicate", "reorder", "forge")},
        "forged": forged,
    }
    refused = sum(_metric(system, "khala_node_records_forged_total").values())
    late_s = sorted(late for hopper in hoppers for late in hopper.late_s)
    figures = {
        "injected": faults,
        "forged_refused": refused,
        "frames": sum(hopper.frames for hopper in hoppers),
        "connections": sum(sum(hopper.seen_on.values()) for hopper in hoppers),
        "latest_s": late_s[-1],
        "silences_s": silences,
    }
    record_property("faulty_nodes", json.dumps(figures))
    print(json.dumps(figures))  # noqa: T201 - the report that the promise asks for; shown with -s or on failure
    assert min(faults.values()) > INJECTED_MIN, faults
    # A forgery of a topic that nobody follows any more at its node is not even looked at.
    assert 0.8 * forged <= refused <= forged
    assert late_s[-1] <= HEALED_S
    assert max(silences) <= HEALED_S
    assert {name for hopper in hoppers for name in hopper.seen_on} == {
        f"node-{n}" for n in range(1, NODES + 1)
    }
    for hopper in hoppers:
        for written in hopper.topics:
            cursor = hopper.cursors[written.topic]
            assert (cursor.seq, cursor.chain) == (written.head_seq, written.chains[written.head_seq])


def test_clients_that_move_hold_one_history(system: System, tmp_path: Path) -> None:
    """KH-22: `khala load hopping` in short: every list that a client applied is the journal, and the proof says so."""
    assert system.up is not None
    record = json.loads((system.data_dir / "up.json").read_text())
    under_test = SystemUnderTest(
        system.up,
        system.data_dir,
        system.ready["runtime_url"],
        Path(system.ready["profile"]),
        record["postgres_port"],
    )
    rig = Rig(RigSetup(nodes=NODES), under_test, tmp_path, trio.run(make_key, under_test), record)
    result, journal, histories = run_hopping(SMOKE_HOPPING, rig, print)
    assert [str(violation) for violation in result.violations] == []
    assert result.applied == sum(
        len(journal.topics[topic]) for history in histories for topic in history.topics
    )
    assert result.moves_min >= 2
    assert set(result.welcomes) == {f"node-{n}" for n in range(1, NODES + 1)}
    proof = [json.loads(line) for line in proof_lines(journal, histories)]
    heads = {row["journal"]: row["hash"] for row in proof if "journal" in row}
    held = [row for row in proof if "client" in row]
    assert len(held) == SMOKE_HOPPING.clients * SMOKE_HOPPING.topics_each
    assert all((row["from_seq"], row["hash"]) == ("1", heads[row["topic"]]) for row in held)


async def _wait_at_heads(hoppers: list[Hopper]) -> float:
    """Return how long after the last write every connected client had the last frame.

    One that is between two nodes at that moment is given the time to connect.
    """
    began = trio.current_time()
    with trio.fail_after(HEALED_S + CONNECT_S):
        while not all(hopper.is_at_head() for hopper in hoppers):
            await trio.sleep(0.02)
    return trio.current_time() - began


def _metric(system: System, name: str) -> Counter[str]:
    """Return a counter of all nodes together, by its only label."""
    total: Counter[str] = Counter()
    for node in system.ready["nodes"]:
        text = httpx.get(f"{node['admin_url']}/metrics", trust_env=False).text
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name:
                total[sample.partition('="')[2].partition('"')[0]] += round(float(value))
    return total
