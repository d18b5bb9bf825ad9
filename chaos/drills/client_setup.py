"""What a drill tells its client processes: one JSON object as their only argument."""

from __future__ import annotations

import json
import random
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio

from khala_client.settings import load_settings
from khala_client.trio import Khala

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = [
    "BACKOFF_SHARE",
    "ClientSetup",
    "CrowdSetup",
    "FollowerSetup",
    "PublisherSetup",
    "open_client",
    "run_until_asked",
    "setup_of",
]

S = TypeVar("S", bound="ClientSetup")

# Clients draw their backoff from this part of its range, 0 to 30 s. Servers that die every few seconds
# would otherwise mostly have nobody connected when they do.
BACKOFF_SHARE: Final = 1 / 20


@attrs.frozen(kw_only=True)
class ClientSetup:
    """Who a client is and where it writes.

    Attributes:
        name: In reports and file names.
        folder: Where its files are.
        profile: The signed-in profile that it acts as.
        topics: What it follows or writes to: topics of runs.
        sync_url: Its node; empty: the profile's.
    """

    name: str
    folder: str
    profile: str
    topics: tuple[str, ...]
    sync_url: str = ""

    def file(self, kind: str) -> Path:
        """Return the path of one of its files."""
        return Path(self.folder) / f"{self.name}.{kind}"


@attrs.frozen(kw_only=True)
class FollowerSetup(ClientSetup):
    """A client that follows its topics. Files: ``history.jsonl``, ``notices.jsonl``, ``store.db``."""


@attrs.frozen(kw_only=True)
class CrowdSetup(ClientSetup):
    """Many clients in one process. Files: ``<n>.history.jsonl`` of each, ``notices.jsonl``.

    Attributes:
        clients: How many; each follows one of the topics, in turn.
    """

    clients: int


@attrs.frozen(kw_only=True)
class PublisherSetup(ClientSetup):
    """A client that appends. Files: ``acks.jsonl``.

    Attributes:
        events_per_s: Over all topics together.
        key_prefix: What its idempotency keys begin with; they are remembered for days, so no two
            publishers of one user have the same.
        payload_bytes: Length of each event's text, rounded up to what names it.
    """

    events_per_s: float
    key_prefix: str = ""
    payload_bytes: int = 200


def setup_of(cls: type[S], arguments: Sequence[str]) -> S:
    """Return the setup that a client process was started with."""
    (text,) = arguments
    document = json.loads(text)
    return cls(**{**document, "topics": tuple(document["topics"])})


@asynccontextmanager
async def open_client(setup: ClientSetup) -> AsyncIterator[Khala]:
    """Open a client with a store of its own."""
    settings = load_settings({"KHALA_STORE": str(setup.file("store.db"))}, profile=setup.profile)
    if setup.sync_url:
        settings = attrs.evolve(settings, sync_url=setup.sync_url)
    async with Khala(settings, rng=_Impatient()) as khala:
        yield khala


class _Impatient:
    """See BACKOFF_SHARE."""

    def random(self) -> float:
        return random.random() * BACKOFF_SHARE


async def run_until_asked(asked: trio.Event) -> None:
    """Set ``asked`` when the drill says, by SIGTERM, that it has seen enough."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            asked.set()
            return
