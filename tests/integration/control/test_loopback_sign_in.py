"""Signing a command in through the browser (RFC 8252): the code at the loopback port, and its exchange."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio

from tests.integration.control.rig import DEVICE, refusal
from tests.integration.control.sign_in_suite import HTML, JSON, Doors
from tests.integration.control.test_sign_in import open_doors
from tests.postgres_cluster import Database

PORT: Final = 54_321
MINUTE_S: Final = 60


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(params=["development", "workos"])
async def doors(request: Any, control_database: Database, tmp_path: Path) -> AsyncIterator[Doors]:
    """Each provider in turn."""
    async with open_doors(control_database, tmp_path, request.param) as opened:
        yield opened


async def code_for(doors: Doors, verifier: str) -> str:
    """Go as a browser goes to the command's port; return what it brings there."""
    query = {"loopback_port": str(PORT), "code_challenge": challenge_of(verifier), "surface": "desktop"}
    answer = await doors.browser.get(await doors.go_to_callback(**query), headers=HTML)
    assert answer.status_code == 303, answer.text
    place = urlsplit(answer.headers["Location"])
    assert (place.scheme, place.netloc, place.path) == ("http", f"127.0.0.1:{PORT}", "/callback")
    assert set(parse_qs(place.query)) == {"code"}
    assert "khala_refresh" not in str(answer.headers)
    return parse_qs(place.query)["code"][0]


async def exchange(doors: Doors, code: str, verifier: str) -> httpx.Response:
    """Exchange a code as the command does: without a cookie."""
    async with doors.another_browser() as command:
        return await command.post("/api/auth/exchange", json={"code": code, "code_verifier": verifier})


async def log_of(doors: Doors) -> list[tuple[str, str]]:
    """Return action and cause of every row of the audit log."""
    rows = await doors.control.rows("SELECT action, reason FROM control.audit_log ORDER BY audit_id")
    return [(row["action"], row["reason"]) for row in rows]


async def test_the_command_that_began_gets_the_session(doors: Doors) -> None:
    """The code and the verifier together open one session, of the device that was named; two rows in the log."""
    verifier = secrets.token_urlsafe(32)
    code = await code_for(doors, verifier)
    assert await doors.control.rows("SELECT 1 FROM control.sessions") == []
    answer = await exchange(doors, code, verifier)
    assert answer.status_code == 200, answer.text
    session = answer.json()["session"]
    assert (session["device_id"], session["surface"], session["login"]) == (
        DEVICE,
        "SURFACE_DESKTOP",
        doors.login,
    )
    read = await doors.control.get("/api/auth/session", answer.json()["access_token"])
    assert read.json() == session
    assert await log_of(doors) == [("session.sign_in_code", ""), ("session.sign_in", "")]


async def test_a_code_works_once_however_many_bring_it(doors: Doors) -> None:
    """Ten at once with the right verifier: one session, nine refusals that do not say why."""
    verifier = secrets.token_urlsafe(32)
    code = await code_for(doors, verifier)
    answers: list[httpx.Response] = []

    async def try_it() -> None:
        answers.append(await exchange(doors, code, verifier))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(try_it)
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 9
    assert len(await doors.control.rows("SELECT 1 FROM control.sessions")) == 1


async def test_a_code_is_worth_nothing_to_whoever_reads_it(doors: Doors) -> None:
    """Wrong, malformed and missing verifiers, an invented code, a late one: one answer, and no session."""
    verifier, answers = secrets.token_urlsafe(32), []
    for wrong in (secrets.token_urlsafe(32), challenge_of(verifier), "", "v" * 42, f"{verifier} "):
        code = await code_for(doors, verifier)
        answers.append(await exchange(doors, code, wrong))
        # Spent by the attempt: the thief's guess costs the owner the code, and never gives it away.
        answers.append(await exchange(doors, code, verifier))
    answers.append(await exchange(doors, "invented", verifier))
    answers.append(await exchange(doors, "c" * 3_000, verifier))
    late = await code_for(doors, verifier)
    doors.control.clock.offset_s = MINUTE_S
    answers.append(await exchange(doors, late, verifier))
    assert {refusal(answer) for answer in answers} == {(401, "unauthenticated")}
    assert len({(answer.json()["message"], str(answer.json()["details"])) for answer in answers}) == 1
    assert await doors.control.rows("SELECT 1 FROM control.sessions") == []
    causes = [
        reason.partition(":")[2] for action, reason in await log_of(doors) if action == "session.sign_in"
    ]
    assert causes == [*["code_verifier", "code_unknown"] * 5, "code_unknown", "code_too_long", "code_expired"]


