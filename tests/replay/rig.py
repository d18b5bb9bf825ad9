"""A runtime over HTTP, and its journal as its superuser can bend it."""

from __future__ import annotations

from base64 import b64decode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs

from khala_contracts.chain import chain_next
from khala_service.config import Secret
from runtime.core.limits import RuntimeLimits
from tests.integration.runtime.rig import CONTROL_CREDENTIAL, RuntimeRig, Settings, open_runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import httpx

    from tests.postgres_cluster import Database

ADMIN: Final = "admin-token-of-these-tests"
SERVICE: Final = CONTROL_CREDENTIAL.reveal()


@attrs.define
class Replay:
    """What a test of the route sees."""

    rig: RuntimeRig

    async def get(self, topic: str, *, bearer: str | None = SERVICE, **query: str | int) -> httpx.Response:
        """Ask for a page."""
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        path = f"/internal/v1/khala/topics/{topic}/messages"
        params = {name: str(value) for name, value in query.items()}
        return await self.rig.http.get(path, headers=headers, params=params)

    async def page(self, topic: str, *, bearer: str = SERVICE, **query: str | int) -> dict[str, Any]:
        """Ask for a page that there must be."""
        response = await self.get(topic, bearer=bearer, **query)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def refused(self, topic: str, status: int, **query: str | int) -> dict[str, Any]:
        """Ask for a page that must be refused."""
        response = await self.get(topic, bearer=SERVICE, **query)
        assert response.status_code == status, response.text
        found: dict[str, Any] = response.json()
        return found

    async def run_of(self, count: int, text: str = "t") -> str:
        """Return the topic of a new run with so many events, run.started included."""
        run_id = await self.rig.make_run()
        if count > 1:
            await self.rig.append(run_id, *[f"{text}{number}" for number in range(2, count + 1)])
        return f"run:{run_id}:events"

    async def move_floor(self, topic: str, floor_seq: int, *, reason: str, deletes: bool) -> None:
        """Do what retention will do: the floor moves, rows below it are deleted, sooner or later."""
        await self.rig.pool.execute(
            "UPDATE runtime.topic_heads AS h SET floor_seq = $2, floor_reason = $3, floor_chain = j.chain,"
            " floor_bytes_total = j.bytes_total FROM runtime.journal AS j"
            " WHERE h.topic = $1 AND j.topic = $1 AND j.seq = $2 - 1",
            topic, floor_seq, reason,
        )  # fmt: skip
        if deletes:
            await self.rig.pool.execute(
                "DELETE FROM runtime.journal WHERE topic = $1 AND seq < $2", topic, floor_seq
            )


def seqs(page: dict[str, Any]) -> list[int]:
    """Return the positions of a page's frames."""
    return [int(frame["seq"]) for frame in page["frames"]]


def chain_through(page: dict[str, Any]) -> bytes:
    """Follow the chain over a page's frames from where it says that it begins."""
    chain = b64decode(page["chain_before"])
    for frame in page["frames"]:
        payload = b64decode(frame["payload_bytes"])
        chain = chain_next(chain, int(frame["seq"]), frame["schema_version"], frame["kind"], payload)
    return chain


def positions(count: int, first: int = 1) -> Sequence[int]:
    """Return ``count`` positions from ``first``."""
    return list(range(first, first + count))


@asynccontextmanager
async def open_replay(database: Database, limits: RuntimeLimits | None = None) -> AsyncIterator[Replay]:
    """Serve a runtime that has an admin token."""
    settings = Settings(limits=limits or RuntimeLimits(), changes={"admin_token": Secret(ADMIN)})
    async with open_runtime(database, settings) as rig:
        yield Replay(rig)
