"""Signing in through a provider: one suite on the development issuer and on AuthKit, real HTTP throughout."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest
import trio

from khala_service.config import Secret
from tests.integration.control.authkit_fake import API_KEY, CLIENT_ID, AuthkitFake
from tests.integration.control.rig import DEVICE, ControlRig, make_config, refusal, running_control
from tests.postgres_cluster import Database

JSON = {"Accept": "application/json"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EMAIL = "ann@example.org"


@attrs.define
class Doors:
    """A control service with its provider, and a browser."""

    control: ControlRig
    browser: httpx.AsyncClient
    origin: str
    authkit: AuthkitFake | None = None
    login: str = "ann"

    async def start(self, **query: str) -> httpx.Response:
        """Begin; the answer sends the browser to the provider."""
        asked = {"device_id": DEVICE, "login_hint": self.login, **query}
        return await self.browser.get("/api/auth/start", params=asked, headers=HTML)

    async def go_to_callback(self, **query: str) -> str:
        """Begin, sign in at the provider, and return the URL of the callback, not visited yet."""
        started = await self.start(**query)
        assert started.status_code == 303, started.text
        at_provider = await self.browser.get(started.headers["Location"], headers=HTML)
        assert at_provider.is_redirect, at_provider.text
        return at_provider.headers["Location"]

    async def sign_in(self, **query: str) -> httpx.Response:
        """Go the whole way as a program does."""
        return await self.browser.get(await self.go_to_callback(**query), headers=JSON)

    def another_browser(self) -> httpx.AsyncClient:
        """Return a browser without our cookies."""
        return httpx.AsyncClient(base_url=self.origin, trust_env=False)


@asynccontextmanager
async def open_doors(database: Database, folder: Path, provider: str) -> AsyncIterator[Doors]:
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
            authkit = AuthkitFake(f"{origin}/api/auth/callback", users={EMAIL: "user_01ANN"})
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
            yield Doors(control, browser, origin, authkit, EMAIL if authkit else "ann")
        drain.set()


@pytest.fixture(params=["development", "workos"])
async def doors(request: Any, control_database: Database, tmp_path: Path) -> AsyncIterator[Doors]:
    """Each provider in turn."""
    async with open_doors(control_database, tmp_path, request.param) as opened:
        yield opened


async def _causes(doors: Doors) -> list[str]:
    rows = await doors.control.rows(
        "SELECT reason FROM control.audit_log WHERE action = 'session.sign_in' AND outcome = 'refused' ORDER BY audit_id"
    )
    return [row["reason"].partition(":")[2] for row in rows]


async def _session_count(doors: Doors) -> int:
    rows = await doors.control.rows("SELECT count(*) AS count FROM control.sessions")
    return int(rows[0]["count"])


async def test_code_to_session(doors: Doors) -> None:
    """A program gets access token, rotating refresh token, session and device; the log has one row."""
    answer = await doors.sign_in(surface="desktop")
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    session = tokens["session"]
    assert (session["device_id"], session["login"], session["surface"]) == (
        DEVICE,
        doors.login,
        "SURFACE_DESKTOP",
    )
    assert int(tokens["access_expires_at"]) - int(session["created_at"]) <= 900_000
    read = await doors.control.get("/api/auth/session", tokens["access_token"])
    assert read.json() == session
    refreshed = await doors.control.post(
        "/api/auth/refresh", {"refresh_token": tokens["refresh_token"], "device_id": DEVICE}
    )
    assert refreshed.status_code == 200
    rows = await doors.control.rows(
        "SELECT action FROM control.audit_log WHERE outcome = 'done' ORDER BY audit_id"
    )
    assert [row["action"] for row in rows] == ["session.sign_in", "session.refresh"]


async def test_a_browser_gets_a_cookie_and_its_page(doors: Doors) -> None:
    """The refresh token is in a cookie that scripts cannot read, rotates there, and ends with the log-out."""
    callback = await doors.go_to_callback(return_to="/runs?x=1")
    answer = await doors.browser.get(callback, headers=HTML)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/runs?x=1")
    assert answer.content == b""
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("khala_refresh="))
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/api/auth"):
        assert attribute in cookie
    refresh = {"device_id": DEVICE}
    first = await doors.browser.post("/api/auth/refresh", json=refresh, headers={"Origin": doors.origin})
    assert first.status_code == 200, first.text
    assert first.json()["refresh_token"] == ""
    foreign = await doors.browser.post(
        "/api/auth/refresh", json=refresh, headers={"Origin": "https://evil.example"}
    )
    assert refusal(foreign) == (403, "forbidden")
    second = await doors.browser.post("/api/auth/refresh", json=refresh)
    assert second.status_code == 200
    access = second.json()["access_token"]
    out = await doors.browser.post("/api/auth/logout", json={}, headers={"Authorization": f"Bearer {access}"})
    assert out.status_code == 200
    ended = await doors.browser.post("/api/auth/refresh", json=refresh)
    assert refusal(ended) == (401, "reauth_required")


async def test_one_subject_is_one_user(doors: Doors) -> None:
    """Signing in again is the same user, also after its rows of identity were lost and made again."""
    one, two = await doors.sign_in(), await doors.sign_in()
    assert one.json()["session"]["user_id"] == two.json()["session"]["user_id"]
    await doors.control.rows("DELETE FROM control.identities")
    three = await doors.sign_in()
    assert three.status_code == 200
    rows = await doors.control.rows("SELECT subject FROM control.identities")
    assert [row["subject"] for row in rows] == ["user_01ANN" if doors.authkit else "ann"]


async def test_a_callback_works_once_in_its_own_browser(doors: Doors) -> None:
    """A state is spent by its first use, and worth nothing without the cookie of the browser that started."""
    callback = await doors.go_to_callback()
    async with doors.another_browser() as stranger:
        assert refusal(await stranger.get(callback, headers=JSON)) == (401, "unauthenticated")
    assert refusal(await doors.browser.get(callback, headers=JSON)) == (401, "unauthenticated")
    callback = await doors.go_to_callback()
    assert (await doors.browser.get(callback, headers=JSON)).status_code == 200
    assert refusal(await doors.browser.get(callback, headers=JSON)) == (401, "unauthenticated")
    assert await _causes(doors) == ["another_browser", "state_unknown", "state_unknown"]
    assert await _session_count(doors) == 1


async def test_a_forged_callback_opens_nothing(doors: Doors) -> None:
    """Unknown state, invented or missing code, the provider's refusal, too late: one answer, five causes."""
    answers = [await doors.browser.get("/api/auth/callback?state=x&code=y", headers=JSON)]
    for code in ("code=invented", "", "error=access_denied&code=z"):
        state = parse_qs(urlsplit((await doors.start()).headers["Location"]).query)["state"][0]
        answers.append(await doors.browser.get(f"/api/auth/callback?state={state}&{code}", headers=JSON))
    late = await doors.go_to_callback()
    doors.control.clock.offset_s = 601
    answers.append(await doors.browser.get(late, headers=JSON))
    answers.append(await doors.browser.get(f"/api/auth/callback?state={'s' * 3_000}", headers=JSON))
    bodies = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} == {401}
    assert len({(body["code"], body["message"], str(body["details"])) for body in bodies}) == 1
    assert await _causes(doors) == [
        "state_unknown",
        "code_refused",
        "refused_by_provider",
        "refused_by_provider",
        "state_expired",
        "callback_too_long",
    ]
    assert await _session_count(doors) == 0


