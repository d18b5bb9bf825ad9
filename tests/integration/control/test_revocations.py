"""Ending sessions, the reuse of refresh tokens, and the log of both, on a real database."""

from contextlib import suppress

import pytest
import trio

from control.adapters.postgres.revocations import PostgresRevocations, RevocationWriter
from control.core.revocations import session_ended
from khala_service.adapters.postgres import open_pool
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import DEVICE, OTHER_DEVICE, ControlRig, Document, Person, refusal

THIRD_DEVICE = "dev_00000000deadbeef"


class _RolledBackError(Exception):
    """Ends a transaction without a commit."""


async def _log(control: ControlRig, after: int = 0, **query: int) -> Document:
    arguments = "".join(f"&{name}={value}" for name, value in query.items())
    answer = await control.get(
        f"/internal/v1/revocations?after={after}{arguments}", control.config.node_credential.reveal()
    )
    assert answer.status_code == 200, answer.text
    document: Document = answer.json()
    return document


async def _ended_sessions(control: ControlRig) -> list[str]:
    return [str(row["session_id"]) for row in (await _log(control))["revocations"]]


async def _refresh(control: ControlRig, token: str, device_id: str = DEVICE) -> tuple[int, Document]:
    answer = await control.post("/api/auth/refresh", {"refresh_token": token, "device_id": device_id})
    return answer.status_code, answer.json()


async def _revoke(control: ControlRig, person: Person, scope: str, **ids: str) -> list[str]:
    body = {"scope": f"REVOKE_SCOPE_{scope}", **ids}
    answer = await control.post("/api/auth/sessions/revoke", body, person.access_token)
    assert answer.status_code == 200, answer.text
    ended: list[str] = answer.json()["session_ids"]
    return ended


async def test_reuse_ends_the_session(control: ControlRig) -> None:
    """A spent token after the grace ends the whole family: tokens, access, and a row for the nodes."""
    person = await control.sign_in()
    _, refreshed = await _refresh(control, person.refresh_token)
    control.clock.offset_s = 9
    status, again = await _refresh(control, person.refresh_token)
    assert (status, again["refresh_token"]) == (200, refreshed["refresh_token"])
    assert await _ended_sessions(control) == []

    control.clock.offset_s = 11
    status, refused = await _refresh(control, person.refresh_token)
    assert (status, refused["code"]) == (401, "reauth_required")
    assert await _ended_sessions(control) == [person.session_id]
    assert (await _refresh(control, str(refreshed["refresh_token"])))[0] == 401
    read = await control.get("/api/auth/session", str(refreshed["access_token"]))
    assert refusal(read) == (401, "reauth_required")
    rows = await control.rows(
        "SELECT session_id, detail->>'cause' AS cause FROM control.audit_log WHERE action = 'session.revoke'"
    )
    assert rows == [{"session_id": person.session_id, "cause": "refresh_token_reused"}]


async def test_a_spent_token_from_another_device_ends_the_session(control: ControlRig) -> None:
    """Also within the grace; an unspent one from another device does not."""
    person = await control.sign_in()
    assert (await _refresh(control, person.refresh_token, OTHER_DEVICE))[0] == 401
    assert await _ended_sessions(control) == []
    status, refreshed = await _refresh(control, person.refresh_token)
    assert status == 200
    assert (await _refresh(control, person.refresh_token, OTHER_DEVICE))[0] == 401
    assert await _ended_sessions(control) == [person.session_id]
    assert (await _refresh(control, str(refreshed["refresh_token"])))[0] == 401


async def test_successors_are_kept_unreadable_and_not_for_long(control: ControlRig) -> None:
    """No column holds a successor as it is, and the sealed one is forgotten after the grace."""
    person = await control.sign_in()
    _, refreshed = await _refresh(control, person.refresh_token)
    rows = await control.rows(
        "SELECT sealed_successor FROM control.refresh_tokens WHERE sealed_successor IS NOT NULL"
    )
    assert len(rows) == 1
    secret = str(refreshed["refresh_token"]).removeprefix("khr_").encode()
    assert secret not in rows[0]["sealed_successor"]


