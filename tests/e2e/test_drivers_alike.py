"""The driver is a matter of configuration: clients receive the same on memory, postgres and nats (CARD-05).

One scenario, driven from outside and step by step so that nothing in it depends on timing, is played on
three systems. Each client writes down every message that it receives; what the server makes (ids, times,
chains, which follow from ids) is replaced by the order in which it first appeared. The three transcripts
of a client must be equal.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio

from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    FromStart,
    ReplayComplete,
    ServerHeartbeat,
    StaleCursor,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    Unsubscribed,
)
from tests.e2e.system import running_system
from tests.e2e.wire import (
    BEGINNING,
    BINARY,
    NOW,
    TEXT,
    follow,
    open_api,
    open_welcomed,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from khala_contracts.codec import ServerMessage
    from khala_contracts.topics import TopicName
    from tests.e2e.system import System
    from tests.e2e.wire import Api, Person, Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Driver, and how the system is started with it.
SYSTEMS: Final[dict[str, dict[str, Any]]] = {
    "memory": {},
    "postgres": {"split": True},
    "nats": {"split": True, "nats": True},
}
_MADE_BY_SERVER: Final = re.compile(r"\b(?:run|con|nod|evt|usr|lin|req)_[0-9a-hjkmnp-tv-z]{26}\b")
_TIMES: Final = frozenset({"server_time_ms", "token_expires_at_ms"})


@attrs.define
class Transcript:
    """What one client received, in words that do not depend on the system."""

    lines: list[str] = attrs.field(factory=list)
    _names: dict[str | bytes, str] = attrs.field(factory=dict, repr=False)

    def note(self, message: ServerMessage) -> None:
        """Write one message down. Frames count one by one: how many share a message is a matter of timing."""
        if isinstance(message, ServerHeartbeat):
            return
        if isinstance(message, FramesMessage):
            self.lines += [f"Frame {self._plain(attrs.asdict(frame))}" for frame in message.frames]
            return
        fields = {name: value for name, value in attrs.asdict(message).items() if name not in _TIMES}
        self.lines.append(f"{type(message).__name__} {self._plain(fields)}")

    def _plain(self, value: object) -> object:
        match value:
            case dict():
                return {name: self._plain(inner) for name, inner in value.items()}
            case list() | tuple():
                return [self._plain(inner) for inner in value]
            case bytes() if len(value) == 32:
                return self._names.setdefault(value, f"hash {len(self._names)}")
            case str():
                return _MADE_BY_SERVER.sub(lambda found: self._name(found[0]), value)
            case _:
                return value

    def _name(self, made: str) -> str:
        return self._names.setdefault(made, f"{made[:3]} {len(self._names)}")


@attrs.define
class Client:
    """One connection that takes part in the scenario."""

    wire: Wire
    transcript: Transcript

    async def take_until(self, wanted: type[object]) -> ServerMessage:
        """Take messages up to and with one of this type."""
        while True:
            message = await self.wire.receive()
            self.transcript.note(message)
            if isinstance(message, wanted):
                return message

    async def take_through(self, topic: str, seq: int) -> None:
        """Take messages until this frame has come."""
        while True:
            message = await self.wire.receive()
            self.transcript.note(message)
            if isinstance(message, FramesMessage) and message.frames[-1].topic == topic:
                assert message.frames[-1].seq <= seq
                if message.frames[-1].seq == seq:
                    return


async def play(system: System) -> dict[str, list[str]]:
    """Play the scenario; return the transcript of each client."""
    transcripts = {name: Transcript() for name in ("replay", "json", "switch", "refused")}
    async with open_api(system) as api:
        ann, bob = await api.sign_in("ann"), await api.sign_in("bob", "dev_fedcba9876543210")
        topic, other = await api.create_run(ann), await api.create_run(ann)
        foreign = await api.create_run(bob)
        for number in range(5):
            await api.append(ann, topic, *[thought(f"old {number} {index}") for index in range(20)])
        async with (
            _open(system, api, ann, transcripts["replay"], topic, other) as replaying,
            _open(system, api, ann, transcripts["json"], topic, subprotocol=TEXT) as text,
            _open(system, api, ann, transcripts["switch"], topic, other) as switching,
            _open(system, api, bob, transcripts["refused"], foreign) as refused,
        ):
            await _follow_live(api, ann, topic, other, replaying, text)
            await _switch(api, ann, topic, other, switching)
            await _be_refused(topic, foreign, refused)
    return {name: transcript.lines for name, transcript in transcripts.items()}


async def _follow_live(
    api: Api, ann: Person, topic: TopicName, other: TopicName, replaying: Client, text: Client
) -> None:
    """Two subprotocols from the beginning through live frames; two topics on one connection."""
    for client, names in ((replaying, (topic, other)), (text, (topic,))):
        for name in names:
            await client.wire.send(follow(name, start=BEGINNING))
            await client.take_until(ReplayComplete)
    for number in range(10):
        (ack,) = await api.append(ann, topic, thought(f"live {number}"), key=f"live-{number}")
        for client in (replaying, text):
            await client.take_through(topic, ack.seq)
        # A retry is no second event, on no driver.
        assert await api.append(ann, topic, thought(f"live {number}"), key=f"live-{number}") == [ack]
        (ack,) = await api.append(ann, other, thought(f"other {number}"))
        await replaying.take_through(other, ack.seq)


async def _switch(api: Api, ann: Person, topic: TopicName, other: TopicName, client: Client) -> None:
    """Now, a cursor, the same again, another cursor, away, and back."""
    await client.wire.send(follow(topic, start=NOW))
    await client.take_until(ReplayComplete)
    (ack,) = await api.append(ann, topic, thought("after now"))
    await client.take_through(topic, ack.seq)
    # The second one is a duplicate: it is answered and changes nothing.
    for seq, wanted in ((50, ReplayComplete), (50, Subscribed), (107, ReplayComplete)):
        start = CursorStart(seq, ack.lineage)
        await client.wire.send(Subscribe((TopicStart(topic, start),)))
        await client.take_until(wanted)
    await client.wire.send(Unsubscribe((topic,)))
    await client.take_until(Unsubscribed)
    await api.append(ann, topic, thought("nobody is told"))
    # One after the other: no order is promised across topics.
    for name in (topic, other):
        await client.wire.send(follow(name, start=FromStart(SubscribeFrom.EARLIEST)))
        await client.take_until(ReplayComplete)


async def _be_refused(topic: TopicName, foreign: TopicName, client: Client) -> None:
    """A foreign run, one that does not exist, and a cursor of another history."""
    for name in (topic, f"run:run_{1:026d}:events", "no topic"):
        await client.wire.send(Subscribe((TopicStart(name, BEGINNING),)))
        await client.take_until(ErrorMessage)
    await client.wire.send(Subscribe((TopicStart(foreign, CursorStart(1, "lin_another")),)))
    await client.take_until(StaleCursor)


@asynccontextmanager
async def _open(
    system: System,
    api: Api,
    person: Person,
    transcript: Transcript,
    *topics: TopicName,
    subprotocol: str = BINARY,
) -> AsyncIterator[Client]:
    async with open_welcomed(system, api, person, *topics, subprotocol=subprotocol) as wire:
        yield Client(wire, transcript)


def play_on(driver: str, folder: Path) -> dict[str, list[str]]:
    """Start a system with this driver and play the scenario on it."""
    folder.mkdir()
    with running_system(folder, KHALA_FANOUT_DRIVER=driver, **SYSTEMS[driver]) as system:
        return trio.run(play, system)


def test_three_drivers_one_transcript(tmp_path: Path) -> None:
    """CARD-05: no client can tell which driver carried the news."""
    with ThreadPoolExecutor(len(SYSTEMS)) as at_once:
        folders = [tmp_path / driver for driver in SYSTEMS]
        transcripts = dict(zip(SYSTEMS, at_once.map(play_on, SYSTEMS, folders), strict=True))
    memory = transcripts.pop("memory")
    assert {name: len(lines) > 3 for name, lines in memory.items()} == dict.fromkeys(memory, True)
    for driver, played in transcripts.items():
        for name, lines in memory.items():
            assert played[name] == lines, f"{name} received something else on {driver}"
