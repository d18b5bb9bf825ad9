"""The suite of providers on the development issuer and on AuthKit, and what a provider that is away means."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from khala_service.config import Secret
from tests.integration.control.authkit_fake import API_KEY, CLIENT_ID, AuthkitFake
from tests.integration.control.rig import make_config, refusal, running_control
from tests.integration.control.sign_in_suite import JSON, Doors, SignInSuite, causes_of, session_count
from tests.postgres_cluster import Database

EMAIL = "ann@example.org"
USER_ID = "user_01ANN"


@attrs.define
class AuthkitDoors(Doors):
    """At the fake of AuthKit."""

    authkit: AuthkitFake | None = None


@asynccontextmanager
async def open_doors(database: Database, folder: Path, provider: str) -> AsyncIterator[AuthkitDoors]:
    """Run control with a provider."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    config = attrs.evolve(make_config(database, folder), port=port)
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        authkit = None
        if provider == "workos":
            authkit = AuthkitFake(f"{origin}/api/auth/callback", users={EMAIL: USER_ID})
            authkit.port = await nursery.start(partial(authkit.serve, drain=drain))
            config = attrs.evolve(
                config,
                identity_provider="workos",
                workos_client_id=CLIENT_ID,
                workos_api_key=Secret(API_KEY),
                workos_base_url=authkit.base_url,
            )
        async with (
            running_control(config, database) as control,
            httpx.AsyncClient(base_url=origin, trust_env=False) as browser,
        ):
            if authkit is None:
                yield AuthkitDoors(control, browser, origin)
            else:
                yield AuthkitDoors(control, browser, origin, EMAIL, USER_ID, authkit)
        drain.set()


class TestSignIn(SignInSuite):
    """Each provider in turn."""

    @pytest.fixture(params=["development", "workos"])
    async def doors(self, request: Any, control_database: Database, tmp_path: Path) -> AsyncIterator[Doors]:
        """Open them."""
        async with open_doors(control_database, tmp_path, request.param) as opened:
            yield opened


async def test_an_assertion_for_another_sign_in(control_database: Database, tmp_path: Path) -> None:
    """CT-02: a nonce that is not the one of this flow opens nothing, and the log says why."""
    async with open_doors(control_database, tmp_path, "development") as doors:
        callback = await doors.go_to_callback()
        await doors.control.rows("UPDATE control.pending_sign_ins SET nonce = reverse(nonce)")
        assert refusal(await doors.browser.get(callback, headers=JSON)) == (401, "unauthenticated")
        assert await causes_of(doors) == ["id_token_nonce"]
        assert await session_count(doors) == 0


async def test_orgs_of_the_provider_give_nothing(control_database: Database, tmp_path: Path) -> None:
    """CT-04: the provider names an org of ours and a role; whoever is no member there gets no scope of it."""
    async with open_doors(control_database, tmp_path, "workos") as doors:
        assert doors.authkit is not None
        doors.authkit.users["olga@example.org"] = "user_02OLGA"
        doors.login = "olga@example.org"
        owner = (await doors.sign_in()).json()
        org_id = owner["session"]["orgs"][0]["org_id"]
        doors.login = EMAIL
        doors.authkit.organization = {
            "organization_id": org_id,
            "role": {"slug": "admin"},
            "roles": ["owner"],
        }
        stranger = (await doors.sign_in()).json()
        assert org_id not in [org["org_id"] for org in stranger["session"]["orgs"]]
        for topic in (f"org:{org_id}:runs", f"org:{org_id}:ops"):
            answer = await doors.control.mint(stranger["access_token"], topic)
            assert refusal(answer) == (403, "forbidden")
        assert (
            await doors.control.rows(
                "SELECT * FROM control.memberships WHERE org_id = $1 AND role <> 'owner'", org_id
            )
            == []
        )
        # Membership is given here, and counts from the next mint on.
        member = {"user_id": stranger["session"]["user_id"], "role": "member"}
        added = await doors.control.post(f"/api/orgs/{org_id}/members", member, owner["access_token"])
        assert added.status_code == 200, added.text
        assert (await doors.control.mint(stranger["access_token"], f"org:{org_id}:runs")).status_code == 200


@pytest.mark.parametrize(("status", "is_missing"), [(500, False), (401, False), (0, True)])
async def test_without_the_provider_nobody_gets_in(
    control_database: Database, tmp_path: Path, status: int, is_missing: bool
) -> None:
    """A provider that fails, refuses our own credential or answers for nobody: unavailable, and no session.

    Whoever has a session keeps it.
    """
    async with open_doors(control_database, tmp_path, "workos") as doors:
        assert doors.authkit is not None
        before = (await doors.sign_in()).json()
        doors.authkit.status, doors.authkit.user_is_missing = status, is_missing
        answer = await doors.sign_in()
        assert refusal(answer) == (503, "unavailable")
        assert (await doors.control.get("/api/auth/session", before["access_token"])).status_code == 200
        assert await session_count(doors) == 1
