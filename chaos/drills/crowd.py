"""A process of many clients, each with a connection and a memory of its own, that come back as applications do.

    python -m chaos.drills.crowd '{"name": "crowd", "clients": 300, ...}'            (client_setup.CrowdSetup)

Each is a whole ``Khala`` as shipped, with its own backoff, and follows one of the topics from where it
stands. Client 7 writes what it applies to ``crowd-7.history.jsonl``; ``notices.jsonl`` says who connected
where, whose connection ended and why, and who is live. Ends with status 0 when it is asked to (SIGTERM).
"""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.authority import Authority
from chaos.drills.client_setup import CrowdSetup, run_until_asked, setup_of
from chaos.drills.follower import timed_line
from chaos.drills.json_lines import JsonLineWriter
from khala_client.notices import Connected, Disconnected, GapSeen, Live
from khala_client.settings import load_settings
from khala_client.trio import Khala

if TYPE_CHECKING:
    from khala_client.notices import Notice
    from khala_client.settings import Settings

__all__ = ["history_file"]

# Signing in and minting tokens is control's work; more at once only wait there.
_OPENING_AT_ONCE: Final = 16


def history_file(number: int) -> str:
    """Return the kind of file that a client writes its history to; see ``ClientSetup.file``."""
    return f"{number}.history.jsonl"


async def follow_all(setup: CrowdSetup) -> None:
    """Open every client and let them follow until asked to stop."""
    # Each client has an HTTP client, and each of these reads the certificates of the whole world, 40 ms of
    # CPU, which none of them needs here: let the world be one certificate.
    os.environ["SSL_CERT_FILE"] = str(Authority.make(setup.file("certificates").parent).ca)
    settings = attrs.evolve(load_settings({}, profile=setup.profile), store_path=None)
    if setup.sync_url:
        settings = attrs.evolve(settings, sync_url=setup.sync_url)
    _raise_descriptors()
    asked = trio.Event()
    opening = trio.Semaphore(_OPENING_AT_ONCE)
    with JsonLineWriter(setup.file("notices.jsonl")) as notices:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_until_asked, asked)
            for number in range(setup.clients):
                nursery.start_soon(_Client(setup, settings, number, notices).follow, opening)
            await asked.wait()
            nursery.cancel_scope.cancel()


def _raise_descriptors() -> None:
    """Take as many descriptors as the system lets us have: each client has a file and up to three sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Client:
    """One of the crowd."""

    def __init__(self, setup: CrowdSetup, settings: Settings, number: int, notices: JsonLineWriter) -> None:
        self._settings = settings
        self._number = number
        self._topic = setup.topics[number % len(setup.topics)]
        self._file = setup.file(history_file(number))
        self._notices = notices
        self._is_live = trio.Event()

    async def follow(self, opening: trio.Semaphore) -> None:
        """Follow the topic from its beginning until cancelled."""
        with JsonLineWriter(self._file) as history:
            await opening.acquire()
            async with Khala(self._settings) as khala, trio.open_nursery() as nursery:
                nursery.start_soon(self._let_the_next_open, opening)
                async with khala.subscribe(self._topic, after="saved", on_notice=self._take) as events:
                    try:
                        async for event in events:
                            history.write_text(timed_line(event, time.time()))
                    finally:
                        self._write("counts", duplicates=events.counts.duplicates)

    async def _let_the_next_open(self, opening: trio.Semaphore) -> None:
        await self._is_live.wait()
        opening.release()

    def _take(self, notice: Notice) -> None:
        match notice:
            case Connected(node_id=node_id):
                self._write("connected", node_id=node_id)
            case Disconnected(code=code, retry_in_s=retry_in_s):
                self._write("disconnected", code=code, retry_in_s=round(retry_in_s, 4))
            case GapSeen(expected_seq=expected_seq, seq=seq):
                self._write("gap", expected_seq=expected_seq, seq=seq)
            case Live():
                self._is_live.set()
                self._write("live")
            case _:
                pass

    def _write(self, name: str, **facts: str | float) -> None:
        line = {"notice": name, "at_s": round(time.time(), 6), "client": self._number, **facts}
        self._notices.write(line)


if __name__ == "__main__":
    trio.run(follow_all, setup_of(CrowdSetup, sys.argv[1:]))
