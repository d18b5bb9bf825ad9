"""Refreshing a profile's tokens: once, however many ask, here and in other processes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import anyio
import attrs
import httpx
import pytest

from khala_client.errors import ReauthRequired, Unavailable
from khala_client.http import ControlClient
from khala_client.http_calls import PROTOBUF
from khala_client.profiles import Profile, ProfileDirectory
from khala_client.ring.profile_credentials import ProfileCredentials
from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from tests.actors.khala_client.loops import LoopKind, on_both_loops
from tests.actors.khala_client.world import World, problem, success
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_000_000.0
PROFILE = Profile(
    control_url="http://c",
    runtime_url="http://r",
    sync_url="ws://s",
    device_id="dev_00000001",
    user_id="usr_1",
    access_token="access-0",
    access_expires_at_s=NOW_S + 900,
    refresh_token="refresh-0",
)


class Control:
    """The refresh route: each refresh token works once."""

    def __init__(self) -> None:
        self.refreshes: list[str] = []
        self.valid = {"access-0"}
        self.trouble: httpx.Response | None = None
        self.http = httpx.AsyncClient(
            transport=httpx.MockTransport(self.handle), headers={"Accept": PROTOBUF}
        )
        self.client = ControlClient("http://c", self.http, None)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a refresh, or a call with a bearer."""
        await anyio.sleep(0.01)
        if request.url.path.endswith("/refresh"):
            body = m.RefreshRequest.FromString(request.content)
            assert body.device_id == "dev_00000001"
            if self.trouble is not None:
                return self.trouble
            if body.refresh_token in self.refreshes:
                return problem(reason_codes.REAUTH_REQUIRED)
            self.refreshes.append(body.refresh_token)
            number = len(self.refreshes)
            self.valid = {f"access-{number}"}
            session = m.Session(user_id="usr_1", session_id="ses_1", device_id="dev_00000001", login="ada")
            return success(
                m.SessionTokens(
                    access_token=f"access-{number}",
                    access_expires_at=int((NOW_S + 900) * 1000),
                    refresh_token=f"refresh-{number}",
                    session=session,
                )
            )
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.valid:
            return problem(reason_codes.TOKEN_EXPIRED)
        return success(m.ListKeysResponse())


@pytest.fixture
def control() -> Control:
    """A control service."""
    return Control()


@pytest.fixture
def directory(tmp_path: Path) -> ProfileDirectory:
    """A saved profile."""
    directory = ProfileDirectory(tmp_path / "profile")
    directory.save(PROFILE)
    return directory


def credentials_of(
    directory: ProfileDirectory, control: Control, *, now_s: float = NOW_S
) -> ProfileCredentials:
    """Return credentials as one process has them."""
    return ProfileCredentials(directory, directory.load(), control=control.client, wall_clock=lambda: now_s)


@pytest.mark.parametrize(("left_s", "refreshes"), [(30.1, 0), (30.0, 1), (-5.0, 1)])
@on_both_loops
async def test_refreshed_before_it_ends(
    directory: ProfileDirectory, control: Control, left_s: float, refreshes: int
) -> None:
    """Half a minute before, not earlier; saved before it is used."""
    credentials = credentials_of(directory, control, now_s=PROFILE.access_expires_at_s - left_s)
    assert await credentials.bearer() == f"access-{refreshes}"
    assert directory.load().access_token == f"access-{refreshes}"
    assert (credentials.namespace, credentials.device_id) == ("usr_1/dev_00000001", "dev_00000001")


@on_both_loops
async def test_twenty_refused_calls_make_one_refresh(directory: ProfileDirectory, control: Control) -> None:
    """CL-06: single flight; every call goes through."""
    control.valid.clear()
    client = ControlClient("http://c", control.http, credentials_of(directory, control))
    async with anyio.create_task_group() as nursery:
        for _ in range(20):
            nursery.start_soon(client.list_keys)
    assert control.refreshes == ["refresh-0"]


@on_both_loops
async def test_two_processes_make_one_refresh(directory: ProfileDirectory, control: Control) -> None:
    """Whoever gets the lock later finds the new tokens."""
    processes = [credentials_of(directory, control) for _ in range(5)]
    async with anyio.create_task_group() as nursery:
        for credentials in processes:
            nursery.start_soon(credentials.replace, "access-0")
    assert control.refreshes == ["refresh-0"]
    assert [await credentials.bearer() for credentials in processes] == ["access-1"] * 5


@on_both_loops
async def test_a_revoked_session_is_over(directory: ProfileDirectory, control: Control) -> None:
    """ReauthRequired, and the profile as it was."""
    control.trouble = problem(reason_codes.REAUTH_REQUIRED)
    with pytest.raises(ReauthRequired):
        await credentials_of(directory, control).replace("access-0")
    assert directory.load() == PROFILE


@on_both_loops
async def test_nobody_is_signed_in(directory: ProfileDirectory, control: Control) -> None:
    """Nothing is asked."""
    directory.save(PROFILE.signed_out())
    with pytest.raises(ReauthRequired):
        await credentials_of(directory, control).bearer()
    assert control.refreshes == []


@on_both_loops
async def test_a_profile_that_was_removed(directory: ProfileDirectory, control: Control) -> None:
    """Signed out by another process: to sign in again is what helps. No other kind of exception gets out."""
    credentials = credentials_of(directory, control)
    (directory.path / "profile.json").unlink()
    with pytest.raises(ReauthRequired):
        await credentials.replace("access-0")
    shutil.rmtree(directory.path)
    with pytest.raises(Unavailable):
        await credentials.replace("access-0")


@on_both_loops
async def test_a_clock_that_is_ahead_does_not_refresh_for_each_call(
    directory: ProfileDirectory, control: Control
) -> None:
    """One refresh shows that it is wrong; from then on the servers say when a token is old."""
    credentials = credentials_of(directory, control, now_s=NOW_S + 86_400)
    client = ControlClient("http://c", control.http, credentials)
    for _ in range(3):
        await client.list_keys()
    assert control.refreshes == ["refresh-0"]
    control.valid.clear()
    await client.list_keys()
    assert control.refreshes == ["refresh-0", "refresh-1"]


@on_both_loops
async def test_a_lock_that_is_never_freed(directory: ProfileDirectory, control: Control) -> None:
    """Another process hangs: 45 s, then trouble."""
    with directory.hold_lock():
        with pytest.raises(Unavailable):
            await credentials_of(directory, control).replace("access-0")
        assert anyio.current_time() == 45


@on_both_loops(real_time=True)
async def test_a_khala_of_a_profile(world: World, loop: LoopKind, directory: ProfileDirectory) -> None:
    """Store, namespace and bearer are the profile's."""
    sync_url = world.settings.sync_url
    directory.save(
        attrs.evolve(PROFILE, access_token="khk_test", access_expires_at_s=9e12, sync_url=sync_url)
    )
    world.add(topic_number(1), 3)
    for expected in ([1, 2], [3]):
        async with loop.khala.from_env({}, profile=directory.path) as khala:
            assert khala.namespace == "usr_1/dev_00000001"
            async with khala.subscribe(topic_number(1)) as events:
                with anyio.fail_after(5):
                    assert [(await events.__anext__()).seq for _ in expected] == expected
    assert directory.store_path.exists()