async def test_a_code_of_one_flow_is_worth_nothing_in_another(doors: Doors) -> None:
    """Codes belong to their verifier: two flows whose codes are swapped open nothing (code injection)."""
    async with doors.another_browser() as second:
        theirs = await doors.go_to_callback()
        doors.browser, first = second, doors.browser
        ours = await doors.go_to_callback()
        stolen = parse_qs(urlsplit(theirs).query)["code"][0]
        state = parse_qs(urlsplit(ours).query)["state"][0]
        answer = await second.get(f"/api/auth/callback?state={state}&code={stolen}", headers=JSON)
        doors.browser = first
    assert refusal(answer) == (401, "unauthenticated")
    assert await _causes(doors) == ["code_refused"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"device_id": "phone"}, "device_id"),
        ({"surface": "service"}, "surface"),
        ({"surface": "fridge"}, "surface"),
        ({"return_to": "//evil.example"}, "return_to"),
        ({"login_hint": "a\nb"}, "login_hint"),
    ],
)
async def test_a_wrong_start_begins_nothing(doors: Doors, query: dict[str, str], field: str) -> None:
    """Refused with the field; nothing is remembered."""
    answer = await doors.start(**query)
    assert refusal(answer) == (400, "invalid_argument")
    assert answer.json()["details"]["field"] == field
    assert await doors.control.rows("SELECT * FROM control.pending_sign_ins") == []


async def test_nothing_secret_is_in_urls_or_logs(doors: Doors) -> None:
    """No token and no cookie appears in a Location, nor anything of the flow in the log."""
    started = await doors.start()
    binding = doors.browser.cookies["khala_sign_in"]
    location = started.headers["Location"]
    assert binding not in location
    callback = await doors.go_to_callback()
    tokens = (await doors.browser.get(callback, headers=JSON)).json()
    query = parse_qs(urlsplit(callback).query)
    said = doors.control.log.getvalue()
    for secret in (tokens["refresh_token"], tokens["access_token"], query["code"][0], query["state"][0]):
        assert secret not in said
    rows = await doors.control.rows("SELECT * FROM control.pending_sign_ins")
    assert query["state"][0] not in str(rows)


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
        assert await _session_count(doors) == 1
