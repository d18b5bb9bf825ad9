"""Many clients in C that a drill cuts off all at once: tokens, the program, and what its files say."""

from __future__ import annotations

import json
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from chaos.checker import Violation, check_history
from chaos.drills.waiting import DrillFailed
from chaos.load.native_client import NativeProgram, ReceiverFailedError
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from khala_client.profiles import ProfileDirectory
from khala_client.trio import Khala
from khala_contracts.codec import TopicStart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chaos.drills.committed import Committed
    from chaos.transcripts import Line

__all__ = ["Happening", "StormClients", "StormSetup", "open_storm_clients"]

TOKEN_TTL_S: Final = 900
_MINTS_AT_ONCE: Final = 16
# Below the default admission, so that nobody is refused before the storm.
OPENS_PER_S: Final = 200.0
_FRAME: Final = struct.Struct("<IIqq")
_GRACE_S: Final = 10.0


@attrs.frozen(kw_only=True)
class StormSetup:
    """Who they are.

    Attributes:
        name: Of their files.
        folder: Where these are.
        profile: As whom they come.
        topics: One for each client.
        node_url: Where they connect.
        lineage: Of the journal.
        seed: Of their draws.
    """

    name: str
    folder: Path
    profile: str
    topics: Sequence[str]
    node_url: str
    lineage: str
    seed: int

    def file(self, kind: str) -> Path:
        """Return the path of one of their files."""
        return self.folder / f"{self.name}.{kind}"


@attrs.frozen
class Happening:
    """What happened to one client.

    Attributes:
        what: cut, refused, failed, welcome, live.
        retry_after_ms: What a refusal said.
        is_told: Whether a refusal came in words of the protocol, or as a bare answer of HTTP.
    """

    connection: int
    what: str
    at_s: float
    retry_after_ms: int = 0
    is_told: bool = False


