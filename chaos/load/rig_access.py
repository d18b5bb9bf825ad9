"""What a benchmark does in the name of an application: mints tokens for its users, creates its runs.

One org of the development user, one service key of it (``make_key``), and clients that use the key. Async;
``rig.py`` has the same for whoever is not within trio.
"""

from __future__ import annotations

import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.system_under_test import SystemFailedError
from khala_client.credentials import KeyCredentials
from khala_client.http import ControlClient, RuntimeClient
from khala_client.http_calls import open_http
from khala_client.profiles import ProfileDirectory
from khala_client.trio import ProfileCredentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import httpx

    from chaos.load.system_under_test import SystemUnderTest

__all__ = ["TOKEN_TTL_S", "RigAccess", "ServiceKeyOfOrg", "Viewer", "make_key", "open_key_access"]

TOKEN_TTL_S: Final = 900
# One mint costs control 6 ms of CPU; more at once only wait there.
_AT_ONCE: Final = 16
_ORG: Final = "bench"
_KEY_RIGHTS: Final = ("publish", "work", "read", "mint")


@attrs.frozen
class Viewer:
    """Somebody of an application's own users, with a token for one connection."""

    user_id: str
    device_id: str
    token: str = attrs.field(repr=False)


@attrs.frozen
class ServiceKeyOfOrg:
    """A service key with the rights publish, work, read and mint, and whose it is."""

    org_id: str
    secret: str = attrs.field(repr=False)


@attrs.frozen
class RigAccess:
    """The org of the benchmark, its service key, and clients that use it. Made by ``open_access``.

    Attributes:
        key: The secret of a key with the rights publish, work, read and mint.
        http: For calls of your own.
    """

    org_id: str
    key: str = attrs.field(repr=False)
    control: ControlClient
    runtime: RuntimeClient
    http: httpx.AsyncClient = attrs.field(repr=False)

    async def mint(
        self, topics_of_each: Sequence[Sequence[str]], *, ttl_s: int = TOKEN_TTL_S
    ) -> list[Viewer]:
        """Mint a token for each list of topics, each for another user and device; 50-150 a second.

        Args:
            topics_of_each: 1..256 topics that exist, for each token.
            ttl_s: 60..900. A connection ends with its token.
        """
        viewers: dict[int, Viewer] = {}

        async def mint_one(number: int) -> None:
            user_id, device_id = f"viewer-{number}", f"dev_{secrets.token_hex(8)}"
            minted = await self.control.mint_sync_token(
                topics_of_each[number], ttl_s=ttl_s, subject=(user_id, device_id)
            )
            viewers[number] = Viewer(user_id, device_id, minted.token)

        await _for_each(len(topics_of_each), mint_one)
        return [viewers[number] for number in range(len(topics_of_each))]

    async def create_runs(self, count: int) -> list[str]:
        """Create runs of the org, owned by the key; return their ids. Each begins with ``run.started``."""
        run_ids: dict[int, str] = {}

        async def create_one(number: int) -> None:
            created = await self.runtime.create_run(idempotency_key=secrets.token_hex(8), org_id=self.org_id)
            run_ids[number] = created.run.run_id

        await _for_each(count, create_one)
        return [run_ids[number] for number in range(count)]


@asynccontextmanager
async def open_key_access(
    key: ServiceKeyOfOrg, control_url: str, runtime_url: str
) -> AsyncIterator[RigAccess]:
    """Open clients that call control and runtime with a service key."""
    async with open_http() as http:
        credentials = KeyCredentials(key.secret, device_id="dev_0000000000000000")
        control = ControlClient(control_url, http, credentials)
        runtime = RuntimeClient(runtime_url, http, credentials)
        yield RigAccess(key.org_id, key.secret, control, runtime, http)


async def make_key(system: SystemUnderTest) -> ServiceKeyOfOrg:
    """Make an org of the development user, and a key of it.

    Raises:
        SystemFailedError: Control refused the org.
    """
    directory = ProfileDirectory(system.profile)
    profile = directory.load()
    async with open_http() as http:
        signed_out = ControlClient(profile.control_url, http, None)
        credentials = ProfileCredentials(directory, profile, control=signed_out, wall_clock=time.time)
        answer = await http.post(
            f"{profile.control_url}/api/orgs",
            json={"name": _ORG},
            headers={"Authorization": f"Bearer {await credentials.bearer()}", "Accept": "application/json"},
        )
        if not answer.is_success:
            raise SystemFailedError(f"an org was answered {answer.status_code} {answer.text}")
        org_id = str(answer.json()["org_id"])
        control = ControlClient(profile.control_url, http, credentials)
        key = await control.create_key(_ORG, rights=_KEY_RIGHTS, org_id=org_id)
    assert key.secret is not None
    return ServiceKeyOfOrg(org_id, key.secret)


async def _for_each(count: int, call: Callable[[int], Awaitable[None]]) -> None:
    """Call with 0..count - 1, a few at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    async with trio.open_nursery() as working:
        for _ in range(min(_AT_ONCE, count)):
            working.start_soon(work)
