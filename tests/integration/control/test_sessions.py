"""People: sign-in, refresh, sign-out, over HTTP on a real database."""

import trio

from tests.integration.control.rig import DEVICE, OTHER_DEVICE, Callback, ControlRig, refusal, signed_in

DAY_S = 24 * 3600


async def _refresh(control: ControlRig, token: str, device_id: str = DEVICE) -> tuple[int, dict[str, object]]:
    answer = await control.post("/api/auth/refresh", {"refresh_token": token, "device_id": device_id})
    return answer.status_code, answer.json()


async def test_sign_in_refresh_log_out(control: ControlRig) -> None:
    """A session's whole life: each step answers with the same session, the last one ends it."""
    person = await control.sign_in("ann")
    assert person.session["login"] == "ann"
    assert person.session["orgs"][0]["role"] == "owner"
    assert person.session["orgs"][0]["name"] == "ann"
    session = await control.get("/api/auth/session", person.access_token)
    assert session.json() == person.session

    status, refreshed = await _refresh(control, person.refresh_token)
    assert status == 200
    assert refreshed["session"] == person.session
    assert refreshed["refresh_token"] != person.refresh_token

    token = str(refreshed["access_token"])
    assert (await control.post("/api/auth/logout", {}, token)).status_code == 200
    assert refusal(await control.get("/api/auth/session", token)) == (401, "reauth_required")
    assert refusal(await control.post("/api/auth/logout", {}, token)) == (401, "reauth_required")
    status, refused = await _refresh(control, str(refreshed["refresh_token"]))
    assert (status, refused["code"]) == (401, "reauth_required")


async def test_one_login_is_one_user(control: ControlRig) -> None:
    """Forty first sign-ins of one login at once make one user with one personal org, and 40 sessions."""
    people = []
    # One after the other up to the callback, which makes user and session: those are at once.
    callbacks = [await control.walk_to_callback("bob", f"dev_{number:08d}") for number in range(40)]

    async def sign_in(callback: Callback) -> None:
        people.append(signed_in(await callback()))

    async with trio.open_nursery() as nursery:
        for callback in callbacks:
            nursery.start_soon(sign_in, callback)
    assert len({person.user_id for person in people}) == 1
    assert len({person.org_id for person in people}) == 1
    assert len({person.session_id for person in people}) == 40
    counts = await control.rows(
        "SELECT (SELECT count(*) FROM control.users) AS users, (SELECT count(*) FROM control.orgs) AS orgs"
    )
    assert counts == [{"users": 1, "orgs": 1}]
    other = await control.sign_in("Bob")
    assert other.user_id != people[0].user_id


async def test_refreshes_at_once_get_one_successor(control: ControlRig) -> None:
    """Of 30 refreshes of one token at once one rotates; all get the same successor, and it works."""
    person = await control.sign_in()
    # Opens every connection of the pool, so that the refreshes do meet in the database.
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(control.get, "/api/auth/session", person.access_token)
    token = person.refresh_token
    for _ in range(5):
        answers: list[tuple[int, dict[str, object]]] = []

        async def refresh(token: str, answers: list[tuple[int, dict[str, object]]]) -> None:
            answers.append(await _refresh(control, token))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(refresh, token, answers)
        assert [status for status, _ in answers] == [200] * 30
        successors = {str(document["refresh_token"]) for _, document in answers}
        assert len(successors) == 1
        token = successors.pop()
    counts = await control.rows(
        "SELECT count(*) AS count FROM control.audit_log WHERE action = 'session.refresh'"
    )
    assert counts == [{"count": 5}]


async def test_every_refused_refresh_looks_the_same(control: ControlRig) -> None:
    """Unknown, malformed, foreign device, spent, of an ended session: one answer, five causes in the log."""
    person, ended = await control.sign_in("ann"), await control.sign_in("bob")
    spent = person.refresh_token
    _, refreshed = await _refresh(control, spent)
    fresh = str(refreshed["refresh_token"])
    reused = await control.sign_in("carl", OTHER_DEVICE)
    await _refresh(control, reused.refresh_token, OTHER_DEVICE)
    await control.post("/api/auth/logout", {}, ended.access_token)
    unknown = f"khr_{'0' * 52}"
    cases = [
        (unknown, DEVICE),
        ("nothing", DEVICE),
        (fresh, OTHER_DEVICE),
        (reused.refresh_token, DEVICE),
        (ended.refresh_token, DEVICE),
    ]
    bodies = []
    for token, device_id in cases:
        status, body = await _refresh(control, token, device_id)
        assert status == 401
        body.pop("request_id")
        bodies.append(body)
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["code"] == "reauth_required"
    causes = await control.rows(
        "SELECT reason FROM control.audit_log WHERE action = 'session.refresh' AND outcome = 'refused' ORDER BY audit_id"
    )
    assert [row["reason"].partition(":")[2] for row in causes] == [
        "refresh_unknown",
        "refresh_malformed",
        "device_mismatch",
        "refresh_token_reused",
        "session_revoked",
    ]
    # The refusal for another device did not spend the token.
    assert (await _refresh(control, fresh))[0] == 200


