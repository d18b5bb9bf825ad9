"""One client process: the product's client (link, subscriptions, WebSocket) and an application on top of it.

The application follows topics as an application would: it goes on after what its store has, answers a stale
cursor by beginning at the oldest retained, signs in again when it is told to, and reads at its own pace.
It notes for the verdict whatever the client should never let it see.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.sim.client_sockets import NotingLoop
from chaos.sim.client_store import ClientStore
from chaos.sim.control_model import MintRefused
from chaos.sim.network import Pace
from chaos.sim.refusals import ASK_AGAIN_S, Refusals
from khala.ports import ControlUnavailableError
from khala_client.core.protocol import Identity
from khala_client.errors import (
    Forbidden,
    KhalaError,
    ReauthRequired,
    StaleCursor,
    StoreConflict,
    StoreFailed,
    Unavailable,
)
from khala_client.notices import Disconnected, GapSeen, Live, Released
from khala_client.ring.link import SyncLink
from khala_client.ring.subscription import Subscription
from khala_client.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from chaos.sim.client_sockets import SeenClose
    from chaos.sim.control_model import ControlModel, SimulatedSession
    from chaos.sim.gates import PortGate
    from chaos.sim.network import Network
    from chaos.sim.reports import Findings
    from khala_client.core.cursor import After
    from khala_client.events import Event
    from khala_client.notices import Notice
    from khala_contracts.topics import TopicName

__all__ = ["ClientProgram", "Ended", "Followed"]

_URL: Final = "ws://nodes/sync/v1/ws"
_STOP_TIMEOUT_S: Final = 10.0


@attrs.define
class Followed:
    """A topic that the application wants, and how it stands.

    Attributes:
        alias: Its name in the plan.
        word: Where to begin if the store has nothing.
        position: Seq that the application was given last in this incarnation; None before the first.
        is_live: Whether the subscription has told so, and has not ended since.
        got_at: When each seq was given first, virtual time.
    """

    alias: str
    topic: TopicName
    word: str
    position: int | None = None
    is_live: bool = False
    is_forbidden: bool = False
    got_at: dict[int, float] = attrs.field(factory=dict)
    scope: trio.CancelScope | None = None


@attrs.frozen
class Ended:
    """A subscription that the client has ended with an error, for the verdict."""

    client: str
    topic: TopicName
    error: KhalaError
    position: int
    at_s: float


@attrs.define(eq=False)
class _Life:
    """What one incarnation holds."""

    gate: PortGate
    store: ClientStore
    link: SyncLink
    loop: NotingLoop
    tasks: TaskGroup
    nursery: trio.Nursery
    refusals: Refusals = attrs.field(factory=Refusals)


class ClientProgram:
    """What a client's place runs, and what its device keeps."""

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        user_id: str,
        device_id: str,
        control: ControlModel,
        network: Network,
        findings: Findings,
        token_ttl_s: float,
        sign_in: Callable[[str, str], SimulatedSession],
    ) -> None:
        """Be a person on a device; ``sign_in`` begins a session of them."""
        self.name = name
        self.user_id = user_id
        self.pace = Pace()
        self.session = sign_in(user_id, device_id)
        self.followed: dict[TopicName, Followed] = {}
        self.closes: list[SeenClose] = []
        self.ended: list[Ended] = []
        self.kept = MemoryStore(keep_frames=True)
        self._seed = seed
        self._control = control
        self._network = network
        self._findings = findings
        self._token_ttl_s = token_ttl_s
        self._sign_in = sign_in
        self._life: _Life | None = None

    # -- what the world tells it to do ---------------------------------------------------------------

    def follow(self, alias: str, topic: TopicName, word: str) -> None:
        """Follow a topic from now on."""
        if topic in self.followed:
            return
        followed = self.followed[topic] = Followed(alias, topic, word)
        if self._life is not None and not self._life.gate.is_severed:
            self._life.nursery.start_soon(self._follow, self._life, followed)

    def leave(self, topic: TopicName) -> None:
        """Follow it no more; the store keeps what it has."""
        followed = self.followed.pop(topic, None)
        if followed is not None and followed.scope is not None:
            followed.scope.cancel()

    def wipe(self) -> None:
        """Lose the device's store; before a start."""
        self.kept = MemoryStore(keep_frames=True)

    # -- one incarnation -----------------------------------------------------------------------------

    async def __call__(self, gate: PortGate) -> None:
        """Run until killed; see Program."""
        rng = Random(f"{self._seed}:{gate.name}")
        minter = self._control.open_client(gate)

        async def mint(topics: tuple[TopicName, ...]) -> str:
            try:
                ttl_s = int(self._token_ttl_s)
                return await minter.mint(self.session.session_id, topics, ttl_s=ttl_s)
            except ControlUnavailableError as error:
                raise Unavailable(str(error)) from error
            except MintRefused as error:
                if error.topic:
                    raise Forbidden(error.reason.name, topic=error.topic) from error
                raise ReauthRequired(error.reason.name) from error

        async def open_stream(_url: str, _ssl: object) -> trio.abc.Stream:
            return await self._network.connect(gate, self.pace)

        loop = NotingLoop(opener=open_stream, gate=gate, seen=self.closes)
        async with loop.hold_tasks() as tasks, trio.open_nursery() as nursery:
            link = SyncLink(
                _URL,
                loop=loop,
                mint=mint,
                identity=Identity(self.session.device_id, "sim/1"),
                rng=rng,
            )
            tasks.start_soon(link.run)
            life = self._life = _Life(gate, ClientStore(self.kept, gate), link, loop, tasks, nursery)
            for followed in tuple(self.followed.values()):
                followed.position, followed.is_live = None, False
                nursery.start_soon(self._follow, life, followed)
            await trio.sleep_forever()

    async def _follow(self, life: _Life, followed: Followed) -> None:
        with trio.CancelScope() as followed.scope:
            word = followed.word
            while True:
                try:
                    await self._subscribe(life, followed, word)
                except StoreConflict:
                    # The follower before it is still leaving.
                    await trio.sleep(0.05)
                except KhalaError as error:
                    if life.gate.is_severed:
                        return
                    word = self._take_ending(life, followed, error, word)
                    is_refused = isinstance(error, Forbidden)
                    await trio.sleep(
                        life.refusals.pause_s(trio.current_time()) if is_refused else ASK_AGAIN_S
                    )

    def _take_ending(self, life: _Life, followed: Followed, error: KhalaError, word: str) -> str:
        """Note the end of a subscription; return where to begin the next."""
        position = followed.position
        if position is None:
            cursor = life.store.load_cursor(followed.topic) if word == "saved" else None
            position = cursor.seq if cursor is not None else 0
        note = life.gate.note
        note(life.gate.name, "topic ends", topic=followed.topic, code=error.code, position=position)
        self.ended.append(Ended(self.name, followed.topic, error, position, trio.current_time()))
        followed.is_live, followed.position = False, None
        followed.is_forbidden = isinstance(error, Forbidden)
        if isinstance(error, ReauthRequired) and self.session.is_ended:
            self.session = self._sign_in(self.user_id, self.session.device_id)
        if isinstance(error, StaleCursor):
            # What is too much to replay is read by pages, which this application does not want.
            return "now" if error.reason == "replay_budget_exceeded" else "earliest"
        return "saved" if word == "earliest" else word

    async def _subscribe(self, life: _Life, followed: Followed, word: str) -> None:
        topic, store = followed.topic, life.store
        with store.claim(topic):
            after: After
            cursor = store.load_cursor(topic) if word == "saved" else None
            after = cursor if cursor is not None else "beginning" if word == "saved" else word  # type: ignore[assignment]
            subscription = Subscription(
                topic,
                after,
                is_stored=cursor is not None,
                tasks=life.tasks,
                link=life.link,
                store=store,
                on_notice=partial(self._take_notice, life.gate, followed),
            )
            subscription.start()
            followed.position = None
            is_clean = False
            try:
                async for event in subscription:
                    self._take(life.gate, followed, event)
                is_clean = True
            finally:
                followed.is_live = False
                self._judge(life.gate, followed, subscription)
                await life.loop.finish(  # noqa: ASYNC102 - shields itself
                    partial(self._stop, subscription, is_clean=is_clean), within_s=_STOP_TIMEOUT_S
                )

    @staticmethod
    async def _stop(subscription: Subscription, *, is_clean: bool) -> None:
        # As ring/khala.py: an exception is on its way already.
        try:
            await subscription.stop(is_clean=is_clean)
        except StoreFailed:
            return

    def _take(self, gate: PortGate, followed: Followed, event: Event) -> None:
        expected = followed.position
        if expected is not None and event.seq != expected + 1:
            self._findings.add(gate.name, f"was given {event.seq} after {expected} of {followed.topic}")
        followed.position = event.seq
        followed.is_forbidden = False
        followed.got_at.setdefault(event.seq, trio.current_time())
        gate.note(gate.name, "is given", topic=followed.topic, seq=event.seq)

    def _take_notice(self, gate: PortGate, followed: Followed, notice: Notice) -> None:
        if isinstance(notice, Live):
            followed.is_live = True
        elif isinstance(notice, Disconnected | Released):
            followed.is_live = False
        elif isinstance(notice, GapSeen):
            self._findings.add(
                gate.name,
                f"saw a gap on the wire: {notice.seq} for {notice.expected_seq} of {followed.topic}",
            )

    def _judge(self, gate: PortGate, followed: Followed, subscription: Subscription) -> None:
        counts = subscription.counts
        if counts.gaps or counts.duplicates:
            self._findings.add(
                gate.name, f"{counts.gaps} gaps, {counts.duplicates} repeats on the wire of {followed.topic}"
            )