async def test_the_four_scopes(control: ControlRig) -> None:
    """With five sessions on three devices: one, one device, all others, all; each is in the log once."""
    people = [
        await control.sign_in("ann", device)
        for device in (DEVICE, OTHER_DEVICE, OTHER_DEVICE, THIRD_DEVICE, DEVICE)
    ]
    stranger = await control.sign_in("bob")
    one, two, three, four, me = people
    assert await _revoke(control, me, "SESSION", session_id=one.session_id) == [one.session_id]
    assert await _revoke(control, me, "SESSION", session_id=one.session_id) == []
    both = sorted([two.session_id, three.session_id])
    assert await _revoke(control, me, "DEVICE", device_id=OTHER_DEVICE) == both
    assert await _revoke(control, me, "OTHERS") == [four.session_id]
    assert (await control.get("/api/auth/session", me.access_token)).status_code == 200
    assert await _revoke(control, me, "ALL") == [me.session_id]
    for person in people:
        assert refusal(await control.get("/api/auth/session", person.access_token)) == (
            401,
            "reauth_required",
        )
        assert (await _refresh(control, person.refresh_token, str(person.session["device_id"])))[0] == 401
    assert (await control.get("/api/auth/session", stranger.access_token)).status_code == 200
    log = await _log(control)
    assert [int(row["seq"]) for row in log["revocations"]] == [1, 2, 3, 4, 5]
    assert sorted(row["session_id"] for row in log["revocations"]) == sorted(p.session_id for p in people)
    assert (log["head_seq"], log["floor_seq"]) == ("5", "1")


async def test_nobody_ends_a_strangers_session(control: ControlRig) -> None:
    """A foreign session or device ends nothing and looks like one that had ended."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    assert await _revoke(control, ann, "SESSION", session_id=bob.session_id) == []
    assert await _revoke(control, ann, "DEVICE", device_id=OTHER_DEVICE) == []
    assert (await control.get("/api/auth/session", bob.access_token)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scope": "REVOKE_SCOPE_SESSION"},
        {"scope": "REVOKE_SCOPE_SESSION", "session_id": "nothing"},
        {"scope": "REVOKE_SCOPE_DEVICE", "device_id": "phone"},
        {"scope": "REVOKE_SCOPE_ALL", "session_id": "ses_00000000000000000000000000"},
        {"scope": "REVOKE_SCOPE_OTHERS", "device_id": DEVICE},
    ],
)
async def test_a_wrong_request_ends_nothing(control: ControlRig, body: dict[str, object]) -> None:
    """No scope, no id, or an id of another scope: refused with the field, and nothing has ended."""
    person = await control.sign_in()
    answer = await control.post("/api/auth/sessions/revoke", body, person.access_token)
    assert refusal(answer) == (400, "invalid_argument")
    assert await _ended_sessions(control) == []


async def test_history_of_a_device(control: ControlRig) -> None:
    """Sessions by device say when, why and by whom they ended; another user's device is not found."""
    first, second = await control.sign_in("ann"), await control.sign_in("ann")
    elsewhere = await control.sign_in("ann", OTHER_DEVICE)
    await control.sign_in("bob", THIRD_DEVICE)
    await _revoke(control, elsewhere, "SESSION", session_id=first.session_id)
    answer = await control.get(f"/api/auth/sessions?device_id={DEVICE}", elsewhere.access_token)
    found = [
        (session["session_id"], session["revoked_reason"], session["revoked_by"])
        for session in answer.json()["sessions"]
    ]
    assert found == [
        (second.session_id, "", ""),
        (first.session_id, "session.revoke", first.user_id),
    ]
    for device_id in (THIRD_DEVICE, "phone", ""):
        answer = await control.get(f"/api/auth/sessions?device_id={device_id}", elsewhere.access_token)
        assert refusal(answer) == (404, "not_found")


