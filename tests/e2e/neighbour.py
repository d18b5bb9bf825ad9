"""Somebody else, whose stream nothing that a test does may disturb.

Runs in a thread with a loop of its own for a whole module: one person writes a few events a second to
one run and follows it on one connection. A test looks before and after what it does: the connection
must be the same one, every frame the next one, and none late.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import attrs
import trio

from khala_contracts.codec import ClientHeartbeat
from tests.e2e.system import wait_until
from tests.e2e.wire import Follower, open_api, open_welcomed, subscribe, thought

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khala_contracts.topics import TopicName
    from tests.e2e.system import System
    from tests.e2e.wire import Api, Person, Wire

DEVICE: Final = "dev_ne1ghb0ur0000000"
WRITE_EVERY_S: Final = 0.05
# SPEC section 1, promise 4: a committed event reaches every live subscriber within 2 s, whatever happens.
LATE_S: Final = 2.0
START_S: Final = 20.0
TOKEN_TTL_S: Final = 900
BEAT_EVERY_S: Final = 10.0


@attrs.define
class Neighbour:
    """Counters of the other thread; single values, so that any thread may read them."""

    topic: TopicName | None = None
    acked_seq: int = 0
    received_seq: int = 0
    slowest_s: float = 0.0
    failure: BaseException | None = None
    _acked_at: dict[int, float] = attrs.field(factory=dict)
    _stop: threading.Event = attrs.field(factory=threading.Event)

    @classmethod
    @contextmanager
    def living_beside(cls, system: System) -> Iterator[Self]:
        """Follow and write for one block."""
        neighbour = cls()
        thread = threading.Thread(target=neighbour._live, args=(system,), name="neighbour")
        thread.start()
        try:
            wait_until(neighbour._has_begun, timeout_s=START_S, what="the neighbour's first frame")
            yield neighbour
        finally:
            neighbour._stop.set()
            thread.join()
        assert neighbour.failure is None

    def _has_begun(self) -> bool:
        assert self.failure is None, self.failure
        return self.received_seq > 1

    def look(self) -> int:
        """Return how far the stream was written by now, for `check_undisturbed`."""
        return self.acked_seq

    def check_undisturbed(self, since: int) -> None:
        """Events written since then have arrived, in order, none of them late; the connection stands."""

        def has_moved() -> bool:
            assert self.failure is None, self.failure
            return self.received_seq > since

        wait_until(has_moved, timeout_s=LATE_S, what="the neighbour's next frame")
        assert self.slowest_s < LATE_S, self.slowest_s

    def _live(self, system: System) -> None:
        try:
            trio.run(self._write_and_follow, system)
        except BaseException as error:  # noqa: BLE001 - a thread's end is reported by the tests
            self.failure = error

    async def _write_and_follow(self, system: System) -> None:
        async with open_api(system) as api:
            person = await api.sign_in("neighbour", DEVICE)
            self.topic = await api.create_run(person)
            connected = open_welcomed(system, api, person, self.topic, ttl_s=TOKEN_TTL_S)
            async with connected as wire, trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, wire)
                nursery.start_soon(self._beat, wire)
                await self._write(api, person)
                nursery.cancel_scope.cancel()

    async def _write(self, api: Api, person: Person) -> None:
        assert self.topic is not None
        number = 0
        while not self._stop.is_set():
            number += 1
            # With a key of the run's scope, so that what is written here can be told from all else.
            [position] = await api.append(person, self.topic, thought(number), key=str(number))
            self._acked_at.setdefault(position.seq, time.monotonic())
            self.acked_seq = position.seq
            await trio.sleep(WRITE_EVERY_S)

    async def _beat(self, wire: Wire) -> None:
        """Say that it lives: a module of tests on a busy machine takes longer than dead_after_s."""
        while True:
            await trio.sleep(BEAT_EVERY_S)
            await wire.send(ClientHeartbeat())

    async def _follow(self, wire: Wire) -> None:
        assert self.topic is not None
        follower: Follower = await subscribe(wire, self.topic)
        while True:
            follower.take(await wire.receive())
            now = time.monotonic()
            for seq in range(self.received_seq + 1, follower.position + 1):
                # The frame may be here before its acknowledgement, which is then no delay at all.
                self.slowest_s = max(self.slowest_s, now - self._acked_at.setdefault(seq, now))
            self.received_seq = follower.position