async def test_the_code_is_not_for_the_browser_nor_for_scripts(doors: Doors) -> None:
    """Whatever the callback is asked to answer with, a sign-in of a command ends at the port."""
    verifier = secrets.token_urlsafe(32)
    query = {"loopback_port": str(PORT), "code_challenge": challenge_of(verifier)}
    answer = await doors.browser.get(await doors.go_to_callback(**query), headers=JSON)
    assert (answer.status_code, answer.content) == (303, b"")
    assert "access_token" not in answer.text


@pytest.mark.parametrize(
    ("port", "challenge", "field"),
    [
        ("0", "c" * 43, "loopback_port"),
        ("65536", "c" * 43, "loopback_port"),
        ("80@evil.example", "c" * 43, "loopback_port"),
        ("\N{ARABIC-INDIC DIGIT EIGHT}0", "c" * 43, "loopback_port"),
        ("", "c" * 43, "loopback_port"),
        ("8080", "", "code_challenge"),
        ("8080", "c" * 42, "code_challenge"),
        ("8080", "c" * 42 + "=", "code_challenge"),
    ],
)
async def test_a_wrong_way_back_begins_nothing(doors: Doors, port: str, challenge: str, field: str) -> None:
    """The browser is never sent anywhere but to a port of its own machine."""
    answer = await doors.start(loopback_port=port, code_challenge=challenge)
    assert refusal(answer) == (400, "invalid_argument")
    assert answer.json()["details"]["field"] == field
    assert await doors.control.rows("SELECT 1 FROM control.pending_sign_ins") == []


async def test_a_page_cannot_begin_a_sign_in_for_a_port(doors: Doors) -> None:
    """Only the address bar, or a program that opened the browser: else a link could take a signed-in person."""
    query = {"device_id": DEVICE, "loopback_port": str(PORT), "code_challenge": "c" * 43}
    for site, status in (("none", 303), ("cross-site", 403), ("same-site", 403), ("same-origin", 403)):
        headers = {**HTML, "Sec-Fetch-Site": site}
        answer = await doors.browser.get("/api/auth/start", params=query, headers=headers)
        assert answer.status_code == status, answer.text
    del query["loopback_port"], query["code_challenge"]
    from_a_page = {**HTML, "Sec-Fetch-Site": "cross-site"}
    answer = await doors.browser.get("/api/auth/start", params=query, headers=from_a_page)
    assert answer.status_code == 303, "a page of an application may lead to the page"


async def test_what_is_stored_and_logged_is_no_key(doors: Doors) -> None:
    """Code and verifier are in no row and no line; what waits too long is swept away."""
    verifier = secrets.token_urlsafe(32)
    code = await code_for(doors, verifier)
    rows = await doors.control.rows("SELECT t::text AS row FROM control.sign_in_codes AS t")
    assert len(rows) == 1
    assert code.encode().hex() not in rows[0]["row"]
    for secret in (code, verifier):
        assert secret not in rows[0]["row"]
        assert secret not in doors.control.log.getvalue()


async def test_a_development_user_is_the_same_at_another_port(
    control_database: Database, tmp_path: Path
) -> None:
    """The development issuer's URL has a port; who somebody is does not depend on it, nor on its key."""
    users = set()
    for _ in range(2):
        async with open_doors(control_database, tmp_path, "development") as opened:
            users.add((await opened.sign_in()).json()["session"]["user_id"])
            rows = await opened.control.rows("SELECT issuer, subject FROM control.identities")
            assert [(row["issuer"], row["subject"]) for row in rows] == [("khala-dev", "ann")]
    assert len(users) == 1


async def test_a_sign_in_ends_under_the_name_at_which_it_began(doors: Doors) -> None:
    """Cookies belong to a name: under the other one of this machine the browser is first sent to ours."""
    port = urlsplit(doors.origin).port
    query = {"device_id": DEVICE, "return_to": "/a?b=c&d"}
    moved = await doors.browser.get("/api/auth/start", params=query, headers={"Host": f"localhost:{port}"})
    assert moved.status_code == 303
    assert "set-cookie" not in moved.headers
    place = urlsplit(moved.headers["Location"])
    assert f"{place.scheme}://{place.netloc}" == doors.origin
    assert (place.path, parse_qs(place.query)) == ("/api/auth/start", {k: [v] for k, v in query.items()})
    for name in (f"127.0.0.1:{port}", "khala.example"):
        asked = await doors.browser.get("/api/auth/start", params=query, headers={"Host": name})
        assert "khala_sign_in=" in asked.headers["set-cookie"], name