async def test_expiry_of_one_token_says_nothing_about_the_other(control: ControlRig) -> None:
    """An expired access token is refused while its refresh token works, also when sent beside it."""
    person = await control.sign_in()
    control.clock.offset_s = 931
    assert refusal(await control.get("/api/auth/session", person.access_token)) == (401, "token_expired")
    answer = await control.post(
        "/api/auth/refresh",
        {"refresh_token": person.refresh_token, "device_id": DEVICE},
        person.access_token,
    )
    assert answer.status_code == 200
    token = answer.json()["access_token"]
    assert (await control.get("/api/auth/session", token)).status_code == 200


async def test_lifetimes_end_where_they_say(control: ControlRig) -> None:
    """Access 15 min with 30 s leeway; the session 30 d from sign-in, however often it was refreshed."""
    person = await control.sign_in()
    control.clock.offset_s = 925
    assert (await control.get("/api/auth/session", person.access_token)).status_code == 200
    control.clock.offset_s = 30 * DAY_S - 60
    status, late = await _refresh(control, person.refresh_token)
    assert status == 200
    assert late["refresh_expires_at"] == person.session["expires_at"]
    # Never beyond its session: fewer than 61 of its 900 seconds are left.
    assert int(str(late["access_expires_at"])) <= int(person.session["expires_at"]) + 1000
    control.clock.offset_s = 30 * DAY_S + 5
    assert (await _refresh(control, str(late["refresh_token"])))[0] == 401
    answer = await control.get("/api/auth/session", str(late["access_token"]))
    assert refusal(answer) == (401, "reauth_required")


async def test_sessions_of_a_user_and_nobody_else(control: ControlRig) -> None:
    """The list has all of one's own sessions, newest first, ended ones marked."""
    first = await control.sign_in("ann", DEVICE)
    second = await control.sign_in("ann", OTHER_DEVICE)
    await control.sign_in("bob", DEVICE)
    await control.post("/api/auth/logout", {}, first.access_token)
    listed = (await control.get("/api/auth/sessions", second.access_token)).json()["sessions"]
    assert [session["session_id"] for session in listed] == [second.session_id, first.session_id]
    assert listed[0]["revoked_at"] == "0"
    assert int(listed[1]["revoked_at"]) > 0


async def test_a_device_id_of_two_users(control: ControlRig) -> None:
    """Both get sessions of their own on it; the inbox belongs to the one who came first."""
    ann, bob = await control.sign_in("ann", DEVICE), await control.sign_in("bob", DEVICE)
    inbox = f"device:{DEVICE}:inbox"
    assert (await control.mint(ann.access_token, inbox)).status_code == 200
    assert refusal(await control.mint(bob.access_token, inbox)) == (403, "forbidden")


async def test_sign_in_refuses_what_is_no_login_or_device(control: ControlRig) -> None:
    """Each field at its limit and one beyond; malformed ids are 400 with the field, before the issuer is asked."""
    longest = f"dev_{'z' * 64}"
    assert (await control.walk_sign_in("a" * 64, longest)).status_code == 200
    for device_id in (f"dev_{'z' * 65}", "dev_0123456", "DEV_01234567", ""):
        answer = await control.walk_sign_in("ann", device_id)
        assert refusal(answer) == (400, "invalid_argument"), device_id
        assert answer.json()["details"]["field"] == "device_id"
    answer = await control.walk_sign_in(surface="service")
    assert answer.json()["details"]["field"] == "surface"
    for login in ("a" * 65, "a b", "é", "-a"):
        answer = await control.walk_sign_in(login)
        assert answer.status_code == 200, "the form again, with what is wrong"
        assert "1..64 of A-Z" in answer.text, answer.text


async def test_the_development_issuer_is_not_for_other_pages(control: ControlRig) -> None:
    """A page whose name was rebound to loopback gets no code; this machine's own names do."""
    started = await control.http.get("/api/auth/start", params={"login_hint": "ann", "device_id": DEVICE})
    issuer = started.headers["Location"]
    for name in ("evil.example", "127.0.0.1.evil.example", "192.0.2.1"):
        answer = await control.http.get(issuer, headers={"Host": name})
        assert refusal(answer) == (403, "forbidden"), name
    for name in ("localhost", "127.0.0.1:8470", "[::1]"):
        assert (await control.http.get(issuer, headers={"Host": name})).status_code == 303
