"""Signing in through a provider: what holds for every one of them, by real HTTP throughout.

`test_sign_in.py` runs this on the development issuer and on the fake of AuthKit; `real_providers.py`, by command, on
a certified provider and on the vendor's own emulator.
"""

from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest

from tests.integration.control.rig import DEVICE, ControlRig, refusal

JSON = {"Accept": "application/json"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@attrs.define
class Doors:
    """A control service with its provider, and a browser."""

    control: ControlRig
    browser: httpx.AsyncClient
    origin: str
    login: str = "ann"
    # What the provider calls the person.
    subject: str = "ann"

    async def start(self, **query: str) -> httpx.Response:
        """Begin; the answer sends the browser to the provider."""
        asked = {"device_id": DEVICE, "login_hint": self.login, **query}
        return await self.browser.get("/api/auth/start", params=asked, headers=HTML)

    async def go_to_callback(self, **query: str) -> str:
        """Begin, sign in at the provider, and return the URL of the callback, not visited yet."""
        started = await self.start(**query)
        assert started.status_code == 303, started.text
        return await self.sign_in_at_provider(started.headers["Location"])

    async def sign_in_at_provider(self, url: str) -> str:
        """Do what the person does at the provider; return where that sends the browser."""
        at_provider = await self.browser.get(url, headers=HTML)
        assert at_provider.is_redirect, at_provider.text
        return at_provider.headers["Location"]

    async def sign_in(self, **query: str) -> httpx.Response:
        """Go the whole way as a program does."""
        return await self.browser.get(await self.go_to_callback(**query), headers=JSON)

    def another_browser(self) -> httpx.AsyncClient:
        """Return a browser without our cookies."""
        return httpx.AsyncClient(base_url=self.origin, trust_env=False)


async def causes_of(doors: Doors) -> list[str]:
    """Return why sign-ins were refused, as the log has it."""
    rows = await doors.control.rows(
        "SELECT reason FROM control.audit_log WHERE action = 'session.sign_in' AND outcome = 'refused' ORDER BY audit_id"
    )
    return [row["reason"].partition(":")[2] for row in rows]


async def session_count(doors: Doors) -> int:
    """Return how many sessions there are."""
    rows = await doors.control.rows("SELECT count(*) AS count FROM control.sessions")
    return int(rows[0]["count"])


class SignInSuite:
    """Each test gets ``doors``, a fixture of the class that runs the suite."""

    async def test_code_to_session(self, doors: Doors) -> None:
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

    async def test_a_browser_gets_a_cookie_and_its_page(self, doors: Doors) -> None:
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
        out = await doors.browser.post(
            "/api/auth/logout", json={}, headers={"Authorization": f"Bearer {access}"}
        )
        assert out.status_code == 200
        ended = await doors.browser.post("/api/auth/refresh", json=refresh)
        assert refusal(ended) == (401, "reauth_required")

    async def test_one_subject_is_one_user(self, doors: Doors) -> None:
        """Signing in again is the same user, also after its rows of identity were lost and made again."""
        one, two = await doors.sign_in(), await doors.sign_in()
        assert one.json()["session"]["user_id"] == two.json()["session"]["user_id"]
        await doors.control.rows("DELETE FROM control.identities")
        three = await doors.sign_in()
        assert three.status_code == 200
        rows = await doors.control.rows("SELECT subject FROM control.identities")
        assert [row["subject"] for row in rows] == [doors.subject]

    async def test_a_callback_works_once_in_its_own_browser(self, doors: Doors) -> None:
        """A state is spent by its first use, and worth nothing without the cookie of the browser that started."""
        callback = await doors.go_to_callback()
        async with doors.another_browser() as stranger:
            assert refusal(await stranger.get(callback, headers=JSON)) == (401, "unauthenticated")
        assert refusal(await doors.browser.get(callback, headers=JSON)) == (401, "unauthenticated")
        callback = await doors.go_to_callback()
        assert (await doors.browser.get(callback, headers=JSON)).status_code == 200
        assert refusal(await doors.browser.get(callback, headers=JSON)) == (401, "unauthenticated")
        assert await causes_of(doors) == ["another_browser", "state_unknown", "state_unknown"]
        assert await session_count(doors) == 1

    async def test_a_forged_callback_opens_nothing(self, doors: Doors) -> None:
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
        assert await causes_of(doors) == [
            "state_unknown",
            "code_refused",
            "refused_by_provider",
            "refused_by_provider",
            "state_expired",
            "callback_too_long",
        ]
        assert await session_count(doors) == 0

    async def test_a_code_of_one_flow_is_worth_nothing_in_another(self, doors: Doors) -> None:
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
        assert await causes_of(doors) == ["code_refused"]

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
    async def test_a_wrong_start_begins_nothing(
        self, doors: Doors, query: dict[str, str], field: str
    ) -> None:
        """Refused with the field; nothing is remembered."""
        answer = await doors.start(**query)
        assert refusal(answer) == (400, "invalid_argument")
        assert answer.json()["details"]["field"] == field
        assert await doors.control.rows("SELECT * FROM control.pending_sign_ins") == []

    async def test_nothing_secret_is_in_urls_or_logs(self, doors: Doors) -> None:
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