class StormClients(NativeProgram):
    """One process with all of them."""

    def __init__(self, program: Path, setup: StormSetup) -> None:
        """Start it; nobody is connected yet.

        Args:
            program: From ``compile_native("storm_client", ...)``.
            setup: Its files ``first`` and ``again`` are written.
        """
        self._setup = setup
        port = urlsplit(setup.node_url).port
        files = [str(setup.file(kind)) for kind in ("first", "again")]
        logs = [str(setup.file(kind)) for kind in ("frames", "happenings")]
        options = ["--opens-per-s", str(OPENS_PER_S), "--seed", str(setup.seed)]
        super().__init__([str(program), str(port), *files, setup.lineage, *logs, *options])

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self._setup.topics)

    def open(self, *, timeout_s: float) -> None:
        """Connect everybody.

        Raises:
            DrillFailed: Not all are live in time.
        """
        self._judged(self.ask(f"open {timeout_s}", timeout_s=timeout_s + _GRACE_S))

    def cut(self, *, timeout_s: float) -> None:
        """Reset every connection at once; ``wait_back`` waits for the answer."""
        self.say(f"cut 0 {len(self._setup.topics)} {timeout_s}")

    def wait_back(self, *, timeout_s: float) -> Mapping[str, Any]:
        """Return what was counted when all are live again; raises as ``open``."""
        try:
            return self._judged(self.read(timeout_s=timeout_s + _GRACE_S))
        except ReceiverFailedError as exc:
            raise DrillFailed(str(exc)) from exc

    def settle(self, *, quiet_s: float, timeout_s: float) -> Mapping[str, Any]:
        """Read until nothing has come for a while; raises as ``open``."""
        return self._judged(self.ask(f"settle {quiet_s} {timeout_s}", timeout_s=timeout_s + _GRACE_S))

    def knock(self, times: int, *, silent: int = 0, timeout_s: float) -> Mapping[str, Any]:
        """Connect, ask for the upgrade and leave with the answer, so many times; each must be a refusal."""
        return self._judged(self.ask(f"knock {times} {silent}", timeout_s=timeout_s))

    def ask(self, line: str, *, timeout_s: float) -> dict[str, Any]:
        """Give a command and return its answer; raises DrillFailed where the program has ended or is silent."""
        try:
            return super().ask(line, timeout_s=timeout_s)
        except ReceiverFailedError as exc:
            raise DrillFailed(str(exc)) from exc

    def _judged(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        if not answer["done"] or answer["violations"]:
            raise DrillFailed(f"{self._setup.name}: {json.dumps(answer)}")
        return answer

    # -- what its files say --------------------------------------------------------------------------

    def happenings(self) -> list[Happening]:
        """Return everything that happened until its last answer."""
        found = []
        with self._setup.file("happenings").open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                found.append(
                    Happening(
                        record["connection"],
                        record["what"],
                        record["at_ns"] / 1e9,
                        record.get("retry_after_ms", 0),
                        record.get("is_told", False),
                    )
                )
        return found

    def received(self) -> Iterator[tuple[str, int, float]]:
        """Yield topic, seq and Unix time of every frame that was applied."""
        for connection, _, seq, at_ns in self._frames():
            yield self._setup.topics[connection], seq, at_ns / 1e9

    def check_histories(self, committed: Committed) -> list[Violation]:
        """Return what is wrong with what they have applied, each from where it began to the head."""
        histories: list[list[Line]] = [[] for _ in self._setup.topics]
        for connection, crc, seq, _ in self._frames():
            histories[connection].append(committed.line_of_crc(self._setup.topics[connection], seq, crc))
        violations: list[Violation] = []
        for number, (topic, lines) in enumerate(zip(self._setup.topics, histories, strict=True)):
            violations += check_history(
                lines,
                committed.journal,
                source=f"{self._setup.name}-{number}",
                is_complete=bool(lines),
                topics=[topic],
            )
            if not lines:
                violations.append(Violation("loss", f"{self._setup.name}-{number}", topic, 0, "got nothing"))
        return violations

    def _frames(self) -> Iterator[tuple[int, int, int, int]]:
        return _FRAME.iter_unpack(self._setup.file("frames").read_bytes())


@contextmanager
def open_storm_clients(program: Path, setup: StormSetup) -> Iterator[StormClients]:
    """Mint two tokens for each client and connect everybody; they end with the block.

    Raises:
        DrillFailed: Not all are live in time.
    """
    device_id = ProfileDirectory(setup.profile).load().device_id
    tokens = trio.run(_mint, setup.profile, [*setup.topics, *setup.topics])
    path = urlsplit(setup.node_url).path
    count = len(setup.topics)
    first, again = (
        [
            Preamble.of_subscriber(token, device_id, starts(topic), path=path)
            for token, topic in zip(some, setup.topics, strict=True)
        ]
        for some, starts in ((tokens[:count], _from_now), (tokens[count:], _nothing))
    )
    write_preambles(setup.file("first"), first)
    # Its subscribe is written by the client: only it knows its cursor.
    write_preambles(setup.file("again"), again)
    with StormClients(program, setup) as clients:
        clients.open(timeout_s=_GRACE_S + 4 * count / OPENS_PER_S)
        yield clients


def _from_now(topic: str) -> list[TopicStart]:
    return [TopicStart(topic, FROM_NOW)]


def _nothing(topic: str) -> list[TopicStart]:
    return []


async def _mint(profile: str, topics: Sequence[str]) -> list[str]:
    """Return a token for each topic, in their order."""
    tokens: dict[int, str] = {}
    numbers = iter(range(len(topics)))

    async with Khala.from_env({"KHALA_PROFILE": profile}) as khala:

        async def work() -> None:
            for number in numbers:
                minted = await khala.control.mint_sync_token([topics[number]], ttl_s=TOKEN_TTL_S)
                tokens[number] = minted.token

        async with trio.open_nursery() as minting:
            for _ in range(_MINTS_AT_ONCE):
                minting.start_soon(work)
    return [tokens[number] for number in range(len(topics))]