async def test_a_backend_ends_its_own_users_sessions(control: ControlRig) -> None:
    """By user, by user and device; never those of another org's user of the same name."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    _, secret = await control.create_key(ann, "mint", "read")
    _, others_secret = await control.create_key(bob, "mint", "read")
    topic = f"app:{ann.org_id}:news"
    for device_id in (DEVICE, OTHER_DEVICE):
        subject = {"user_id": "u-17", "device_id": device_id}
        assert (await control.mint(secret, topic, subject=subject)).status_code == 200
    other = await control.mint(
        others_secret, f"app:{bob.org_id}:news", subject={"user_id": "u-17", "device_id": DEVICE}
    )
    assert other.status_code == 200

    async def end(**body: str) -> int:
        answer = await control.post("/api/auth/revoke-subject", body, secret)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["session_ids"])

    assert await end(user_id="nobody") == 0
    assert await end(user_id="u-17", device_id=DEVICE) == 1
    assert await end(user_id="u-17") == 1
    assert await end(user_id="u-17") == 0
    assert len(await _ended_sessions(control)) == 2
    live = await control.rows(
        "SELECT count(*) AS count FROM control.sessions WHERE principal_kind = 'derived' AND revoked_at IS NULL"
    )
    assert live == [{"count": 1}]


async def test_who_may_not_end_a_subject(control: ControlRig) -> None:
    """A person, and a key without the right to mint, are refused."""
    ann = await control.sign_in("ann")
    _, secret = await control.create_key(ann, "publish")
    for credential in (ann.access_token, secret):
        answer = await control.post("/api/auth/revoke-subject", {"user_id": "u-17"}, credential)
        assert refusal(answer) == (403, "forbidden")
    _, minting = await control.create_key(ann, "mint")
    for body in ({"user_id": ""}, {"user_id": "u-17", "device_id": "phone"}):
        answer = await control.post("/api/auth/revoke-subject", body, minting)
        assert refusal(answer) == (400, "invalid_argument")


async def test_every_cause_is_in_the_log(control: ControlRig) -> None:
    """Sign-out, revocation, and a key's end each add a row; a second end of the same adds none."""
    ann = await control.sign_in("ann")
    leaving = await control.sign_in("ann")
    key_id, _ = await control.create_key(ann, "read")
    for _ in range(2):
        await control.post(f"/api/keys/{key_id}/revoke", {}, ann.access_token)
    await control.post("/api/auth/logout", {}, leaving.access_token)
    rows = (await _log(control))["revocations"]
    assert [(row["kind"], row["key_id"] or row["session_id"]) for row in rows] == [
        ("REVOCATION_KIND_KEY", key_id),
        ("REVOCATION_KIND_SESSION", leaving.session_id),
    ]


async def test_the_log_is_for_nodes_and_comes_in_pages(control: ControlRig) -> None:
    """Nobody else reads it; pages continue where the last one ended, and the end is an empty page."""
    for number in range(5):
        person = await control.sign_in("ann", f"dev_{number:08d}")
        await control.post("/api/auth/logout", {}, person.access_token)
    assert refusal(await control.get("/internal/v1/revocations?after=0", "khs_nothing"))[0] == 401
    seqs: list[int] = []
    while page := (await _log(control, seqs[-1] if seqs else 0, limit=2))["revocations"]:
        assert len(page) <= 2
        seqs += [int(row["seq"]) for row in page]
    assert seqs == [1, 2, 3, 4, 5]
    node = control.config.node_credential.reveal()
    for after in ("-1", "x", "", "9" * 19):
        answer = await control.get(f"/internal/v1/revocations?after={after}", node)
        assert refusal(answer) == (400, "invalid_argument")


async def test_seqs_are_commit_order_without_holes(control: ControlRig) -> None:
    """Of 40 changes at once, some rolled back, a reader that polls never sees a seq appear behind it."""
    async with open_pool(control.config.database_dsn, application_name="test", max_size=8) as pool:
        log = PostgresRevocations(pool)
        seen: list[int] = []
        is_done = False

        async def write(number: int) -> None:
            with suppress(_RolledBackError):
                async with pool.acquire() as connection, connection.transaction():
                    rows = [session_ended(SystemIds().new("ses")) for _ in range(1 + number % 3)]
                    await RevocationWriter().append(connection, rows, cause="test", now_ms=1)
                    if number % 4 == 0:
                        raise _RolledBackError

        async def poll() -> None:
            while not is_done:
                page = await log.read_after(seen[-1] if seen else 0, limit=7)
                seen.extend(row.seq for row in page.rows)

        async with trio.open_nursery() as reading:
            reading.start_soon(poll)
            async with trio.open_nursery() as writing:
                for number in range(40):
                    writing.start_soon(write, number)
            while seen[-1:] != [(await log.read_after(0, limit=1)).head_seq]:
                await trio.lowlevel.checkpoint()
            is_done = True
        assert seen == list(range(1, sum(1 + n % 3 for n in range(40) if n % 4) + 1))


async def test_old_rows_are_forgotten_floor_first(control: ControlRig) -> None:
    """An hour later a row is gone, the floor says so, and seqs go on where they were."""
    ann = await control.sign_in("ann")
    await _revoke(control, ann, "ALL")
    async with open_pool(control.config.database_dsn, application_name="test") as pool:
        log = PostgresRevocations(pool)
        now_ms = int(control.clock.now() * 1000)
        assert await log.sweep(now_ms=now_ms + 3_590_000, batch=10) == 0
        assert await log.sweep(now_ms=now_ms + 3_610_000, batch=10) == 1
        assert await log.sweep(now_ms=now_ms + 3_610_000, batch=10) == 0
    log_now = await _log(control)
    assert (log_now["revocations"], log_now["head_seq"], log_now["floor_seq"]) == ([], "1", "2")
    again = await control.sign_in("ann")
    await _revoke(control, again, "ALL")
    assert [row["seq"] for row in (await _log(control))["revocations"]] == ["2"]
